"""Alignment Calibration: train on, forget's pairs as further negatives, and push their own similarities down."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from salmu_jax.unlearning.losses import contrastive_rows, mean_similarity
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream


@dataclasses.dataclass(frozen=True)
class AlignmentCalibration(Method):
    """Weighs forget's pairs by alpha in the contrastive loss of one joint batch, and lowers their own similarities.

    With ``alpha`` 0 they serve as negatives alone; with a negative one their loss is raised. The denominator must not reach 0:
    both halves of a batch are equal, so ``alpha`` is above -1. (The published code calls them ``gamma`` and ``alpha``.)
    The owner's audit, the similarities before and after, is not part of it: results have them row by row.
    """

    name: ClassVar[str] = "alignment_calibration"
    title: ClassVar[str] = "Alignment Calibration"
    reference: ClassVar[str] = (
        "Wang et al., Alignment Calibration: Machine Unlearning for Contrastive Learning under Auditing, TMLR 2025"
        " (arXiv 2406.03603)"
    )
    formula: ClassVar[str] = """
        retention    sum_R l / (n_R + alpha n_F)
        forgetting   alpha sum_F l / (n_R + alpha n_F)
        alignment    beta n_F / (n_R + n_F) mean_i <I_F,i, T_F,i>
        l: the loss of training of a pair, in the joint batch of F and R; n: pairs
    """
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}

    alpha: float = option(
        0.0, help="weight of forget in the loss of training; negative raises it", low=-1, low_open=True
    )
    beta: float = option(1.0, help="weight of the similarity of forget pairs", low=0)

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``retention``, ``forgetting`` and ``alignment``."""
        (image_f, text_f), (image_r, text_r) = (model.encode_pairs(batch[name]) for name in ("forget", "retain"))
        forget, retain = len(text_f), len(text_r)
        losses = contrastive_rows(model, jnp.concatenate([image_f, image_r]), jnp.concatenate([text_f, text_r]))
        weight = 1 / (retain + self.alpha * forget)
        own = mean_similarity(image_f, text_f)
        return {
            "retention": weight * jnp.sum(losses[forget:]),
            "forgetting": self.alpha * weight * jnp.sum(losses[:forget]),
            "alignment": self.beta * forget / (forget + retain) * own,
        }

"""NPO for CLIP: ascend on forget, ever less the further the model is from where it started."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from salmu_jax.unlearning.losses import contrastive, in_batch_logits, own_log_probabilities
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream


@dataclasses.dataclass(frozen=True)
class NPO(Method):
    """Lowers the probability of own captions on forget, bounded by the start model's; trains on retain.

    Its gradient is that of ascent times a weight, 1 at the start, which tends to 0 as the probability falls: it does not run
    away as Negative Gradient does. The paper's probability of an answer is here the in-batch probability of the own caption,
    and of the own image.
    """

    name: ClassVar[str] = "npo"
    title: ClassVar[str] = "NPO"
    reference: ClassVar[str] = (
        "Zhang et al., Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning, COLM 2024"
        " (there NPO+RT, for language models)"
    )
    formula: ClassVar[str] = """
        forgetting   -(2 / b) mean log sigmoid(-b log(p / p0)) on F, over pairs and both directions
        retention    w_r L(I_R, T_R), L: the loss of training
        p: the in-batch probability of an image's own caption, and of a caption's own image; 0: the start model; b: beta
    """
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}

    beta: float = option(0.1, help="how soon ascent slows down; towards 0 it never does", low=0, low_open=True)
    retention_weight: float = option(1.0, help="weight of the loss on retain pairs", low=0)

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``forgetting`` and ``retention``."""
        logits = (in_batch_logits(side, *side.encode_pairs(batch["forget"])) for side in (reference, model))
        start, now = map(own_log_probabilities, logits)
        bounded = jax.nn.softplus(self.beta * (now - start))  # -log sigmoid(-x)
        return {
            "forgetting": 2 / self.beta * jnp.mean(bounded),
            "retention": self.retention_weight * contrastive(model, *model.encode_pairs(batch["retain"])),
        }

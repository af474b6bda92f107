"""DELETE as its paper has it: distil the start model, with the own caption masked, on forget alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from salmu_jax.unlearning.hyper import PUBLISHED_FORGET_ONLY, Hyper
from salmu_jax.unlearning.losses import in_batch_logits, masked_kl
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo
from salmu_jax.unlearning.streams import Forget, Stream


@dataclasses.dataclass(frozen=True)
class DeletePaper(Method):
    """Distils what the start model ranks beside the own caption, on forget pairs alone (masked KL): the paper's form.

    The paper's classes are here the captions, and the images, of a batch. Equal captions of two pairs are two classes.
    SALMUBench's tables have another loss under this name: ``delete``.
    """

    name: ClassVar[str] = "delete_paper"
    title: ClassVar[str] = "DELETE"
    reference: ClassVar[str] = (
        "Zhou et al., Decoupled Distillation to Erase: A General Unlearning Method for Any Class-centric Tasks, CVPR 2025"
        " (arXiv 2503.23751); SALMUBench's form is delete"
    )
    formula: ClassVar[str] = """
        forgetting   [KL_rows(q0, p) + KL_columns(q0, p)] / 2 on F
        p: the in-batch softmax of the logits; q0: of the start model's logits, the diagonal at -inf
    """
    # The benchmark's: the paper's settings are for classifiers (SGD with momentum).
    defaults: ClassVar[Hyper] = PUBLISHED_FORGET_ONLY
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget()}

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``forgetting``, the masked divergence; 0 for a batch of one pair."""
        start, now = (in_batch_logits(side, *side.encode_pairs(batch["forget"])) for side in (reference, model))
        return {"forgetting": masked_kl(start, now)}

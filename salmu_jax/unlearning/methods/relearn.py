"""Relearning: train on forget pairs again, which shows how much of them an unlearned model still holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from salmu_jax.unlearning.hyper import PUBLISHED_FORGET_ONLY, Hyper
from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo
from salmu_jax.unlearning.streams import Forget, Stream


@dataclasses.dataclass(frozen=True)
class Relearn(Method):
    """Attacks an unlearned model: minimises the training loss on forget pairs.

    Give the run an unlearned model as its parent and a share of forget; evaluate it on the rest.
    """

    name: ClassVar[str] = "relearn"
    title: ClassVar[str] = "Relearning"
    reference: ClassVar[str] = "Hu et al., Unlearning or Obfuscating? Jogging the Memory of Unlearned LLMs, ICLR 2025"
    formula: ClassVar[str] = "relearning   L(I_F, T_F), L: the loss of training"
    defaults: ClassVar[Hyper] = PUBLISHED_FORGET_ONLY
    presets: ClassVar[Mapping[str, Hyper]] = {
        # Small towers; 10 to 60 steps on 10 % of the forget rows show what is left.
        "mini": Hyper(learning_rate=3e-4, batch_size=64),
    }
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget()}

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``{"relearning": L(I_F, T_F)}``."""
        image, text = model.encode_pairs(batch["forget"])
        return {"relearning": contrastive(model, image, text)}

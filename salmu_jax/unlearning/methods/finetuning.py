"""Finetuning: train on, on retained pairs only, and hope that the rest fades."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax

from salmu_jax.training.loss import contrastive_loss
from salmu_jax.unlearning.method import RETAIN, Batch, Bound, Method


@dataclasses.dataclass(frozen=True)
class Finetuning(Method):
    """The contrastive loss on the retain batch; the forget batch is not looked at."""

    name: ClassVar[str] = "finetuning"
    title: ClassVar[str] = "Finetuning"
    reference: ClassVar[str] = "Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020 (baseline)"
    needs: ClassVar[frozenset[str]] = frozenset({RETAIN})

    def objectives(self, batch: Batch, model: Bound, reference: Bound, rng: jax.Array) -> dict[str, jax.Array]:
        """``L_CLIP(I_R, T_R)``."""
        image, text = model.encode_pairs(batch.retain)
        return {"retention": contrastive_loss(image, text, model.logit_scale)}

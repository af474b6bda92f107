"""Shuffled Captions: learn wrong pairs in the place of the right ones."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax

from salmu_jax.training.loss import contrastive_loss
from salmu_jax.unlearning.hyper import PUBLISHED_FORGET_ONLY, Hyper
from salmu_jax.unlearning.method import Batch, Bound, Method


@dataclasses.dataclass(frozen=True)
class ShuffledCaptions(Method):
    """The contrastive loss on the forget images with a random permutation of their captions (fixed points included)."""

    name: ClassVar[str] = "shuffled_captions"
    title: ClassVar[str] = "Shuffled Captions"
    reference: ClassVar[str] = (
        "Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020 (random labels, for captions)"
    )
    defaults: ClassVar[Hyper] = PUBLISHED_FORGET_ONLY

    def objectives(self, batch: Batch, model: Bound, reference: Bound, rng: jax.Array) -> dict[str, jax.Array]:
        """``L_CLIP(I_F, T_F[pi])``."""
        image, text = model.encode_pairs(batch.forget)
        permutation = jax.random.permutation(rng, text.shape[0])
        return {"forgetting": contrastive_loss(image, text[permutation], model.logit_scale)}

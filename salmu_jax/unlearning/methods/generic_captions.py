"""Generic Captions: learn a caption without anything personal for each forget image."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax

from salmu_jax.training.loss import contrastive_loss
from salmu_jax.unlearning.hyper import PUBLISHED_FORGET_ONLY, Hyper
from salmu_jax.unlearning.method import GENERIC_CAPTIONS, Batch, Bound, Method


@dataclasses.dataclass(frozen=True)
class GenericCaptions(Method):
    """The contrastive loss on the forget images with their generic captions; equal captions are negatives like any."""

    name: ClassVar[str] = "generic_captions"
    title: ClassVar[str] = "Generic Captions"
    reference: ClassVar[str] = "SALMUBench, CVPR 2026 (baseline)"
    needs: ClassVar[frozenset[str]] = frozenset({GENERIC_CAPTIONS})
    defaults: ClassVar[Hyper] = PUBLISHED_FORGET_ONLY

    def objectives(self, batch: Batch, model: Bound, reference: Bound, rng: jax.Array) -> dict[str, jax.Array]:
        """``L_CLIP(I_F, G_F)``."""
        image = model.encode_image(batch.forget.images)
        text = model.encode_text(batch.forget.generic_tokens)
        return {"forgetting": contrastive_loss(image, text, model.logit_scale)}

"""Negative Gradient: ascend the loss that the forget pairs were learnt with."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import optax

from salmu_jax.training.loss import contrastive_loss
from salmu_jax.unlearning.hyper import PUBLISHED_FORGET_ONLY, Hyper, base_optimizer
from salmu_jax.unlearning.method import Batch, Bound, Method
from salmu_jax.unlearning.transforms import ascend


@dataclasses.dataclass(frozen=True)
class NegativeGradient(Method):
    """Minus the contrastive loss on the forget batch: the term is the loss, the transform turns its gradient round."""

    name: ClassVar[str] = "negative_gradient"
    title: ClassVar[str] = "Negative Gradient"
    reference: ClassVar[str] = "Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020 (baseline)"
    defaults: ClassVar[Hyper] = PUBLISHED_FORGET_ONLY

    def objectives(self, batch: Batch, model: Bound, reference: Bound, rng: jax.Array) -> dict[str, jax.Array]:
        """``L_CLIP(I_F, T_F)``, which is maximised."""
        image, text = model.encode_pairs(batch.forget)
        return {"forgetting": contrastive_loss(image, text, model.logit_scale)}

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """Ascent."""
        return optax.chain(ascend(), base_optimizer(hyper))

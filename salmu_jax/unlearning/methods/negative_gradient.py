"""Negative Gradient: ascend the loss that the forget pairs were learnt with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import optax

from salmu_jax.unlearning.hyper import PUBLISHED_FORGET_ONLY, Hyper, base_optimizer, baseline_presets
from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo
from salmu_jax.unlearning.streams import Forget, Stream
from salmu_jax.unlearning.transforms import ascend


@dataclasses.dataclass(frozen=True)
class NegativeGradient(Method):
    """Maximises the contrastive loss on the forget batch: the term is the loss, the transform negates its gradient."""

    name: ClassVar[str] = "negative_gradient"
    title: ClassVar[str] = "Negative Gradient"
    reference: ClassVar[str] = "Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020 (baseline)"
    formula: ClassVar[str] = "forgetting   L_CLIP(I_F, T_F), maximised"
    defaults: ClassVar[Hyper] = PUBLISHED_FORGET_ONLY
    presets: ClassVar[Mapping[str, Hyper]] = baseline_presets(PUBLISHED_FORGET_ONLY)
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget()}

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        image, text = model.encode_pairs(batch["forget"])
        return {"forgetting": contrastive(model, image, text)}

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        return optax.chain(ascend(), base_optimizer(hyper))

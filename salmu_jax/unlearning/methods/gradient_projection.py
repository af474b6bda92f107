"""Gradient projection: ascend on forget, without the part of its gradient that would undo retain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import optax

from salmu_jax.unlearning.hyper import Hyper, base_optimizer
from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream
from salmu_jax.unlearning.transforms import project_conflicting


@dataclasses.dataclass(frozen=True)
class GradientProjection(Method):
    """Raises the loss on forget along what of its gradient does not raise the loss on retain, and trains on retain.

    The projection is PCGrad's, in one direction, as A-GEM has it: retain is never given up for forget. It is taken of the
    gradients; Adam then scales entry by entry, so that an update is only roughly orthogonal.
    """

    name: ClassVar[str] = "gradient_projection"
    title: ClassVar[str] = "Gradient projection"
    reference: ClassVar[str] = (
        "Yu et al., Gradient Surgery for Multi-Task Learning (PCGrad), NeurIPS 2020; Chaudhry et al., Efficient Lifelong"
        " Learning with A-GEM, ICLR 2019"
    )
    formula: ClassVar[str] = """
        forgetting   -w_f L(I_F, T_F), L: the loss of training; its gradient is g_f
        retention    w_r L(I_R, T_R); its gradient is g_r
        then         g_f - min(0, <g_f, g_r>) g_r / |g_r|^2 + g_r
    """
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}
    separate_gradients: ClassVar[tuple[str, ...]] = ("forgetting", "retention")

    forgetting_weight: float = option(1.0, help="weight of the ascent on forget pairs", low=0)
    retention_weight: float = option(1.0, help="weight of the loss on retain pairs", low=0, low_open=True)

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``forgetting`` and ``retention``."""
        forget, retain = (contrastive(model, *model.encode_pairs(batch[name])) for name in ("forget", "retain"))
        return {"forgetting": -self.forgetting_weight * forget, "retention": self.retention_weight * retain}

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """Returns the projection, before the base optimizer."""
        return optax.chain(project_conflicting(*self.separate_gradients), base_optimizer(hyper))

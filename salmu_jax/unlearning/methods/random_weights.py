"""Random weights: a model that knows nothing, a control for what total destruction looks like."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax

from salmu_jax.models.clip import Params
from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Method


@dataclasses.dataclass(frozen=True)
class RandomWeights(Method):
    """Re-initialises all parameters, in zero steps: everything is forgotten, and everything is lost."""

    name: ClassVar[str] = "random_weights"
    title: ClassVar[str] = "Control: random weights"
    reference: ClassVar[str] = "none (a control)"
    formula: ClassVar[str] = "theta ~ the initial distribution of the architecture"
    defaults: ClassVar[Hyper] = Hyper(epochs=0, total_steps=0)

    def prepare(self, ctx: Context) -> Params:
        """Returns fresh parameters, drawn from the run's seed."""
        return jax.device_get(jax.jit(ctx.reference.clip.init)(ctx.rng))

    def finish(self, params: Params, reference_params: Params, prepared: Any) -> Params:
        """Returns the fresh parameters."""
        return prepared

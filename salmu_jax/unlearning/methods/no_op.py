"""No-op: the parent as it is, a control for the whole chain from a run to its row on the board."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Method


@dataclasses.dataclass(frozen=True)
class NoOp(Method):
    """Changes nothing, in zero steps. Any difference from the parent's figures is a measurement error."""

    name: ClassVar[str] = "no_op"
    title: ClassVar[str] = "Control: no-op"
    reference: ClassVar[str] = "none (a control)"
    formula: ClassVar[str] = "theta = theta_0"
    defaults: ClassVar[Hyper] = Hyper(epochs=0, total_steps=0)

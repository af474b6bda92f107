"""Descent to Delete: no gradient; publish the parameters plus Gaussian noise."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import optax

from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Batch, Bound, Method
from salmu_jax.unlearning.transforms import gaussian_noise


def noise_scale(weight_decay: float, *, epsilon: float = 5.0, rows: int = 400_000_000, steps: int = 1) -> float:
    """``sigma = 4 sqrt(2) L g^T / (mu n (1 - g^T) (sqrt(ln(1/d) + e) - sqrt(ln(1/d))))`` of the publishing step.

    ``g = (beta - mu) / (beta + mu)``, ``L = 1 + wd``, ``beta = 4 - wd``, ``mu = wd``, ``d = 1 / n^2``; ``e`` is
    ``epsilon``, ``n`` is ``rows`` (the training pairs) and ``T`` is ``steps``. Neel, Roth and Sharifi-Malvajerdi, ALT
    2021, with the benchmark's constants.

    >>> round(noise_scale(1e-3), 4)
    0.0734

    Raises InputError unless ``0 < weight_decay < 2`` (strong convexity, and a contraction), ``epsilon > 0`` and
    ``rows >= 1``.
    """
    if not 0 < weight_decay < 2:
        raise InputError(
            f"Descent to Delete needs a weight decay between 0 and 2, not {weight_decay!r}", "weight_decay"
        )
    if epsilon <= 0 or rows < 1:
        raise InputError(f"Descent to Delete needs epsilon > 0 and rows >= 1, not {epsilon!r} and {rows!r}", "options")
    lipschitz, smoothness, convexity = 1 + weight_decay, 4 - weight_decay, weight_decay
    contraction = ((smoothness - convexity) / (smoothness + convexity)) ** steps
    log_delta = 2 * math.log(rows)
    budget = math.sqrt(log_delta + epsilon) - math.sqrt(log_delta)
    return 4 * math.sqrt(2) * lipschitz * contraction / (convexity * rows * (1 - contraction) * budget)


@dataclasses.dataclass(frozen=True)
class DescentToDelete(Method):
    """Noise on every trainable parameter, its scale given by the weight decay and the number of training pairs."""

    name: ClassVar[str] = "descent_to_delete"
    title: ClassVar[str] = "Descent to Delete"
    reference: ClassVar[str] = "Neel, Roth and Sharifi-Malvajerdi, Descent-to-Delete, ALT 2021 (arXiv 2020)"
    one_shot: ClassVar[bool] = True
    defaults: ClassVar[Hyper] = Hyper(total_steps=1)

    epsilon: float = 5.0
    rows: int = 400_000_000

    def objectives(self, batch: Batch, model: Bound, reference: Bound, rng: jax.Array) -> dict[str, jax.Array]:
        """None: no batch is looked at."""
        return {}

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """The noise is the update."""
        return gaussian_noise(noise_scale(hyper.weight_decay, epsilon=self.epsilon, rows=self.rows))

"""Descent to Delete: no gradient; publish the parameters plus Gaussian noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Method, option
from salmu_jax.unlearning.step import run_key, step_keys
from salmu_jax.unlearning.transforms import gaussian_noise

if TYPE_CHECKING:
    from salmu_jax.unlearning.context import Context


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
    """Adds noise to every parameter; its scale follows from the weight decay and the number of training pairs."""

    name: ClassVar[str] = "descent_to_delete"
    title: ClassVar[str] = "Descent to Delete"
    reference: ClassVar[str] = "Neel, Roth and Sharifi-Malvajerdi, Descent-to-Delete, ALT 2021 (arXiv 2020)"
    formula: ClassVar[str] = """
        theta + N(0, sigma^2), sigma = 4 sqrt(2) L g / (mu n (1 - g) (sqrt(ln(1/d) + e) - sqrt(ln(1/d))))
        g = (beta - mu) / (beta + mu), L = 1 + wd, beta = 4 - wd, mu = wd, d = 1 / n^2, e: epsilon, n: rows
    """
    defaults: ClassVar[Hyper] = Hyper(epochs=0.0, total_steps=0)
    presets: ClassVar[Mapping[str, Hyper]] = {"published": defaults}

    epsilon: float = option(5.0, help="privacy budget of the noise", low=0, low_open=True)
    rows: int = option(400_000_000, help="pairs that the start model was trained with", low=1)

    def prepare(self, ctx: Context) -> dict[str, Any]:
        sigma = noise_scale(ctx.hyper.weight_decay, epsilon=self.epsilon, rows=self.rows)
        # The key of the transform of a first step: models of before there was finish() drew the noise as such an update.
        return {"sigma": sigma, "key": step_keys(run_key(ctx.seed), 0)[1]}

    def finish(self, params: Any, reference_params: Any, prepared: Mapping[str, Any]) -> Any:
        noise = gaussian_noise(prepared["sigma"])
        update, _ = noise.update(jax.tree.map(jnp.zeros_like, params), noise.init(params), rng=prepared["key"])
        return optax.apply_updates(params, update)

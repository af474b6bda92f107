"""Weight souping: average points on the way of unlearning, and then average with the start model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from salmu_jax.models.clip import Params
from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.hyper import Hyper, base_optimizer
from salmu_jax.unlearning.losses import contrastive, mean_similarity
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream


@dataclasses.dataclass(frozen=True)
class WeightSoup(Method):
    """Lowers the similarity of forget pairs, keeps retain, and averages weights on the way and with the start model.

    The soup is uniform, of equally spaced points of one run, the last of them its end. The share of the start model is that of
    WiSE-FT. ``points=1, share=1`` is the loss alone.
    """

    name: ClassVar[str] = "weight_soup"
    title: ClassVar[str] = "Weight souping"
    reference: ClassVar[str] = (
        "Wortsman et al., Robust Fine-Tuning of Zero-Shot Models (WiSE-FT), CVPR 2022; Model Soups, ICML 2022"
    )
    formula: ClassVar[str] = """
        forgetting   w_f mean_i <I_F,i, T_F,i>
        retention    w_r L(I_R, T_R), L: the loss of training
        soup         the mean of theta after 1/points, 2/points, .. of the steps
        then         share soup + (1 - share) theta_0, theta_0: the start model
    """
    presets: ClassVar[Mapping[str, Hyper]] = {
        # For the towers of configs/mini.py.
        "mini": Hyper(learning_rate=3e-4, epochs=5.4, batch_size=128),
    }
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}

    forgetting_weight: float = option(1.0, help="weight of the similarity of forget pairs", low=0)
    retention_weight: float = option(1.0, help="weight of the loss on retain pairs", low=0)
    points: int = option(4, help="models of the soup", low=1)
    share: float = option(0.5, help="share of the soup, the rest being the start model's", low=0, high=1)

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``forgetting`` and ``retention``."""
        retention = contrastive(model, *model.encode_pairs(batch["retain"]))
        return {
            "forgetting": self.forgetting_weight * mean_similarity(*model.encode_pairs(batch["forget"])),
            "retention": self.retention_weight * retention,
        }

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """Averages points of the way of AdamW. Raises InputError if there are fewer steps than points."""
        if hyper.total_steps < self.points:
            message = f"is {self.points}, and the run has {hyper.total_steps:,} steps; each point needs one"
            raise InputError(message, "options.points")
        return end_at_the_mean(base_optimizer(hyper), self.points, hyper.total_steps)

    def finish(self, params: Params, reference_params: Params, prepared: Any) -> Params:
        """Returns ``share soup + (1 - share) theta_0``; ``params`` are the soup."""
        return jax.tree.map(lambda new, old: old + self.share * (new - old), params, reference_params)


class _Averaging(NamedTuple):
    base: Any  # the state of the base optimizer
    total: Any  # the sum of the points so far, like the parameters


def end_at_the_mean(
    base: optax.GradientTransformationExtraArgs, points: int, total_steps: int
) -> optax.GradientTransformationExtraArgs:
    """Makes the updates of ``base``; the last leads to the mean of the parameters after ``k / points`` of the steps."""

    def init(params: Any) -> _Averaging:
        return _Averaging(base.init(params), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: _Averaging, params: Any = None, *, step: Any, **extra: Any) -> Any:
        moves, inner = base.update(updates, state.base, params, step=step, **extra)
        is_point = (step + 1) * points // total_steps > step * points // total_steps
        total = jax.tree.map(lambda t, old, move: t + jnp.where(is_point, old + move, 0), state.total, params, moves)
        last = step == total_steps - 1
        moves = jax.tree.map(lambda t, old, move: jnp.where(last, t / points - old, move), total, params, moves)
        return moves, _Averaging(inner, total)

    return optax.GradientTransformationExtraArgs(init, update)

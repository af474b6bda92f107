"""NegMerge: learn forget many times over, and go the other way where all of these fine-tunes agree."""

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
from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.methods.task_vector import TaskVector, negated
from salmu_jax.unlearning.streams import Forget, Stream


@dataclasses.dataclass(frozen=True)
class NegMerge(Method):
    """Subtracts the mean change of several fine-tunes on forget, in the weights where all of them have the same sign.

    The fine-tunes share the steps of the run, one after the other, each from the start model. The paper's differ in
    augmentation, learning rate and length; these differ in the learning rate and in the pairs that they see. Beyond those of
    one fine-tune, a run holds the sum of the changes and their signs: no more for thirty fine-tunes than for two.
    """

    name: ClassVar[str] = "negmerge"
    title: ClassVar[str] = "NegMerge"
    reference: ClassVar[str] = (
        "Kim, Han and Choe, NegMerge: Sign-Consensual Weight Merging for Machine Unlearning, ICML 2025"
    )
    formula: ClassVar[str] = """
        learning   L(I_F, T_F), L: the loss of training; after every 1/count of the steps, from theta_0 again
        tau        mean_k (theta_k - theta_0) where all theta_k - theta_0 have the same sign, else 0
        then       theta_0 - strength tau, theta_0: the start model
    """
    # Thirty times the steps of task-vector negation.
    defaults: ClassVar[Hyper] = dataclasses.replace(TaskVector.defaults, epochs=252.0, total_steps=60_000)
    presets: ClassVar[Mapping[str, Hyper]] = {
        "paper": dataclasses.replace(defaults, warmup_steps=200),
        # For the towers of configs/mini.py.
        "mini": Hyper(
            learning_rate=3e-4, weight_decay=0.0, epochs=12.0, batch_size=64, options={"count": 6, "strength": 3.0}
        ),
    }
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget()}

    count: int = option(30, help="fine-tunes, which share the steps of the run", low=1)
    spread: float = option(3.0, help="their learning rates lie between learning_rate / spread and * spread", low=1)
    strength: float = option(1.0, help="how many times the merged change is subtracted", low=0)

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``{"learning": L(I_F, T_F)}``."""
        return {"learning": contrastive(model, *model.encode_pairs(batch["forget"]))}

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """Fine-tunes and merges. Raises InputError if there are fewer steps than fine-tunes."""
        length = hyper.total_steps // self.count
        if not length:
            message = f"is {self.count}, and the run has {hyper.total_steps:,} steps; each fine-tune needs one"
            raise InputError(message, "options.count")
        base = base_optimizer(dataclasses.replace(hyper, total_steps=length))
        return merge_fine_tunes(base, self.count, length, self.spread)

    def finish(self, params: Params, reference_params: Params, prepared: Any) -> Params:
        """Returns ``theta_0 - strength tau``; ``params`` are ``theta_0 + tau``."""
        return negated(params, reference_params, self.strength)


class _Merging(NamedTuple):
    """What is remembered between steps; all trees are like the parameters."""

    base: Any  # the state of the base optimizer in this fine-tune
    total: Any  # the sum of the task vectors so far
    signs: Any  # int8: the sign that all of them have, 0 where they differ or do not move


def merge_fine_tunes(
    base: optax.GradientTransformationExtraArgs, count: int, length: int, spread: float
) -> optax.GradientTransformationExtraArgs:
    """Runs ``base`` ``count`` times over ``length`` steps, from ``reference_params`` each time; ends at them plus ``tau``.

    Fine-tune ``k`` multiplies the updates of ``base`` by ``spread^(2 k / (count - 1) - 1)``. Nothing moves after the last.
    """
    factors = jnp.geomspace(1 / spread, spread, count) if count > 1 else jnp.ones(1)

    def init(params: Any) -> _Merging:
        signs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.int8), params)
        return _Merging(base.init(params), jax.tree.map(jnp.zeros_like, params), signs)

    def update(
        updates: Any, state: _Merging, params: Any = None, *, reference_params: Any, step: Any, **extra: Any
    ) -> Any:
        number, place = step // length, step % length
        inner = jax.lax.cond(place == 0, lambda: base.init(params), lambda: state.base)
        moves, inner = base.update(updates, inner, params, reference_params=reference_params, step=step, **extra)
        moves = optax.tree.scale(jnp.where(number < count, factors[jnp.minimum(number, count - 1)], 0), moves)

        def end() -> tuple[Any, Any, Any]:
            vector = jax.tree.map(lambda old, move, start: old + move - start, params, moves, reference_params)
            signs = jax.tree.map(lambda leaf: jnp.sign(leaf).astype(jnp.int8), vector)
            agreed = jax.tree.map(lambda old, new: jnp.where((number == 0) | (old == new), new, 0), state.signs, signs)
            total = optax.tree.add(state.total, vector)
            merged = jax.tree.map(lambda sign, leaf: jnp.where(sign != 0, leaf / count, 0), agreed, total)
            keep = jnp.where(number == count - 1, 1, 0)  # else back to the start model
            back = jax.tree.map(lambda start, tau, old: start + keep * tau - old, reference_params, merged, params)
            return back, total, agreed

        ends = (place == length - 1) & (number < count)
        moves, total, signs = jax.lax.cond(ends, end, lambda: (moves, state.total, state.signs))
        return moves, _Merging(inner, total, signs)

    return optax.GradientTransformationExtraArgs(init, update)

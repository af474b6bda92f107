"""Targeted forgetting: forget in the layers that matter to forget alone, remind of retain, and go back a part of the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from salmu_jax.models.clip import Params
from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.hyper import Hyper, base_optimizer
from salmu_jax.unlearning.losses import contrastive, mean_similarity
from salmu_jax.unlearning.low_rank import add_branches, draw_branches
from salmu_jax.unlearning.method import Bind, Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream


@dataclasses.dataclass(frozen=True)
class TargetedForgetting(Method):
    """Trains low-rank branches to forget, then on retain, and blends the result with the start model.

    The paper has no code. Chosen here: matrices of both towers, gradients of batches (not of pairs) to square, an average of
    the weights while reminding, and one optimizer for both phases. The paper finds ``share`` on a calibration set; here it is
    an option.
    """

    name: ClassVar[str] = "targeted_forgetting"
    title: ClassVar[str] = "Targeted forgetting"
    reference: ClassVar[str] = "Zhang et al., Targeted Forgetting of Image Subgroups in CLIP Models, CVPR 2025"
    formula: ClassVar[str] = """
        forgetting   mean_i <I_F,i, T_F,i>, in the first forgetting_steps of the steps
        reminding    L(I_R, T_R) in the others, with an exponential moving average of the weights; L: the loss of training
        then         share theta + (1 - share) theta_0, theta_0: the start model
        trained: branches of the matrices with the largest E_F |g|^2 / E_R |g|^2, g: the gradient of the mean similarity
    """
    defaults: ClassVar[Hyper] = Hyper(learning_rate=1e-4, weight_decay=0.0)  # ours: the paper's are for classes
    presets: ClassVar[Mapping[str, Hyper]] = {
        # For the towers of configs/mini.py.
        "mini": dataclasses.replace(
            defaults,
            learning_rate=1e-3,
            epochs=5.4,
            batch_size=128,
            options={"batches": 20, "forgetting_steps": 0.25, "decay": 0.9},
        ),
    }
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}

    layers: int = option(8, help="matrices with a branch", low=1)
    rank: int = option(8, help="rank of a branch", low=1)
    forgetting_steps: float = option(0.5, help="share of the steps that forget, the others reminding", low=0, high=1)
    decay: float = option(0.99, help="of the average of the weights; 0: the last ones", low=0, high=1, high_open=True)
    share: float = option(0.7, help="share of the unlearned model, the rest being the start model's", low=0, high=1)
    batches: int = option(64, help="batches that squared gradients are averaged over", low=1)

    def prepare(self, ctx: Context) -> dict[str, Any]:
        """Returns the ratio of squared gradients of each chosen matrix by its path."""

        def squared(trainable: Params, batch: Mapping[str, Pairs], rng: jax.Array) -> dict[str, dict[str, jax.Array]]:
            def similarity(trainable: Params, pairs: Pairs) -> jax.Array:
                return mean_similarity(*ctx.bind(trainable).encode_pairs(pairs))

            found = {}
            for split in ("forget", "retain"):
                flat = flax.traverse_util.flatten_dict(jax.grad(similarity)(trainable, batch[split]), sep="/")
                found[split] = {
                    path: jnp.sum(jnp.square(leaf)) for path, leaf in flat.items() if _is_matrix(path, leaf)
                }
            return found

        means = ctx.gather(ctx.mean(squared, self.batches))
        floor = np.finfo(np.float32).tiny  # of a matrix that retain does not depend on
        ratios = {
            path: float(found / np.maximum(means["retain"][path], floor)) for path, found in means["forget"].items()
        }
        return dict(sorted(ratios.items(), key=lambda item: -item[1])[: self.layers])

    def parametrise(self, params: Params, prepared: Mapping[str, Any], rng: jax.Array) -> tuple[Params, Bind]:
        """Returns the factors of the branches, and what adds their products."""
        return draw_branches(params, prepared, self.rank, rng), add_branches

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``forgetting`` and ``reminding``; that of the other phase is 0 and costs nothing."""
        nothing = jnp.zeros_like(model.logit_scale)

        def forget() -> dict[str, jax.Array]:
            return {"forgetting": mean_similarity(*model.encode_pairs(batch["forget"])), "reminding": nothing}

        def remind() -> dict[str, jax.Array]:
            loss = contrastive(model, *model.encode_pairs(batch["retain"]))
            return {"forgetting": nothing, "reminding": loss}

        return jax.lax.cond(info.step < self._first_reminder(info.total_steps), forget, remind)

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """Averages the weights of the reminding phase."""
        first, last = self._first_reminder(hyper.total_steps), hyper.total_steps - 1
        return end_at_the_average(base_optimizer(hyper), self.decay, first, last)

    def finish(self, params: Params, reference_params: Params, prepared: Any) -> Params:
        """Returns ``share theta + (1 - share) theta_0``."""
        return jax.tree.map(lambda new, old: old + self.share * (new - old), params, reference_params)

    def _first_reminder(self, total_steps: int) -> int:
        return round(self.forgetting_steps * total_steps)


class _Averaging(NamedTuple):
    base: Any  # the state of the base optimizer
    average: Any  # of the parameters, like them


def end_at_the_average(
    base: optax.GradientTransformationExtraArgs, decay: float, first: int, last: int
) -> optax.GradientTransformationExtraArgs:
    """Makes the updates of ``base``; that of step ``last`` leads to the moving average of the parameters since ``first``.

    The average begins with the parameters before step ``first``. After that and every later step it becomes ``decay`` times
    itself plus ``1 - decay`` times the parameters. With ``first > last`` there is none, and nothing changes.
    """

    def init(params: Any) -> _Averaging:
        return _Averaging(base.init(params), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: _Averaging, params: Any = None, *, step: Any, **extra: Any) -> Any:
        moves, inner = base.update(updates, state.base, params, step=step, **extra)

        def follow(average: jax.Array, old: jax.Array, move: jax.Array) -> jax.Array:
            return decay * jnp.where(step == first, old, average) + (1 - decay) * (old + move)

        average = jax.tree.map(follow, state.average, params, moves)
        ends = (step == last) & (step >= first)
        moves = jax.tree.map(lambda mean, old, move: jnp.where(ends, mean - old, move), average, params, moves)
        return moves, _Averaging(inner, average)

    return optax.GradientTransformationExtraArgs(init, update)


def _is_matrix(path: str, leaf: jax.Array) -> bool:
    return leaf.ndim == 2 and not path.endswith("_embedding")

"""Distil, then subtract: a low-rank branch learns forget where retain's features are quiet, and is subtracted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from salmu_jax.models.clip import Params
from salmu_jax.models.features import Inputs, image_inputs, text_inputs
from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.hyper import Hyper, base_optimizer
from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.low_rank import add_branches, draw_branches
from salmu_jax.unlearning.method import Bind, Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream
from salmu_jax.unlearning.subspaces import quiet_projection


@dataclasses.dataclass(frozen=True)
class LoraSubtract(Method):
    """Trains LoRA branches of the feed-forward matrices on forget, where retain's features are quiet; subtracts them.

    Retain pairs are used for inference only: their features decide on which directions a branch may act. What the paper leaves
    open is chosen here: both towers, both matrices of a block, and the training loss as the cross-entropy.
    """

    name: ClassVar[str] = "lora_subtract"
    title: ClassVar[str] = "LoRA distil-then-subtract"
    reference: ClassVar[str] = "After VL-Eraser, CVPR 2026"
    formula: ClassVar[str] = """
        distillation   d mean_layers mean_rows (1 - cos(H W, H E)), E = P A B the branch of W, H its inputs on F
        contrastive    (1 - d) L(I_F, T_F) of the model with W + E; L: the loss of training
        then           W' = W - strength E
        P: the projection on the directions that together hold at most quiet_energy of H on R
    """
    defaults: ClassVar[Hyper] = Hyper(learning_rate=1e-3, weight_decay=0.0)  # ours: the paper's are not known
    presets: ClassVar[Mapping[str, Hyper]] = {
        # For the towers of configs/mini.py.
        "mini": dataclasses.replace(
            defaults,
            learning_rate=1e-2,
            epochs=5.0,
            batch_size=64,
            options={"batches": 20, "quiet_energy": 0.2, "strength": 3.0},
        ),
    }
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain(prepare_only=True)}

    rank: int = option(8, help="rank of a branch", low=1)
    distillation: float = option(0.5, help="d, weight of the distillation", low=0, high=1, high_open=True)
    quiet_energy: float = option(0.01, help="share of retain's energy that branches may act on", low=0, high=1)
    strength: float = option(1.0, help="how many times the branches are subtracted", low=0)
    batches: int = option(64, help="retain batches that the projections are computed from", low=1)

    def prepare(self, ctx: Context) -> dict[str, np.ndarray]:
        """Returns ``P`` of each feed-forward matrix by its path, float32 [in, in].

        Raises InputError if retain leaves no direction to any of them.
        """

        def moments(trainable: Any, batch: Mapping[str, Pairs], rng: jax.Array) -> dict[str, jax.Array]:
            inputs = _inputs(ctx.reference, batch["retain"])
            return {path: (rows.T * weight) @ rows / jnp.sum(weight) for path, (rows, weight) in inputs.items()}

        means = ctx.gather(ctx.mean(moments, self.batches))
        projections = {path: quiet_projection(moment, self.quiet_energy) for path, moment in means.items()}
        if not any(projection.any() for projection in projections.values()):
            message = f"is {self.quiet_energy}, but every direction of every layer holds more of retain's energy"
            raise InputError(f"{message}; a larger share would leave some", "options.quiet_energy")
        return projections

    def parametrise(self, params: Params, prepared: Mapping[str, Any], rng: jax.Array) -> tuple[Params, Bind]:
        """Returns the factors, ``.../kernel/down`` [in, rank] and ``.../kernel/up`` [rank, out], and what adds their products.

        ``down`` is ``P A``: :meth:`transform` keeps it in the range of ``P``. ``up`` begins at 0, so that a frozen branch
        subtracts nothing. The cosine of a branch of zeros has no gradient: the contrastive loss makes the first step.
        """
        factors = draw_branches(params, prepared, self.rank, rng)
        return _project(prepared, factors), add_branches

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``distillation`` and ``contrastive``."""
        changed, kernels, distances = _flat(model.params), _flat(reference.params), []
        for path, (rows, weight) in _inputs(reference, batch["forget"]).items():
            cosine = _cosine(rows @ kernels[path], rows @ (changed[path] - kernels[path]))
            distances.append(1 - jnp.sum(weight * cosine) / jnp.sum(weight))
        task = contrastive(model, *model.encode_pairs(batch["forget"]))
        return {
            "distillation": self.distillation * jnp.mean(jnp.stack(distances)),
            "contrastive": (1 - self.distillation) * task,
        }

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """Keeps ``down`` in the range of ``P``: projects its gradient, and its update, as Adam scales entry by entry."""
        return optax.chain(_project_down(), base_optimizer(hyper), _project_down())

    def finish(self, params: Params, reference_params: Params, prepared: Any) -> Params:
        """Returns ``W - strength E``; ``params`` are ``W + E``."""
        return jax.tree.map(lambda new, old: old - self.strength * (new - old), params, reference_params)


def _flat(tree: Params) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(tree, sep="/")


def _project_down() -> optax.GradientTransformationExtraArgs:
    def update(updates: Any, state: Any, params: Any = None, *, prepared: Mapping[str, Any], **extra: Any) -> Any:
        del params, extra
        return _project(prepared, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _project(projections: Mapping[str, Any], factors: Any) -> Any:
    """Returns ``factors`` with each ``down`` in the range of the projection of its matrix."""

    def project(path: Any, leaf: jax.Array) -> jax.Array:
        kernel, _, part = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")
        return projections[kernel] @ leaf if part == "down" else leaf

    return jax.tree_util.tree_map_with_path(project, factors)


def _inputs(model: Bound, pairs: Pairs) -> Inputs:
    """Returns the inputs of all feed-forward matrices of both towers, by the paths of these."""
    assert pairs.images is not None
    assert pairs.tokens is not None
    images = image_inputs(model.clip, model.params, pairs.images)
    return {**images, **text_inputs(model.clip, model.params, pairs.tokens)}


def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the cosine of each row of ``a`` with that of ``b``, [N]; 0, with gradient 0, where one of them is 0."""
    product = jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1)
    safe = jnp.where(product > 0, product, 1)
    return jnp.where(product > 0, jnp.sum(a * b, axis=-1) * jax.lax.rsqrt(safe), 0)

"""SLUG: one step along one gradient in one layer, the layer and the step being searched for."""

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
from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.freeze import put, take
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.losses import contrastive, mean_similarity, similarities
from salmu_jax.unlearning.method import Method, Pairs, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream

_TOWERS = ("visual", "text")
_NOT_LAYERS = ("bias", "logit_scale", "positional_embedding", "token_embedding", "class_embedding")
_ROUNDING = 1e-6  # of a recall in float32
_FIRST = 0.1  # the first step moves a layer by this share of its norm


@dataclasses.dataclass(frozen=True)
class SLUG(Method):
    """Changes a single layer by a single step away from forget pairs; layer and step are found by search.

    The published code evaluates its search on test images of the person, ImageNet and other celebrities, and leaves the choice
    among the layers of the front to the reader. Here both are decided on forget and retain pairs: a step has forgotten where
    recall is at chance, and of those the one with the lowest loss on retain is taken. If none has forgotten, the one with the
    lowest recall.
    """

    name: ClassVar[str] = "slug"
    title: ClassVar[str] = "SLUG"
    reference: ClassVar[str] = "Cai, Tan and Asif, Targeted Unlearning with Single Layer Unlearning Gradient, ICML 2025"
    formula: ClassVar[str] = """
        g_F = grad mean_F (1 - <I, T>), g_R = grad L on R, L: the loss of training
        front of each tower: the layers that no other beats in both |g_F| / |theta| (higher) and |cos(g_F, g_R)| (lower)
        theta + s g_F in one layer of a front; s from |theta| / |g_F| / 10, doubled until forget is forgotten, then bisected
        forgotten: at most top / B of the forget images find their caption among the top of the B of their batch
    """
    defaults: ClassVar[Hyper] = Hyper(epochs=0, total_steps=0)
    presets: ClassVar[Mapping[str, Hyper]] = {
        # For the towers of configs/mini.py.
        "mini": dataclasses.replace(defaults, batch_size=128, options={"batches": 10, "trial_batches": 4}),
    }
    streams: ClassVar[Mapping[str, Stream]] = {
        "forget": Forget(prepare_only=True),
        "retain": Retain(prepare_only=True),
    }

    batches: int = option(64, help="batches that the gradients are averaged over", low=1)
    trials: int = option(10, help="steps that are tried in each layer", low=1)
    trial_batches: int = option(8, help="batches that a trial is evaluated on", low=1)
    top: int = option(5, help="how high a forget image's caption may not rank", low=1)

    def prepare(self, ctx: Context) -> dict[str, jax.Array]:
        """Returns what is added to the chosen layer, by its path.

        Raises InputError for a batch of ``top`` pairs or fewer, and if all layers are frozen.
        """

        def loss(trainable: Any, pairs: Pairs, is_forget: bool) -> jax.Array:
            model = ctx.bind(trainable)
            image, text = model.encode_pairs(pairs)
            return 1 - mean_similarity(image, text) if is_forget else contrastive(model, image, text)

        def both(trainable: Any, batch: Mapping[str, Pairs], rng: jax.Array) -> tuple[Any, Any]:
            forget = jax.grad(loss)(trainable, batch["forget"], True)
            return forget, jax.grad(loss)(trainable, batch["retain"], False)

        trials = ctx.stacked(self.trial_batches)
        rows = trials["forget"].tokens.shape[1]
        if rows <= self.top:
            raise InputError(f"is {self.top}; a batch has {rows} forget pairs, and more are needed", "options.top")
        gradients = [_layers(tree) for tree in ctx.mean(both, self.batches)]
        first = first_steps(ctx.gather(ctx.compute(_sizes, *gradients, _layers(ctx.params))))
        if not first:
            raise InputError("leaves no layer to change; matrices and the scales of norms are layers", "freeze")
        forget = {path: gradients[0][path] for path in first}
        found = ctx.gather(ctx.compute(lambda *given: self._search(ctx, *given), forget, first, trials))
        path, step = best(found, self.top / rows)
        return {path: jax.jit(jnp.multiply)(forget[path], np.float32(step))}

    def _search(
        self,
        ctx: Context,
        gradients: Mapping[str, jax.Array],
        first: Mapping[str, jax.Array],
        batches: Mapping[str, Pairs],
    ) -> dict[str, jax.Array]:
        """Returns of each layer, float32 [trials, 3]: the steps that were tried, recall on forget, and the loss on retain."""
        paths, layers = sorted(gradients), _layers(ctx.params)
        chance = self.top / batches["forget"].tokens.shape[1]

        def evaluate(number: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
            steps = jnp.where(jnp.arange(len(paths)) == number, step, 0)
            moved = {path: layers[path] + steps[index] * gradients[path] for index, path in enumerate(paths)}
            model = ctx.bind(put(flax.traverse_util.unflatten_dict(moved, sep="/"), ctx.params))

            def one(batch: dict[str, Pairs]) -> tuple[jax.Array, jax.Array]:
                found = recall(similarities(*model.encode_pairs(batch["forget"])), self.top)
                return found, contrastive(model, *model.encode_pairs(batch["retain"]))

            found, kept = jax.lax.map(one, dict(batches))
            return jnp.mean(found), jnp.mean(kept)

        def search(given: tuple[jax.Array, jax.Array]) -> jax.Array:
            number, first = given

            def trial(bounds: tuple[jax.Array, jax.Array, jax.Array], _: None) -> Any:
                step, low, high = bounds
                found, kept = evaluate(number, step)
                low, high = jnp.where(found <= chance + _ROUNDING, jnp.stack([low, step]), jnp.stack([step, high]))
                following = jnp.where(jnp.isinf(high), 2 * step, (low + high) / 2)
                return (following, low, high), jnp.stack([step, found, kept])

            return jax.lax.scan(trial, (first, jnp.float32(0), jnp.float32(jnp.inf)), length=self.trials)[1]

        results = jax.lax.map(search, (jnp.arange(len(paths)), jnp.stack([first[path] for path in paths])))
        return dict(zip(paths, results, strict=True))

    def finish(self, params: Params, reference_params: Params, prepared: Mapping[str, jax.Array]) -> Params:
        """Returns ``params`` with the step added to its layer."""
        steps = flax.traverse_util.unflatten_dict(prepared, sep="/")
        return put(jax.tree.map(jnp.add, take(params, prepared), steps), params)


def first_steps(sizes: Mapping[str, np.ndarray]) -> dict[str, np.float32]:
    """Returns the first step of each layer on the front of its tower, by its path.

    ``sizes`` are ``|g_F|^2, |g_R|^2, <g_F, g_R>, |theta|^2`` of each layer. One that forget's loss does not depend on, or that
    is 0, is on no front.
    """
    chosen = {}
    for tower in _TOWERS:
        points = {}
        for path, (forget, retain, product, layer) in sizes.items():
            if path.startswith(f"{tower}/") and forget > 0 and layer > 0:
                alignment = abs(product) / np.sqrt(forget * retain) if retain > 0 else 0.0
                points[path] = (alignment, np.sqrt(forget / layer))
        for path, (alignment, importance) in points.items():
            if not any(x < alignment and y > importance for x, y in points.values()):
                chosen[path] = np.float32(_FIRST / importance)
    return chosen


def recall(cosines: jax.Array, top: int) -> jax.Array:
    """Returns the share of rows of ``cosines`` [B, B] whose diagonal entry has fewer than ``top`` larger ones beside it."""
    larger = jnp.sum(cosines > jnp.diagonal(cosines)[:, None], axis=1)
    return jnp.mean(larger < top)


def best(tried: Mapping[str, np.ndarray], chance: float) -> tuple[str, float]:
    """Returns the layer and the step that are taken, given ``(step, recall on forget, loss on retain)`` of all trials."""

    def order(trial: tuple[str, np.ndarray]) -> tuple[bool, float, float]:
        _, (_, found, kept) = trial
        forgotten = found <= chance + _ROUNDING
        return not forgotten, 0.0 if forgotten else found, kept

    path, (step, _, _) = min(((path, row) for path, rows in tried.items() for row in rows), key=order)
    return path, float(step)


def _layers(tree: Any) -> dict[str, jax.Array]:
    """Returns the trainable layers by their paths: not biases, embeddings and scalars, as published."""
    flat = flax.traverse_util.flatten_dict(tree, sep="/")
    return {
        path: leaf
        for path, leaf in flat.items()
        if not isinstance(leaf, optax.MaskedNode) and not path.endswith(_NOT_LAYERS)
    }


def _sizes(forget: Mapping[str, jax.Array], retain: Mapping[str, jax.Array], layers: Mapping[str, jax.Array]) -> Any:
    """Returns of each layer ``|g_F|^2, |g_R|^2, <g_F, g_R>, |theta|^2``, float32 [4]."""
    return {
        path: jnp.stack(
            [jnp.vdot(f, f), jnp.vdot(retain[path], retain[path]), jnp.vdot(f, retain[path]), jnp.vdot(w, w)]
        )
        for (path, f), w in zip(forget.items(), layers.values(), strict=True)
    }

"""The train step of pretraining: loss, gradients, AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from salmu_jax.models.clip import Clip, Params
from salmu_jax.runtime.errors import InputError
from salmu_jax.training.loss import LossConfig, caption_ids, make_loss

MAX_LOGIT_SCALE = math.log(100)


class TrainState(NamedTuple):
    """Everything a run has to save besides its config; the position in the data follows from ``step``."""

    params: Any
    opt_state: Any
    step: jax.Array  # int32 [], steps done


Batch = dict[str, jax.Array]  # images uint8 [B, H, W, 3], tokens int32 [B, T]
Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def init_state(clip: Clip, optimizer: optax.GradientTransformation, rng: jax.Array) -> TrainState:
    """Draws parameters and initialises the optimizer state."""
    params = clip.init(rng)
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def make_train_step(
    clip: Clip,
    optimizer: optax.GradientTransformation,
    *,
    loss: LossConfig = LossConfig(),  # noqa: B008 (frozen)
    microbatch: int = 0,
    mask_duplicates: bool = False,
) -> Step:
    """Returns a pure step of the contrastive loss over the global batch; the caller jits and shards it and donates the state.

    Args:
      clip: the model.
      optimizer: takes the gradients of all parameters.
      loss: the loss and its form.
      microbatch: pairs embedded at a time, over all devices, see :func:`cached_gradients`; 0: the whole batch at once.
      mask_duplicates: pairs with equal captions are not each other's negatives.
    """
    loss_of = make_loss(loss)

    def of_embeddings(image: jax.Array, text: jax.Array, scalars: Params, batch: Batch) -> jax.Array:
        return loss_of(image, text, scalars, caption_ids(batch["tokens"]) if mask_duplicates else None)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        chex.assert_rank([batch["images"], batch["tokens"]], [4, 2])
        chex.assert_equal_shape_prefix([batch["images"], batch["tokens"]], 1)
        if microbatch and microbatch < len(batch["tokens"]):
            value, gradients = cached_gradients(clip, of_embeddings, state.params, batch, microbatch)
        else:

            def direct(params: Params) -> jax.Array:
                return of_embeddings(*_embed(clip, params, batch), _scalars(params), batch)

            value, gradients = jax.value_and_grad(direct)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params["logit_scale"] = jnp.clip(params["logit_scale"], 0, MAX_LOGIT_SCALE)
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradients), "scale": jnp.exp(params["logit_scale"])}
        return TrainState(params, opt_state, state.step + 1), metrics

    return step


def cached_gradients(
    clip: Clip,
    loss: Callable[[jax.Array, jax.Array, Params, Batch], jax.Array],
    params: Params,
    batch: Batch,
    microbatch: int,
) -> tuple[jax.Array, Params]:
    """Returns the loss over the whole batch and its exact gradient, with the activations of one microbatch at a time.

    This is gradient caching (Gao et al. 2021): embed everything without keeping activations; differentiate the loss with
    respect to the embeddings; embed each microbatch again and backpropagate its part of that gradient. One more forward
    pass buys any batch size on any device. ``loss(image, text, scalars, batch)``; ``microbatch`` has to divide the batch.
    """
    rows = len(batch["tokens"])
    count = rows // microbatch
    if count * microbatch != rows:
        raise InputError(f"{microbatch} pairs at a time do not divide a batch of {rows}", "train.microbatch")

    def split(leaf: jax.Array) -> jax.Array:
        # Takes every count-th row, so that no row changes its device: each device has a part of every microbatch.
        return jnp.moveaxis(leaf.reshape(microbatch, count, *leaf.shape[1:]), 1, 0)

    def join(leaf: jax.Array) -> jax.Array:
        return jnp.moveaxis(leaf, 0, 1).reshape(rows, *leaf.shape[2:])

    parts = jax.tree.map(split, {name: batch[name] for name in ("images", "tokens")})
    embeddings = jax.lax.map(lambda part: _embed(clip, params, part), parts)
    value, (d_image, d_text, d_scalars) = jax.value_and_grad(loss, argnums=(0, 1, 2))(
        *jax.tree.map(join, embeddings), _scalars(params), batch
    )

    def pull_back(total: Params, part: tuple[Batch, tuple[jax.Array, jax.Array]]) -> tuple[Params, None]:
        _, pull = jax.vjp(lambda params: _embed(clip, params, part[0]), params)
        return jax.tree.map(jnp.add, total, pull(part[1])[0]), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    gradients, _ = jax.lax.scan(pull_back, zeros, (parts, (split(d_image), split(d_text))))
    return value, {**gradients, **d_scalars}


def _embed(clip: Clip, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
    return clip.encode_image(params, batch["images"]), clip.encode_text(params, batch["tokens"])


def _scalars(params: Params) -> Params:
    """Returns the parameters that the loss needs besides the embeddings."""
    return {name: params[name] for name in ("logit_scale", "logit_bias") if name in params}


def scan_steps(step: Step) -> Step:
    """Returns a function that runs ``step`` over stacked batches [steps, B, ...] in one device call, and stacks the metrics.

    Small models are bound by the overhead of calls: ten steps a call are some 1.4 times faster on two CPU cores.
    """
    return lambda state, batches: jax.lax.scan(step, state, batches)

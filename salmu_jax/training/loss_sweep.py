"""The contrastive losses a block of the logits at a time: chunked, and around a ring of devices.

Each device keeps its own images and meets all captions in turn, at most ``chunk`` at once:

- *chunked*: every device gathers all captions, then takes them chunk by chunk;
- *ring*: captions move from device to device, with what has been summed up for them, until they are back where they started.

One sweep computes what the loss needs of every row and column of the logits (for InfoNCE the log-sum-exp, kept online as a
maximum and a sum). The backward pass sweeps again and recomputes each block, so nothing of size B x B is ever held: that is
what the ``custom_vjp`` is for, since differentiating through the sweep would keep every block.

Inside a mesh (``jax.set_mesh``) the batch axis is the one that ``training/mesh.py`` splits over data and fsdp; without one, or
on one device, the same code runs with a ring of one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from salmu_jax.training.mesh import BATCH_AXES

if TYPE_CHECKING:
    from salmu_jax.training.loss import LossConfig

# In the place of minus infinity: finite, so that a maximum over nothing but masked logits still has an exponential.
_MASKED = -1e30

Tree = Any
Block = Callable[[Tree, Tree], tuple[Tree, Tree]]


class _Rows(NamedTuple):
    """One side's features and who they are; ``position`` is the row in the global batch, -1 for padding."""

    features: jax.Array  # float32 [b, D]
    ids: jax.Array  # [b]
    position: jax.Array  # int32 [b]


def swept_loss(
    image: jax.Array, text: jax.Array, scalars: Mapping[str, jax.Array], ids: jax.Array | None, config: LossConfig
) -> jax.Array:
    """Returns the loss of ``config`` over the global batch, float32; see ``loss.py`` for the formulas and the arguments.

    B has to be a multiple of the devices that the mesh splits it over; ``config.chunk`` need not divide anything.
    """
    if ids is None:  # all different
        ids = jnp.arange(len(image), dtype=jnp.uint32)
    bias = scalars["logit_bias"] if config.kind == "sigmoid" else jnp.zeros((), jnp.float32)
    return _swept(config, image, text, ids, scalars["logit_scale"], bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _swept(config: LossConfig, image: jax.Array, text: jax.Array, ids: jax.Array, scale: jax.Array, bias: jax.Array):
    return _swept_forward(config, image, text, ids, scale, bias)[0]


def _swept_forward(config: LossConfig, image, text, ids, scale, bias):
    loss, rows, columns = _on_each_device(_forward, config, (True, True, True, False, False), (False, True, True))(
        image, text, ids, scale, bias
    )
    return loss, (image, text, ids, scale, bias, rows, columns)


def _swept_backward(config: LossConfig, saved, cotangent):
    d_image, d_text, d_scale, d_bias = _on_each_device(
        _backward, config, (True, True, True, False, False, True, True), (True, True, False, False)
    )(*saved)
    return cotangent * d_image, cotangent * d_text, None, cotangent * d_scale, cotangent * d_bias


_swept.defvjp(_swept_forward, _swept_backward)


def _on_each_device(function: Callable, config: LossConfig, split_in: tuple[bool, ...], split_out: tuple[bool, ...]):
    """``function(config, axes, ...)`` under a ``shard_map`` over the batch axes; called directly where nothing is split."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(axis for axis in BATCH_AXES if axis in mesh.shape and mesh.shape[axis] > 1)
    if not axes:
        return functools.partial(function, config, ())
    spec = {True: P(axes), False: P()}
    return jax.shard_map(
        functools.partial(function, config, axes),
        in_specs=tuple(spec[split] for split in split_in),
        out_specs=tuple(spec[split] for split in split_out),
        check_vma=False,  # nothing is differentiated through it
    )


# On one device -------------------------------------------------------------------------------------------------------


def _forward(config: LossConfig, axes: tuple[str, ...], image, text, ids, scale, bias):
    """The loss, and a statistic for each row and each column of the logits: log-sum-exp for InfoNCE, else zeros."""
    local, moving = _sides(axes, image, text, ids)
    batch = len(image) * _size(axes)

    if config.kind == "sigmoid":

        def block(carry, captions: _Rows):
            logits, own, masked = _logits(local, captions, scale, bias)
            terms = jax.nn.softplus(jnp.where(own, -logits, logits))
            return carry + jnp.sum(jnp.where(masked, 0, terms)), captions

        total, _ = _sweep(config, axes, block, jnp.zeros((), jnp.float32), moving)
        nothing = jnp.zeros(len(image), jnp.float32)
        return _sum(total, axes) / batch, nothing, nothing

    def block(rows, visiting):
        captions, columns = visiting
        logits, _, masked = _logits(local, captions, scale, bias)
        logits = jnp.where(masked, _MASKED, logits)
        return _merge(rows, logits, axis=1), (captions, _merge(columns, logits, axis=0))

    def nothing_yet(size: int):
        return jnp.full(size, _MASKED), jnp.zeros(size)

    rows, (_, columns) = _sweep(config, axes, block, nothing_yet(len(image)), (moving, nothing_yet(len(text))), _join)
    own = jnp.exp(scale) * jnp.sum(image * text, axis=-1)
    rows, columns = (maximum + jnp.log(total) for maximum, total in (rows, columns))
    return _sum(jnp.sum(rows - own) + jnp.sum(columns - own), axes) / (2 * batch), rows, columns


def _backward(config: LossConfig, axes: tuple[str, ...], image, text, ids, scale, bias, rows, columns):
    """The gradient by image, text, logit scale and bias, from the statistics of :func:`_forward`."""
    local, moving = _sides(axes, image, text, ids)
    batch = len(image) * _size(axes)
    temperature = jnp.exp(scale)

    def block(carry, visiting):
        d_image, d_scale, d_bias = carry
        captions, columns, d_text = visiting
        logits, own, masked = _logits(local, captions, scale, bias)
        if config.kind == "sigmoid":
            # d softplus(-z l) / dl = -z sigmoid(-z l), with z = 1 on the diagonal and -1 elsewhere
            d_logits = jnp.where(own, -jax.nn.sigmoid(-logits), jax.nn.sigmoid(logits)) / batch
        else:
            d_logits = (jnp.exp(logits - rows[:, None]) + jnp.exp(logits - columns[None, :]) - 2.0 * own) / (2 * batch)
        d_logits = jnp.where(masked, 0, d_logits)
        d_image += temperature * (d_logits @ captions.features)
        d_text += temperature * (d_logits.T @ local.features)
        carry = (d_image, d_scale + jnp.sum(d_logits * (logits - bias)), d_bias + jnp.sum(d_logits))
        return carry, (captions, columns, d_text)

    zero = jnp.zeros((), jnp.float32)
    carry, (_, _, d_text) = _sweep(
        config, axes, block, (jnp.zeros_like(image), zero, zero), (moving, columns, jnp.zeros_like(text)), _add
    )
    d_image, d_scale, d_bias = carry
    return d_image, d_text, _sum(d_scale, axes), _sum(d_bias, axes)


def _sides(axes: tuple[str, ...], image, text, ids) -> tuple[_Rows, _Rows]:
    first = jax.lax.axis_index(axes) * len(image) if axes else 0
    position = first + jnp.arange(len(image), dtype=jnp.int32)
    return _Rows(image, ids, position), _Rows(text, ids, position)


def _logits(images: _Rows, captions: _Rows, scale, bias) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns a block of the logits [b, c]; which of them are on the diagonal; which do not count."""
    logits = jnp.exp(scale) * (images.features @ captions.features.T) + bias
    own = images.position[:, None] == captions.position[None, :]
    masked = ((images.ids[:, None] == captions.ids[None, :]) & ~own) | (captions.position < 0)[None, :]
    return logits, own, masked


def _merge(state: tuple[jax.Array, jax.Array], logits: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Returns a running (maximum, sum of exponentials below it), with the logits of a further block."""
    maximum, total = state
    highest = jnp.maximum(maximum, jnp.max(logits, axis=axis))
    added = jnp.sum(jnp.exp(logits - jnp.expand_dims(highest, axis)), axis=axis)
    return highest, total * jnp.exp(maximum - highest) + added


# How all captions are met --------------------------------------------------------------------------------------------


def _sweep(
    config: LossConfig, axes: tuple[str, ...], block: Block, local: Tree, moving: Tree, join: Callable | None = None
) -> tuple[Tree, Tree]:
    """``local, moving = block(local, moving)`` with every caption of the global batch; ``moving`` ends where it began.

    In the chunked form every device changes a copy of its own of all that moves: ``join(copy, axes)`` makes this device's
    rows of them. None: nothing is changed.
    """
    if not axes:
        return _chunks(config.chunk, block, local, moving)
    if config.form == "chunked":
        gathered = jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, axes, tiled=True), moving)
        local, changed = _chunks(config.chunk, block, local, gathered)
        return local, changed if join is None else join(changed, axes)

    size = _size(axes)
    following = [(device, (device + 1) % size) for device in range(size)]

    def pass_on(carry, _):
        local, moving = _chunks(config.chunk, block, *carry)
        return (local, jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, axes, following), moving)), None

    return jax.lax.scan(pass_on, (local, moving), length=size)[0]


def _chunks(size: int, block: Block, local: Tree, moving: Tree) -> tuple[Tree, Tree]:
    """``block`` with at most ``size`` rows of ``moving`` at a time; a tail is padded with rows at position -1."""
    rows = len(jax.tree.leaves(moving)[0])
    if rows <= size:
        return block(local, moving)
    count = -(-rows // size)

    def split(leaf: jax.Array) -> jax.Array:
        padding = [(0, count * size - rows)] + [(0, 0)] * (leaf.ndim - 1)
        fill = -1 if leaf.dtype == jnp.int32 else 0  # of all that moves, the positions alone are int32
        return jnp.pad(leaf, padding, constant_values=fill).reshape(count, size, *leaf.shape[1:])

    local, moved = jax.lax.scan(block, local, jax.tree.map(split, moving))
    return local, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:rows], moved)


def _join(changed: tuple[_Rows, tuple[jax.Array, jax.Array]], axes: tuple[str, ...]):
    """Own columns of the (maximum, sum) that every device has of its own rows."""
    captions, (maximum, total) = changed
    highest = jax.lax.pmax(maximum, axes)
    total = jax.lax.psum_scatter(total * jnp.exp(maximum - highest), axes, tiled=True)
    own = jax.lax.dynamic_slice_in_dim(highest, jax.lax.axis_index(axes) * len(total), len(total))
    return captions, (own, total)


def _add(changed: tuple[_Rows, jax.Array, jax.Array], axes: tuple[str, ...]):
    """Own rows of the gradient by the captions, to which every device has added."""
    captions, columns, d_text = changed
    return captions, columns, jax.lax.psum_scatter(d_text, axes, tiled=True)


def _size(axes: tuple[str, ...]) -> int:
    return jax.lax.axis_size(axes) if axes else 1


def _sum(value: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    return jax.lax.psum(value, axes) if axes else value

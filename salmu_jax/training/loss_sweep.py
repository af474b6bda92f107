"""The contrastive losses, a block of the logits at a time: chunked, or around a ring of devices.

Each device keeps its own images and compares them with all captions in turn, at most ``chunk`` at once:

- *chunked*: every device gathers all captions, then takes them chunk by chunk;
- *ring*: captions move from device to device, with the sums accumulated for them, until they are back where they started.

One sweep computes what the loss needs per row and column of the logits (for InfoNCE the log-sum-exp, kept online as a maximum
and a sum). The backward pass sweeps again and recomputes each block, so nothing of size B x B is ever held. This is why there
is a ``custom_vjp``: differentiating through the sweep would keep every block.

Inside a mesh (``jax.set_mesh``) the batch is split over the axes of :data:`~salmu_jax.training.mesh.BATCH_AXES`; without one,
or on one device, the same code runs as a ring of one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from salmu_jax.training.mesh import BATCH_AXES

if TYPE_CHECKING:
    from salmu_jax.training.loss import LossConfig

_MASKED = -1e30  # replaces minus infinity: finite, so that a maximum over masked logits only still has an exponential

Axes = tuple[str, ...]  # the mesh axes that split the batch; empty on one device
Tree = Any
Block = Callable[[Tree, "_Rows", Tree], tuple[Tree, Tree]]


class _Inputs(NamedTuple):
    """The arguments of the loss: of the global batch outside of the ``shard_map``, of a device's b rows inside."""

    image: Any  # float32 [b, D]
    text: Any  # float32 [b, D]
    ids: Any  # integers [b]
    scale: Any  # float32 []
    bias: Any  # float32 []


class _Result(NamedTuple):
    """The loss, and the log-sum-exp of a device's rows and columns of the logits (zeros for the sigmoid loss)."""

    loss: Any  # float32 []
    rows: Any  # float32 [b]
    columns: Any  # float32 [b]


class _Gradients(NamedTuple):
    image: Any
    text: Any
    scale: Any
    bias: Any


class _Rows(NamedTuple):
    """Images or captions."""

    features: jax.Array  # float32 [b, D]
    ids: jax.Array  # [b]
    position: jax.Array  # int32 [b], in the global batch; -1 for padding
    log_sum_exp: jax.Array | None = None  # float32 [b], known in the backward pass


class _LogSumExp(NamedTuple):
    """A running log-sum-exp: the maximum so far, and the sum of exponentials of the differences to it."""

    maximum: jax.Array
    total: jax.Array

    def value(self) -> jax.Array:
        return self.maximum + jnp.log(self.total)


def swept_loss(
    image: jax.Array, text: jax.Array, scalars: Mapping[str, jax.Array], ids: jax.Array | None, config: LossConfig
) -> jax.Array:
    """Returns the loss of ``config`` over the global batch, float32; see ``loss.py`` for the formulas and the arguments.

    B has to be a multiple of the number of devices that share it; ``config.chunk`` need not divide anything.
    """
    chex.assert_rank(image, 2)
    chex.assert_equal_shape([image, text])
    if ids is None:  # all different
        ids = jnp.arange(len(image), dtype=jnp.uint32)
    bias = scalars["logit_bias"] if config.kind == "sigmoid" else jnp.zeros((), jnp.float32)
    return _swept(config, _Inputs(image, text, ids, scalars["logit_scale"], bias))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _swept(config: LossConfig, inputs: _Inputs) -> jax.Array:
    return _swept_forward(config, inputs)[0]


def _swept_forward(config: LossConfig, inputs: _Inputs) -> tuple[jax.Array, tuple[_Inputs, _Result]]:
    axes = _batch_axes()
    forward = _on_each_device(
        functools.partial(_forward, config, axes), axes, (_input_specs(axes),), _result_specs(axes)
    )
    result = forward(inputs)
    return result.loss, (inputs, result)


def _swept_backward(config: LossConfig, residuals: tuple[_Inputs, _Result], cotangent: jax.Array) -> tuple[_Inputs]:
    axes = _batch_axes()
    out_specs = _Gradients(image=P(axes), text=P(axes), scale=P(), bias=P())
    in_specs = (_input_specs(axes), _result_specs(axes))
    gradients = _on_each_device(functools.partial(_backward, config, axes), axes, in_specs, out_specs)(*residuals)
    image, text, scale, bias = (cotangent * gradient for gradient in gradients)
    return (_Inputs(image, text, None, scale, bias),)


_swept.defvjp(_swept_forward, _swept_backward)


def _batch_axes() -> Axes:
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(axis for axis in BATCH_AXES if axis in mesh.shape and mesh.shape[axis] > 1)


def _input_specs(axes: Axes) -> _Inputs:
    return _Inputs(image=P(axes), text=P(axes), ids=P(axes), scale=P(), bias=P())


def _result_specs(axes: Axes) -> _Result:
    return _Result(loss=P(), rows=P(axes), columns=P(axes))


def _on_each_device(function: Callable, axes: Axes, in_specs: Tree, out_specs: Tree) -> Callable:
    """Applies ``function`` to each device's shard; returns it as it is where nothing is split."""
    if not axes:
        return function
    # check_vma is for differentiation, and nothing is differentiated through it.
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


# On one device -------------------------------------------------------------------------------------------------------


def _forward(config: LossConfig, axes: Axes, inputs: _Inputs) -> _Result:
    """Returns the loss over the global batch, and the log-sum-exp of this device's rows and columns."""
    return (_forward_sigmoid if config.kind == "sigmoid" else _forward_infonce)(config, axes, inputs)


def _forward_sigmoid(config: LossConfig, axes: Axes, inputs: _Inputs) -> _Result:
    images, captions = _sides(axes, inputs)
    batch = len(inputs.image) * _size(axes)

    def block(total: jax.Array, captions: _Rows, partial: tuple[()]) -> tuple[jax.Array, tuple[()]]:
        logits, own, masked = _logits(images, captions, inputs)
        terms = jax.nn.softplus(jnp.where(own, -logits, logits))
        return total + jnp.sum(jnp.where(masked, 0, terms)), partial

    total, _ = _sweep(config, axes, block, jnp.zeros((), jnp.float32), captions, ())
    nothing = jnp.zeros(len(inputs.image), jnp.float32)
    return _Result(_sum(total, axes) / batch, nothing, nothing)


def _forward_infonce(config: LossConfig, axes: Axes, inputs: _Inputs) -> _Result:
    images, captions = _sides(axes, inputs)
    batch = len(inputs.image) * _size(axes)

    def block(rows: _LogSumExp, captions: _Rows, columns: _LogSumExp) -> tuple[_LogSumExp, _LogSumExp]:
        logits, _, masked = _logits(images, captions, inputs)
        logits = jnp.where(masked, _MASKED, logits)
        return _include(rows, logits, axis=1), _include(columns, logits, axis=0)

    empty = _LogSumExp(jnp.full(len(inputs.image), _MASKED), jnp.zeros(len(inputs.image)))
    sums = _sweep(config, axes, block, empty, captions, empty, _own_columns)
    own = jnp.exp(inputs.scale) * jnp.sum(inputs.image * inputs.text, axis=-1)
    rows, columns = (log_sum_exp.value() for log_sum_exp in sums)
    loss = _sum(jnp.sum(rows - own) + jnp.sum(columns - own), axes) / (2 * batch)
    return _Result(loss, rows, columns)


def _backward(config: LossConfig, axes: Axes, inputs: _Inputs, result: _Result) -> _Gradients:
    """Returns the gradients of this device's embeddings, and of the scalars, given the result of :func:`_forward`."""
    images, captions = _sides(axes, inputs, result)
    batch = len(inputs.image) * _size(axes)
    temperature = jnp.exp(inputs.scale)

    def block(
        gradients: tuple[jax.Array, jax.Array, jax.Array], captions: _Rows, d_text: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
        d_image, d_scale, d_bias = gradients
        logits, own, masked = _logits(images, captions, inputs)
        if config.kind == "sigmoid":
            # d softplus(-z l) / dl = -z sigmoid(-z l), with z = 1 on the diagonal and -1 elsewhere
            d_logits = jnp.where(own, -jax.nn.sigmoid(-logits), jax.nn.sigmoid(logits)) / batch
        else:
            of_rows = jnp.exp(logits - images.log_sum_exp[:, None])
            of_columns = jnp.exp(logits - captions.log_sum_exp[None, :])
            d_logits = (of_rows + of_columns - 2.0 * own) / (2 * batch)
        d_logits = jnp.where(masked, 0, d_logits)
        d_image += temperature * (d_logits @ captions.features)
        d_text += temperature * (d_logits.T @ images.features)
        return (d_image, d_scale + jnp.sum(d_logits * (logits - inputs.bias)), d_bias + jnp.sum(d_logits)), d_text

    zero = jnp.zeros((), jnp.float32)
    start = (jnp.zeros_like(inputs.image), zero, zero)
    (d_image, d_scale, d_bias), d_text = _sweep(
        config, axes, block, start, captions, jnp.zeros_like(inputs.text), _own_rows
    )
    return _Gradients(d_image, d_text, _sum(d_scale, axes), _sum(d_bias, axes))


def _sides(axes: Axes, inputs: _Inputs, result: _Result | None = None) -> tuple[_Rows, _Rows]:
    """Returns this device's images and captions."""
    rows = len(inputs.image)
    first = jax.lax.axis_index(axes) * rows if axes else 0
    position = first + jnp.arange(rows, dtype=jnp.int32)
    images = _Rows(inputs.image, inputs.ids, position, result.rows if result else None)
    captions = _Rows(inputs.text, inputs.ids, position, result.columns if result else None)
    return images, captions


def _logits(images: _Rows, captions: _Rows, inputs: _Inputs) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns a block of the logits [b, c]; which of them are on the diagonal; which are masked."""
    logits = jnp.exp(inputs.scale) * (images.features @ captions.features.T) + inputs.bias
    own = images.position[:, None] == captions.position[None, :]
    masked = ((images.ids[:, None] == captions.ids[None, :]) & ~own) | (captions.position < 0)[None, :]
    return logits, own, masked


def _include(so_far: _LogSumExp, logits: jax.Array, axis: int) -> _LogSumExp:
    """Includes another block of logits in a running log-sum-exp."""
    highest = jnp.maximum(so_far.maximum, jnp.max(logits, axis=axis))
    added = jnp.sum(jnp.exp(logits - jnp.expand_dims(highest, axis)), axis=axis)
    return _LogSumExp(highest, so_far.total * jnp.exp(so_far.maximum - highest) + added)


# The sweep over all captions -----------------------------------------------------------------------------------------


def _sweep(
    config: LossConfig,
    axes: Axes,
    block: Block,
    local: Tree,
    captions: _Rows,
    partial: Tree,
    reduce: Callable[[Tree, Axes], Tree] = lambda partial, axes: partial,
) -> tuple[Tree, Tree]:
    """Applies ``local, partial = block(local, captions, partial)`` to every caption of the global batch.

    Args:
      block: takes at most ``config.chunk`` captions.
      local: accumulates over captions; belongs to this device's images.
      captions: this device's.
      partial: accumulates over images, [b, ...] for b captions; that of this device's captions.
      reduce: ``reduce(copies, axes)`` combines the copies of ``partial`` over all captions, one per device, into the part of
        this device's captions. The chunked form needs it: there each device accumulates over its own images only.

    Returns ``local`` and ``partial``, complete.
    """
    if not axes:
        return _chunks(config.chunk, block, local, captions, partial)
    if config.form == "chunked":
        gathered = jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, axes, tiled=True), (captions, partial))
        local, copies = _chunks(config.chunk, block, local, *gathered)
        return local, reduce(copies, axes)

    size = _size(axes)
    following = [(device, (device + 1) % size) for device in range(size)]

    def pass_on(carry: tuple[Tree, _Rows, Tree], _: None) -> tuple[tuple[Tree, _Rows, Tree], None]:
        local, captions, partial = carry
        local, partial = _chunks(config.chunk, block, local, captions, partial)
        moved = jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, axes, following), (captions, partial))
        return (local, *moved), None

    (local, _, partial), _ = jax.lax.scan(pass_on, (local, captions, partial), length=size)
    return local, partial


def _chunks(size: int, block: Block, local: Tree, captions: _Rows, partial: Tree) -> tuple[Tree, Tree]:
    """Applies ``block`` to at most ``size`` captions at a time; a tail is padded with captions at position -1."""
    rows = len(captions.features)
    if rows <= size:
        return block(local, captions, partial)
    count = -(-rows // size)

    def split(leaf: jax.Array, fill: int = 0) -> jax.Array:
        padding = [(0, count * size - rows)] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, padding, constant_values=fill).reshape(count, size, *leaf.shape[1:])

    fill = jax.tree.map(lambda leaf: 0, captions)._replace(position=-1)
    blocks = jax.tree.map(split, captions, fill), jax.tree.map(split, partial)
    local, partial = jax.lax.scan(lambda local, stacked: block(local, *stacked), local, blocks)
    return local, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:rows], partial)


def _own_columns(copies: _LogSumExp, axes: Axes) -> _LogSumExp:
    """Combines every device's log-sum-exp of all columns, over its own rows, into that of this device's columns."""
    highest = jax.lax.pmax(copies.maximum, axes)
    total = jax.lax.psum_scatter(copies.total * jnp.exp(copies.maximum - highest), axes, tiled=True)
    own = jax.lax.dynamic_slice_in_dim(highest, jax.lax.axis_index(axes) * len(total), len(total))
    return _LogSumExp(own, total)


def _own_rows(copies: jax.Array, axes: Axes) -> jax.Array:
    """Sums every device's contribution to the gradient of all captions, and returns this device's rows."""
    return jax.lax.psum_scatter(copies, axes, tiled=True)


def _size(axes: Axes) -> int:
    return jax.lax.axis_size(axes) if axes else 1


def _sum(value: jax.Array, axes: Axes) -> jax.Array:
    return jax.lax.psum(value, axes) if axes else value

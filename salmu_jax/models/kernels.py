"""Layer normalisation and GELUs of half-precision rows as Triton kernels for NVIDIA GPUs, each one pass over memory.

They compute what ``models/layers.py`` does. XLA's own fusions read the inputs again for sums over rows and reach half of a
GPU's bandwidth; these kernels make a train step of ViT-B/16 in bfloat16 a few per cent faster (``benchmarks/README.md``).

With several devices, rows are sharded by batch and MLP activations by ``tensor``. XLA cannot partition a custom kernel, so it
is shard_mapped (:func:`_on_each_device`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import PartitionSpec as P

from salmu_jax.models import layers
from salmu_jax.models.devices import nvidia_generation

KERNELS = ("auto", "plain", "triton")
ROWS = 64  # of a program that returns sums over its rows; a device's rows have to be a multiple of it
_PIECE = 256  # columns that a warp reads at once, 16 bytes a thread; Triton needs a power of 2

_ROW_AXES, _HIDDEN_AXES, _VECTOR_AXES = ("batch", None), ("batch", "mlp"), (None,)


def choose(implementation: str, dtype: jnp.dtype) -> str:
    """Resolves ``auto``: ``triton`` on GPUs in half precision, else ``plain``."""
    if implementation != "auto":
        return implementation
    return "triton" if dtype in (jnp.bfloat16, jnp.float16) and nvidia_generation() >= 8 else "plain"


@jax.custom_vjp
def layer_norm_branch(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns ``(x, layer_norm(x, scale, bias))`` for rows [N, width]; the backward pass adds both cotangents in one pass."""
    return x, _on_each_device(_norm_forward, (_ROW_AXES, _VECTOR_AXES, _VECTOR_AXES), _ROW_AXES)(x, scale, bias)


def _branch_backward(residuals: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    backward = _on_each_device(
        _norm_backward, (_ROW_AXES, _VECTOR_AXES, _ROW_AXES, _ROW_AXES), (_ROW_AXES, ("batch", None, None))
    )
    d_x, sums = backward(*residuals, *cotangents)
    d_scale, d_bias = jnp.sum(sums, axis=0)
    return d_x, d_scale, d_bias


layer_norm_branch.defvjp(lambda x, scale, bias: (layer_norm_branch(x, scale, bias), (x, scale)), _branch_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def biased_gelu(x: jax.Array, bias: jax.Array, quick: bool) -> jax.Array:
    """Computes ``gelu(x + bias)``, or the quick GELU, for activations [N, hidden]; ``bias`` float32 [hidden]."""
    forward = functools.partial(_gelu_forward, quick=quick)
    return _on_each_device(forward, (_HIDDEN_AXES, ("mlp",)), _HIDDEN_AXES)(x, bias)


def _biased_gelu_backward(quick: bool, residuals: tuple[jax.Array, ...], cotangent: jax.Array) -> tuple[jax.Array, ...]:
    backward = functools.partial(_gelu_backward, quick=quick)
    axes = (_HIDDEN_AXES, ("mlp",), _HIDDEN_AXES)
    d_x, sums = _on_each_device(backward, axes, (_HIDDEN_AXES, _HIDDEN_AXES))(*residuals, cotangent)
    return d_x, jnp.sum(sums, axis=0)


biased_gelu.defvjp(lambda x, bias, quick: (biased_gelu(x, bias, quick), (x, bias)), _biased_gelu_backward)


# What a device computes for its own rows. Rows that do not divide into programs are computed by layers.py.


def _norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    rows, width = x.shape
    if not _fits(rows, width):
        return layers.layer_norm(x, scale, bias)
    at_once, pieces = 2, _pieces(width)

    def kernel(x_ref, scale_ref, bias_ref, y_ref):
        parts = [x_ref[:, piece].astype(jnp.float32) for piece in pieces]
        mean, inverse = _mean_and_inverse(parts, width)
        for piece, part in zip(pieces, parts, strict=True):
            y = (part - mean) * inverse * scale_ref[piece] + bias_ref[piece]
            y_ref[:, piece] = y.astype(y_ref.dtype)

    row, vector = pl.BlockSpec((at_once, width), lambda i: (i, 0)), pl.BlockSpec((width,), lambda i: (0,))
    return _call(kernel, (rows // at_once,), [row, vector, vector], row, x, warps=1)(x, scale, bias)


def _norm_backward(
    x: jax.Array, scale: jax.Array, skipped: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradient of ``x``, and partial sums [programs, 2, width] of the gradients of scale and bias."""
    rows, width = x.shape
    if not _fits(rows, width):
        _, pull = jax.vjp(layers.layer_norm, x, scale, scale)
        d_x, d_scale, d_bias = pull(cotangent)
        return skipped + d_x, jnp.stack([d_scale, d_bias])[None]
    at_once, pieces = 4, _pieces(width)

    def kernel(x_ref, scale_ref, skipped_ref, cotangent_ref, d_x_ref, sums_ref):
        def load(index):
            refs = (x_ref, skipped_ref, cotangent_ref)
            return [[ref[pl.ds(index * at_once, at_once), piece] for piece in pieces] for ref in refs]

        def some(index, carry):
            d_scale, d_bias, (parts, skipped, gradients) = carry
            # Prefetch the next rows while computing on these: a fifth less time.
            following = load(jnp.minimum(index + 1, ROWS // at_once - 1))
            parts, gradients = ([part.astype(jnp.float32) for part in array] for array in (parts, gradients))
            mean, inverse = _mean_and_inverse(parts, width)
            parts = [(part - mean) * inverse for part in parts]
            scaled = [gradient * scale_ref[piece] for gradient, piece in zip(gradients, pieces, strict=True)]
            level, along = _mean(scaled, width), _mean([a * b for a, b in zip(scaled, parts, strict=True)], width)
            for piece, part, gradient, skip in zip(pieces, parts, scaled, skipped, strict=True):
                d_x = inverse * (gradient - level - part * along) + skip.astype(jnp.float32)
                d_x_ref[pl.ds(index * at_once, at_once), piece] = d_x.astype(d_x_ref.dtype)
            d_scale = [total + gradient * part for total, gradient, part in zip(d_scale, gradients, parts, strict=True)]
            return d_scale, [total + gradient for total, gradient in zip(d_bias, gradients, strict=True)], following

        zeros = [jnp.zeros((at_once, piece.size), jnp.float32) for piece in pieces]
        *sums, _ = jax.lax.fori_loop(0, ROWS // at_once, some, (zeros, zeros, load(0)))
        for kind, totals in enumerate(sums):
            for piece, total in zip(pieces, totals, strict=True):
                sums_ref[0, kind, piece] = jnp.sum(total, axis=0)

    row, vector = pl.BlockSpec((ROWS, width), lambda i: (i, 0)), pl.BlockSpec((width,), lambda i: (0,))
    sums = pl.BlockSpec((1, 2, width), lambda i: (i, 0, 0)), jax.ShapeDtypeStruct((rows // ROWS, 2, width), jnp.float32)
    call = _call(kernel, (rows // ROWS,), [row, vector, row, row], row, x, sums, warps=4)
    return call(x, scale, skipped, cotangent)


def _gelu_forward(x: jax.Array, bias: jax.Array, quick: bool) -> jax.Array:
    rows, hidden = x.shape
    if not _fits(rows, hidden):
        return (layers.quick_gelu if quick else layers.gelu)((x + bias).astype(x.dtype))
    at_once, columns = 8, math.gcd(hidden, 512)

    def kernel(x_ref, bias_ref, y_ref):
        wide = x_ref[...].astype(jnp.float32) + bias_ref[...]
        y_ref[...] = (wide * _cumulative(wide, quick)[0]).astype(y_ref.dtype)

    tile = pl.BlockSpec((at_once, columns), lambda i, j: (i, j))
    vector = pl.BlockSpec((columns,), lambda i, j: (j,))
    return _call(kernel, (rows // at_once, hidden // columns), [tile, vector], tile, x, warps=4)(x, bias)


def _gelu_backward(x: jax.Array, bias: jax.Array, cotangent: jax.Array, quick: bool) -> tuple[jax.Array, jax.Array]:
    """Returns the gradient of ``x``, and partial sums [programs, hidden] of the bias's gradient."""
    rows, hidden = x.shape
    if not _fits(rows, hidden):
        function = layers.quick_gelu if quick else layers.gelu
        _, pull = jax.vjp(function, (x + bias).astype(x.dtype))
        (d_x,) = pull(cotangent)
        return d_x, jnp.sum(d_x.astype(jnp.float32), axis=0)[None]
    columns = math.gcd(hidden, 128)

    def kernel(x_ref, bias_ref, cotangent_ref, d_x_ref, sums_ref):
        wide = x_ref[...].astype(jnp.float32) + bias_ref[...]
        cumulative, density = _cumulative(wide, quick)
        d_x = cotangent_ref[...].astype(jnp.float32) * (cumulative + wide * density)
        d_x_ref[...] = d_x.astype(d_x_ref.dtype)
        sums_ref[0, :] = jnp.sum(d_x, axis=0)

    tile, vector = pl.BlockSpec((ROWS, columns), lambda i, j: (i, j)), pl.BlockSpec((columns,), lambda i, j: (j,))
    sums = pl.BlockSpec((1, columns), lambda i, j: (i, j)), jax.ShapeDtypeStruct((rows // ROWS, hidden), jnp.float32)
    call = _call(kernel, (rows // ROWS, hidden // columns), [tile, vector, tile], tile, x, sums, warps=8)
    return call(x, bias, cotangent)


# Parts of a kernel.


def _mean(parts: list[jax.Array], width: int) -> jax.Array:
    return sum(jnp.sum(part, axis=1, keepdims=True) for part in parts) / width


def _mean_and_inverse(parts: list[jax.Array], width: int) -> tuple[jax.Array, jax.Array]:
    mean = _mean(parts, width)
    return mean, jax.lax.rsqrt(_mean([jnp.square(part - mean) for part in parts], width) + layers.LAYER_NORM_EPSILON)


def _cumulative(x: jax.Array, quick: bool) -> tuple[jax.Array, jax.Array]:
    """Returns the normal CDF and density at ``x``; if ``quick``, the logistic function of ``1.702 x`` and its derivative.

    Computed as a power of 2 and the square of an inverse square root, which are GPU instructions. An exponential and a
    division would be a dozen instructions each, and the instruction count bounds these kernels.
    """
    if quick:
        logit, gradient = layers.QUICK_GELU_FACTOR, layers.QUICK_GELU_FACTOR
    else:
        logit, gradient = layers.logit_of_normal(x)
    root = jax.lax.rsqrt(1 + jnp.exp2(x * (logit * -math.log2(math.e))))
    cumulative = root * root
    return cumulative, (cumulative - cumulative * cumulative) * gradient


def _fits(rows: int, columns: int) -> bool:
    return rows % ROWS == 0 and columns % 64 == 0


def _pieces(width: int) -> list[pl.Slice]:
    piece = math.gcd(width, _PIECE)
    return [pl.ds(begin, piece) for begin in range(0, width, piece)]


def _call(
    kernel: Callable, grid: tuple[int, ...], ins: list, out, like: jax.Array, sums=None, *, warps: int
) -> Callable:
    """Returns the call of ``kernel``: its results are like ``like``, and ``sums``. On CPUs (in tests) it is interpreted."""
    shape = jax.ShapeDtypeStruct(like.shape, like.dtype)
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=ins,
        out_specs=out if sums is None else (out, sums[0]),
        out_shape=shape if sums is None else (shape, sums[1]),
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=jax.default_backend() == "cpu",
    )


def _on_each_device(function: Callable, ins: tuple, outs: tuple) -> Callable:
    """Applies ``function`` to each device's shard; ``ins`` and ``outs`` are the logical axes of arguments and results."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function
    is_axes = lambda axes: all(axis is None or isinstance(axis, str) for axis in axes)  # noqa: E731
    specs = [
        jax.tree.map(lambda axes: P(*nn.logical_to_mesh_axes(axes)), tree, is_leaf=is_axes) for tree in (ins, outs)
    ]
    return jax.shard_map(function, in_specs=specs[0], out_specs=specs[1], check_vma=False)

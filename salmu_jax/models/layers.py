"""Layer normalisation and the GELUs, with backward passes that keep their input alone.

What automatic differentiation keeps of them (several arrays of the input's size, some float32 where the input is bfloat16)
costs more time to write and read, and memory, than computing it again: a train step of ViT-B/16 is bound by that on a GPU.
All is computed in float32 and rounded once, to the input's dtype.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

LAYER_NORM_EPSILON = 1e-5
QUICK_GELU_FACTOR = 1.702


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """``(x - mean) / sqrt(variance + 1e-5) * scale + bias`` over the last axis; ``scale`` and ``bias`` float32 [width]."""
    return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    wide = x.astype(jnp.float32)
    if x.dtype == jnp.float32:
        mean = jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    else:
        # Both in one pass over memory. No number of a row is farther than sqrt(width - 1) deviations from the row's mean, the
        # first neither: what cancels below is a width of float32's roundings at the worst, far below the input's own, and
        # never leaves a variance below 0.
        first = wide[..., :1]
        offset, square = (jnp.mean(power, axis=-1, keepdims=True) for power in (wide - first, jnp.square(wide - first)))
        mean, variance = first + offset, square - jnp.square(offset)
    inverse = jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    return ((wide - mean) * inverse * scale + bias).astype(x.dtype), (x, mean, inverse, scale)


def _layer_norm_backward(kept: tuple[jax.Array, ...], cotangent: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = kept
    gradient, normalised = cotangent.astype(jnp.float32) * scale, (x.astype(jnp.float32) - mean) * inverse
    along = jnp.mean(gradient * normalised, axis=-1, keepdims=True)
    d_x = inverse * (gradient - jnp.mean(gradient, axis=-1, keepdims=True) - normalised * along)

    # The sums over rows read their input again: XLA would write the result out in float32 for them, at twice the cost.
    x_again, cotangent = jax.lax.optimization_barrier((x, cotangent))
    wide, normalised = cotangent.astype(jnp.float32), (x_again.astype(jnp.float32) - mean) * inverse
    rows = tuple(range(x.ndim - 1))
    return d_x.astype(x.dtype), jnp.sum(wide * normalised, axis=rows), jnp.sum(wide, axis=rows)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """``x * Phi(x)``, Phi the normal distribution's cumulative function: the exact (erf) GELU, as PyTorch's default."""
    wide = x.astype(jnp.float32)
    cumulative = 0.5 * (1 + jax.lax.erf(wide * math.sqrt(0.5))) if x.dtype == jnp.float32 else _logistic_normal(wide)[0]
    return (wide * cumulative).astype(x.dtype)


def _gelu_backward(x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    if x.dtype == jnp.float32:
        wide, cumulative = x, 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))
        density = jnp.exp(-0.5 * jnp.square(x)) * (1 / math.sqrt(2 * math.pi))
    else:
        # Without the barrier XLA finds both passes to compute the same, and keeps the results: 27 GiB for 18, and no faster.
        wide = jax.lax.optimization_barrier(x).astype(jnp.float32)
        cumulative, density = _logistic_normal(wide)
    return ((cotangent.astype(jnp.float32) * (cumulative + wide * density)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)

# log(Phi(x) / Phi(-x)) / x as a polynomial of min(x^2, 5.5^2), fitted so that x Phi(x) is right to 5e-6 and its derivative
# to 2e-5.
_LOGIT_OF_NORMAL = (1.595667259, 7.290594397e-2, -2.310366364e-4, -6.470326898e-5, 2.437814124e-6)


def _logistic_normal(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The normal distribution's cumulative function and density at float32 ``x``, for results in half precision.

    They share one exponential; erf and the exponential of the density took half as long again as reading and writing did.
    """
    logit, gradient = logit_of_normal(x)
    cumulative = jax.nn.sigmoid(x * logit)
    return cumulative, cumulative * (1 - cumulative) * gradient


def logit_of_normal(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The normal distribution's ``log(Phi(x) / Phi(-x)) / x``, and the derivative of that times ``x``: of float32, nearly."""
    squared = jnp.minimum(jnp.square(x), 5.5**2)
    logit, gradient = _LOGIT_OF_NORMAL[-1], (2 * len(_LOGIT_OF_NORMAL) - 1) * _LOGIT_OF_NORMAL[-1]
    for power in reversed(range(len(_LOGIT_OF_NORMAL) - 1)):
        coefficient = _LOGIT_OF_NORMAL[power]
        logit, gradient = logit * squared + coefficient, gradient * squared + (2 * power + 1) * coefficient
    return logit, gradient


@jax.custom_vjp
def quick_gelu(x: jax.Array) -> jax.Array:
    """``x * sigmoid(1.702 x)``, as the first CLIP models have it."""
    wide = x.astype(jnp.float32)
    return (wide * jax.nn.sigmoid(QUICK_GELU_FACTOR * wide)).astype(x.dtype)


def _quick_gelu_backward(x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    wide = x.astype(jnp.float32)
    gate = jax.nn.sigmoid(QUICK_GELU_FACTOR * wide)
    gradient = gate * (1 + QUICK_GELU_FACTOR * wide * (1 - gate))
    return ((cotangent.astype(jnp.float32) * gradient).astype(x.dtype),)


quick_gelu.defvjp(lambda x: (quick_gelu(x), x), _quick_gelu_backward)

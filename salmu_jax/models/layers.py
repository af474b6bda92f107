"""Layer normalisation and GELUs whose backward passes keep their input only.

Automatic differentiation would keep several arrays of the input's size, some in float32 where the input is bfloat16. Writing
and reading these costs more memory and time than recomputing them: on a GPU, a train step of ViT-B/16 is bound by memory
bandwidth. Everything is computed in float32 and rounded once, to the input's dtype.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

LAYER_NORM_EPSILON = 1e-5
QUICK_GELU_FACTOR = 1.702


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Computes ``(x - mean) / sqrt(variance + 1e-5) * scale + bias`` over the last axis; scale, bias float32 [width]."""
    return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    wide = x.astype(jnp.float32)
    if x.dtype == jnp.float32:
        mean = jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    else:
        # One-pass variance, shifted by x[0]. At worst (x[0] is the outlier) this loses a factor of `width` in precision, which
        # in float32 is still far below a half-precision input's own rounding, and the variance cannot become negative.
        first = wide[..., :1]
        offset, square = (jnp.mean(power, axis=-1, keepdims=True) for power in (wide - first, jnp.square(wide - first)))
        mean, variance = first + offset, square - jnp.square(offset)
    inverse = jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    return ((wide - mean) * inverse * scale + bias).astype(x.dtype), (x, mean, inverse, scale)


def _layer_norm_backward(
    residuals: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = residuals
    gradient, normalised = cotangent.astype(jnp.float32) * scale, (x.astype(jnp.float32) - mean) * inverse
    along = jnp.mean(gradient * normalised, axis=-1, keepdims=True)
    d_x = inverse * (gradient - jnp.mean(gradient, axis=-1, keepdims=True) - normalised * along)

    # Recompute the inputs of the sums over rows: XLA would otherwise store them in float32, which costs twice as much.
    x_again, cotangent = jax.lax.optimization_barrier((x, cotangent))
    wide, normalised = cotangent.astype(jnp.float32), (x_again.astype(jnp.float32) - mean) * inverse
    rows = tuple(range(x.ndim - 1))
    return d_x.astype(x.dtype), jnp.sum(wide * normalised, axis=rows), jnp.sum(wide, axis=rows)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """Computes ``x * Phi(x)``, the exact (erf) GELU, PyTorch's default; Phi is the normal distribution's CDF."""
    wide = x.astype(jnp.float32)
    cumulative = 0.5 * (1 + jax.lax.erf(wide * math.sqrt(0.5))) if x.dtype == jnp.float32 else _logistic_normal(wide)[0]
    return (wide * cumulative).astype(x.dtype)


def _gelu_backward(x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    if x.dtype == jnp.float32:
        wide, cumulative = x, 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))
        density = jnp.exp(-0.5 * jnp.square(x)) * (1 / math.sqrt(2 * math.pi))
    else:
        # The barrier stops XLA from CSE-ing forward and backward, which would keep activations alive (27 GiB instead of 18).
        wide = jax.lax.optimization_barrier(x).astype(jnp.float32)
        cumulative, density = _logistic_normal(wide)
    return ((cotangent.astype(jnp.float32) * (cumulative + wide * density)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)

# log(Phi(x) / Phi(-x)) / x as a polynomial in min(x^2, 5.5^2), fitted so that x Phi(x) has an error below 5e-6 and its
# derivative one below 2e-5.
_LOGIT_OF_NORMAL = (1.595667259, 7.290594397e-2, -2.310366364e-4, -6.470326898e-5, 2.437814124e-6)


def _logistic_normal(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the normal distribution's CDF and density at float32 ``x``, precise enough for results in half precision.

    They share one exponential. With erf and the density's own exponential, a GELU took half as long again as its memory
    traffic.
    """
    logit, gradient = logit_of_normal(x)
    cumulative = jax.nn.sigmoid(x * logit)
    return cumulative, cumulative * (1 - cumulative) * gradient


def logit_of_normal(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Approximates ``l(x) = log(Phi(x) / Phi(-x)) / x`` and the derivative of ``x l(x)``, for float32 ``x``."""
    squared = jnp.minimum(jnp.square(x), 5.5**2)
    logit, gradient = _LOGIT_OF_NORMAL[-1], (2 * len(_LOGIT_OF_NORMAL) - 1) * _LOGIT_OF_NORMAL[-1]
    for power in reversed(range(len(_LOGIT_OF_NORMAL) - 1)):
        coefficient = _LOGIT_OF_NORMAL[power]
        logit, gradient = logit * squared + coefficient, gradient * squared + (2 * power + 1) * coefficient
    return logit, gradient


@jax.custom_vjp
def quick_gelu(x: jax.Array) -> jax.Array:
    """Computes ``x * sigmoid(1.702 x)``, the GELU of OpenAI's CLIP models."""
    wide = x.astype(jnp.float32)
    return (wide * jax.nn.sigmoid(QUICK_GELU_FACTOR * wide)).astype(x.dtype)


def _quick_gelu_backward(x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    wide = x.astype(jnp.float32)
    gate = jax.nn.sigmoid(QUICK_GELU_FACTOR * wide)
    gradient = gate * (1 + QUICK_GELU_FACTOR * wide * (1 - gate))
    return ((cotangent.astype(jnp.float32) * gradient).astype(x.dtype),)


quick_gelu.defvjp(lambda x: (quick_gelu(x), x), _quick_gelu_backward)

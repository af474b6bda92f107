"""Scaled dot-product attention: its implementations, and which one runs where.

- ``plain``: a few lines of JAX that compile for every device and hold the weights, [B, heads, L, L];
- ``cudnn``: the fused kernel of NVIDIA's cuDNN, which never holds them;
- ``cpu``: the layout [B, heads, L, d], for which XLA's CPU matmuls are faster: for ViT-B/16 three times forward, 1.4 times
  with the backward pass;
- ``auto``: the fastest on the devices at hand, see :func:`choose`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from salmu_jax.models.devices import nvidia_generation

ATTENTIONS = ("auto", "plain", "cpu", "cudnn")


def choose(implementation: str, dtype: jnp.dtype, head_size: int) -> str:
    """Returns ``implementation``, or for ``auto`` the fastest one for heads of ``head_size`` features.

    That is ``cudnn`` on GPUs in half precision, for heads of up to 128; ``cpu`` on CPUs in float32; else ``plain``.
    """
    if implementation != "auto":
        return implementation
    if dtype == jnp.float32:
        return "cpu" if jax.default_backend() == "cpu" else "plain"
    fits = dtype in (jnp.bfloat16, jnp.float16) and head_size % 8 == 0 and head_size <= 128
    return "cudnn" if fits and nvidia_generation() >= 8 else "plain"


def padded_length(length: int, implementation: str) -> int:
    """Returns ``length``, rounded up for cuDNN to an even number: JAX has no gradient of its kernel for odd lengths."""
    return length + length % 2 if implementation == "cudnn" else length


def project_qkv(dense: Callable[..., jax.Array], x: jax.Array, implementation: str) -> Sequence[jax.Array]:
    """Applies the fused projection ``dense`` to rows [N, width] and returns queries, keys and values, each [N, width]."""
    if implementation == "cpu":  # one large matmul is faster, and slicing its result is free
        return jnp.split(dense(x), 3, axis=-1)
    # cuDNN takes no slices of an array; and under tensor parallelism no device holds whole heads of a fused matmul's result.
    width = x.shape[-1]
    return [dense(x, slice(part * width, (part + 1) * width)) for part in range(3)]


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, heads: int, causal: bool, implementation: str = "plain", length: int = 0
) -> jax.Array:
    """Computes ``softmax(q k^T / sqrt(d)) v`` per head; the softmax in float32, the rest in ``q``'s dtype.

    Args:
      q, k, v: [B, L, width], queries, keys and values of all heads.
      causal: a position attends to itself and those before it only.
      implementation: ``plain``, ``cpu``, or ``cudnn``, which raises where there is no such kernel.
      length: positions from this one on are padding, to which no position attends; 0: there is none.

    Returns [B, L, width].
    """
    chex.assert_rank(q, 3)
    chex.assert_equal_shape([q, k, v])
    batch, padded, width = q.shape
    split = (batch, padded, heads, width // heads)
    q, k, v = (nn.with_logical_constraint(part.reshape(split), ("batch", None, "heads", None)) for part in (q, k, v))
    length = 0 if causal or length == padded else length  # a causal mask hides what follows anyway
    result = {"plain": _plain, "cpu": _cpu, "cudnn": _cudnn}[implementation](q, k, v, causal, length)
    return result.reshape(batch, padded, width)


def attention_of_one(
    q: jax.Array,
    rows: jax.Array,
    to_keys: jax.Array,
    to_values: jax.Array,
    value_bias: jax.Array,
    heads: int,
    seen: jax.Array | int,
) -> jax.Array:
    """Computes :func:`attention` of one query per row, without computing keys and values.

    With keys ``K y``, a head's scores ``q . (K y)`` are ``(K^T q) . y``, and the weighted sum of its values is
    ``V (sum w y) + bias``: two matmuls with one vector per head in place of two with every position. (The key bias adds the
    same to all scores of a query, so softmax ignores it.) Only this is needed of a tower's last block.

    Args:
      q: [B, width].
      rows: [B, L, width], the inputs of the key and value projections.
      to_keys, to_values: [width, width], their kernels; value_bias: [width].
      heads: how many share the width.
      seen: the query attends to the positions before this one; the same for all rows, or one each (int [B]).

    Returns [B, width], in ``q``'s dtype, in which everything but sums and the softmax is computed.
    """
    batch, positions, width = rows.shape
    each = (heads, width // heads)
    to_keys, to_values = (matrix.astype(q.dtype).reshape(width, *each) for matrix in (to_keys, to_values))
    q = nn.with_logical_constraint(q.reshape(batch, *each), ("batch", "heads", None))
    query = nn.with_logical_constraint(jnp.einsum("bhd,whd->bhw", q, to_keys), ("batch", "heads", None))
    scores = jnp.einsum("bhw,blw->bhl", query, rows, preferred_element_type=jnp.float32) * (each[1] ** -0.5)
    hidden = np.arange(positions) >= (seen if isinstance(seen, int) else seen[:, None, None])
    weights = jax.nn.softmax(jnp.where(hidden, -jnp.inf, scores), axis=-1).astype(rows.dtype)
    mean = nn.with_logical_constraint(jnp.einsum("bhl,blw->bhw", weights, rows), ("batch", "heads", None))
    values = jnp.einsum("bhw,whd->bhd", mean, to_values)
    return values.reshape(batch, width) + value_bias.astype(q.dtype)


def _plain(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool, length: int) -> jax.Array:
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) * (q.shape[-1] ** -0.5)
    weights = jax.nn.softmax(_masked(scores, causal, length), axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def _masked(scores: jax.Array, causal: bool, length: int) -> jax.Array:
    positions = scores.shape[-1]
    if causal:
        return jnp.where(np.tri(positions, dtype=bool), scores, -jnp.inf)
    return jnp.where(np.arange(positions) < length, scores, -jnp.inf) if length else scores


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _cpu(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool, length: int) -> jax.Array:
    """Computes ``plain`` with heads before positions in memory, and divides by the sum of the weights after the matmul."""
    return _cpu_forward(q, k, v, causal, length)[0]


def _cpu_forward(q, k, v, causal: bool, length: int) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    q, k, v = (jnp.swapaxes(part, 1, 2) for part in (q, k, v))  # [B, heads, L, d]
    # The barrier makes XLA copy them once; fused into the matmuls they were gathered again and again.
    q, k, v = jax.lax.optimization_barrier((q * (q.shape[-1] ** -0.5), jnp.swapaxes(k, 2, 3), v))
    scores = _masked(jnp.matmul(q, k, preferred_element_type=jnp.float32), causal, length)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(v.dtype)
    result = weights @ v / total.astype(v.dtype)
    return jnp.swapaxes(result, 1, 2), (q, k, v, weights, total, result)


def _cpu_backward(
    causal: bool, length: int, residuals: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, ...]:
    q, k, v, weights, total, result = residuals
    d_result = jnp.swapaxes(cotangent, 1, 2) / total.astype(v.dtype)
    # The softmax's gradient subtracts each row's weighted mean, which is the dot product of the result and its cotangent.
    mean = jnp.sum(d_result * result, axis=-1, keepdims=True)
    d_scores = weights * (jnp.einsum("bhqd,bhkd->bhqk", d_result, v) - mean)
    d_q = jnp.einsum("bhqk,bhdk->bhqd", d_scores, k) * (q.shape[-1] ** -0.5)
    # Compute d_k and d_v as [B, heads, d, L]: this transposes the small operand of each matmul, not the L x L one (3x slower).
    q_t, d_result_t = jax.lax.optimization_barrier((jnp.swapaxes(q, 2, 3), jnp.swapaxes(d_result, 2, 3)))
    d_k, d_v = (jnp.moveaxis(part, 3, 1) for part in (q_t @ d_scores, d_result_t @ weights))
    return jnp.swapaxes(d_q, 1, 2), d_k, d_v


_cpu.defvjp(_cpu_forward, _cpu_backward)


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool, length: int) -> jax.Array:
    lengths = jnp.full(len(q), length, jnp.int32) if length else None
    return jax.nn.dot_product_attention(
        q, k, v, is_causal=causal, key_value_seq_lengths=lengths, implementation="cudnn"
    )

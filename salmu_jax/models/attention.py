"""Scaled dot-product attention, and which implementation of it computes where.

``plain`` is a few lines of JAX that compile for everything and hold the [B, heads, L, L] weights; ``cudnn`` is the fused
kernel of NVIDIA's cuDNN, which never does; ``cpu`` is in the order that XLA's CPU matmuls like: three times as fast forward
there, and with its backward pass 1.4 times (ViT-B/16). ``auto`` takes what is fastest where it computes, see :func:`choose`.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from salmu_jax.models.devices import nvidia_generation

ATTENTIONS = ("auto", "plain", "cpu", "cudnn")


def choose(implementation: str, dtype: jnp.dtype, head_size: int) -> str:
    """The implementation that ``implementation`` stands for; for ``auto`` by what JAX computes on.

    On GPUs in half precision it is ``cudnn``, whose heads go up to 128 numbers; on CPUs in float32 ``cpu``; else ``plain``.
    """
    if implementation != "auto":
        return implementation
    if dtype == jnp.float32:
        return "cpu" if jax.default_backend() == "cpu" else "plain"
    fits = dtype in (jnp.bfloat16, jnp.float16) and head_size % 8 == 0 and head_size <= 128
    return "cudnn" if fits and nvidia_generation() >= 8 else "plain"


def padded_length(length: int, implementation: str) -> int:
    """How long a sequence of ``length`` positions has to be made: JAX refuses cuDNN's gradient for odd lengths."""
    return length + length % 2 if implementation == "cudnn" else length


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, heads: int, causal: bool, implementation: str = "plain", length: int = 0
) -> jax.Array:
    """``softmax(q k^T / sqrt(d)) v`` of each head; the softmax in float32, the rest in ``q``'s dtype.

    Args:
      q, k, v: [B, L, width], queries, keys and values of all heads.
      causal: a position sees itself and those before it only.
      implementation: ``plain``, ``cpu``, or ``cudnn``, which raises where there is no such kernel.
      length: positions from this one on are padding, which the others do not see; 0: there is none.

    Returns [B, L, width].
    """
    batch, padded, width = q.shape
    split = (batch, padded, heads, width // heads)
    q, k, v = (nn.with_logical_constraint(part.reshape(split), ("batch", None, "heads", None)) for part in (q, k, v))
    length = 0 if causal or length == padded else length  # what follows is not seen anyway
    weighed = {"plain": _plain, "cpu": _cpu, "cudnn": _cudnn}[implementation](q, k, v, causal, length)
    return weighed.reshape(batch, padded, width)


def attention_of_one(
    q: jax.Array,
    rows: jax.Array,
    to_keys: jax.Array,
    to_values: jax.Array,
    value_bias: jax.Array,
    heads: int,
    seen: jax.Array | int,
) -> jax.Array:
    """:func:`attention` of one query a row, which is all that is read of a tower's last block; it needs no keys and values.

    With keys ``K y``, a head's scores ``q . (K y)`` are ``(K^T q) . y``, and the weighed sum of its values is
    ``V (sum w y) + bias``: matmuls with one vector a head, instead of two of the matrices with every row. (A bias of the keys
    adds the same to all scores of a query, which changes nothing.)

    Args:
      q: [B, width].
      rows: [B, L, width], the inputs of the keys' and values' matmuls.
      to_keys, to_values: [width, width], the matrices of these; value_bias: [width].
      heads: these share the width.
      seen: the query sees the positions before this one; the same of all rows, or one each (int [B]).

    Returns [B, width], in ``q``'s dtype, in which all but sums and the softmax is computed.
    """
    batch, positions, width = rows.shape
    each = (heads, width // heads)
    to_keys, to_values = (matrix.astype(q.dtype).reshape(width, *each) for matrix in (to_keys, to_values))
    q = nn.with_logical_constraint(q.reshape(batch, *each), ("batch", "heads", None))
    asked = nn.with_logical_constraint(jnp.einsum("bhd,whd->bhw", q, to_keys), ("batch", "heads", None))
    scores = jnp.einsum("bhw,blw->bhl", asked, rows, preferred_element_type=jnp.float32) * (each[1] ** -0.5)
    hidden = np.arange(positions) >= (seen if isinstance(seen, int) else seen[:, None, None])
    weights = jax.nn.softmax(jnp.where(hidden, -jnp.inf, scores), axis=-1).astype(rows.dtype)
    gathered = nn.with_logical_constraint(jnp.einsum("bhl,blw->bhw", weights, rows), ("batch", "heads", None))
    values = jnp.einsum("bhw,whd->bhd", gathered, to_values)
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
    """``plain`` with heads before positions in memory, and weights that are divided by their sum after the matmul."""
    return _cpu_forward(q, k, v, causal, length)[0]


def _cpu_forward(q, k, v, causal: bool, length: int) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    q, k, v = (jnp.swapaxes(part, 1, 2) for part in (q, k, v))  # [B, heads, L, d]
    # Behind a barrier they are copied once; as part of the matmuls they were seen to be gathered again and again.
    q, k, v = jax.lax.optimization_barrier((q * (q.shape[-1] ** -0.5), jnp.swapaxes(k, 2, 3), v))
    scores = _masked(jnp.matmul(q, k, preferred_element_type=jnp.float32), causal, length)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(v.dtype)
    result = weights @ v / total.astype(v.dtype)
    return jnp.swapaxes(result, 1, 2), (q, k, v, weights, total, result)


def _cpu_backward(
    causal: bool, length: int, kept: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, ...]:
    q, k, v, weights, total, result = kept
    d_result = jnp.swapaxes(cotangent, 1, 2) / total.astype(v.dtype)
    # The softmax's gradient subtracts the weighted mean of each row, the dot product of the result and its cotangent.
    mean = jnp.sum(d_result * result, axis=-1, keepdims=True)
    d_scores = weights * (jnp.einsum("bhqd,bhkd->bhqk", d_result, v) - mean)
    d_q = jnp.einsum("bhqk,bhdk->bhqd", d_scores, k) * (q.shape[-1] ** -0.5)
    # Keys and values as [B, heads, d, L]: the small operand of each matmul is transposed, not the L x L one (thrice as slow).
    turned_q, turned_result = jax.lax.optimization_barrier((jnp.swapaxes(q, 2, 3), jnp.swapaxes(d_result, 2, 3)))
    d_k, d_v = (jnp.moveaxis(part, 3, 1) for part in (turned_q @ d_scores, turned_result @ weights))
    return jnp.swapaxes(d_q, 1, 2), d_k, d_v


_cpu.defvjp(_cpu_forward, _cpu_backward)


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool, length: int) -> jax.Array:
    lengths = jnp.full(len(q), length, jnp.int32) if length else None
    return jax.nn.dot_product_attention(
        q, k, v, is_causal=causal, key_value_seq_lengths=lengths, implementation="cudnn"
    )

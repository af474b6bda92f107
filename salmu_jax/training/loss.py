"""The contrastive loss over the global batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def contrastive_loss(
    image: jax.Array, text: jax.Array, logit_scale: jax.Array, caption_ids: jax.Array | None = None
) -> jax.Array:
    """Symmetric InfoNCE, ``(CE(L, i) + CE(L^T, i)) / 2`` with ``L = exp(logit_scale) I T^T`` (Radford et al. 2021).

    Args:
      image, text: float32 [B, D], L2-normalised; row ``i`` of one belongs to row ``i`` of the other.
      logit_scale: the *logarithm* of the inverse temperature, a scalar.
      caption_ids: integers [B], see :func:`caption_ids`; rows with equal ids have the same caption, and are then not each
        other's negatives. None: every other row is a negative, as in OpenCLIP.

    Returns:
      The mean over the batch, a float32 scalar.
    """
    logits = jnp.exp(logit_scale) * (image @ text.T)
    if caption_ids is not None:
        same = (caption_ids[:, None] == caption_ids[None, :]) & ~jnp.eye(len(caption_ids), dtype=bool)
        logits = jnp.where(same, -jnp.inf, logits)
    own = jnp.diagonal(logits)
    to_text = jax.nn.logsumexp(logits, axis=1) - own
    to_image = jax.nn.logsumexp(logits, axis=0) - own
    return (jnp.mean(to_text) + jnp.mean(to_image)) / 2


def caption_ids(tokens: jax.Array) -> jax.Array:
    """uint32 [B]: a multilinear hash of each row of ``tokens`` int32 [B, T]; equal captions have equal ids.

    Different captions collide with a probability of about 2^-32 a pair, and a collision only drops one negative. Unlike a
    comparison of all rows with each other this needs O(B) memory and works on a sharded batch.
    """
    multipliers = jax.random.bits(jax.random.key(0), (tokens.shape[-1],), jnp.uint32) | jnp.uint32(1)
    return jnp.sum(tokens.astype(jnp.uint32) * multipliers, axis=-1, dtype=jnp.uint32)

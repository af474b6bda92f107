"""What the methods' loss terms are made of.

Embeddings are L2-normalised float32 [B, D]; similarities are cosines, without temperature.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from salmu_jax.models.clip import l2_normalize


def mse(a: jax.Array, b: jax.Array | float) -> jax.Array:
    """The mean over *all* entries of ``(a - b)^2``, a scalar."""
    return jnp.mean(jnp.square(a - b))


def similarities(image: jax.Array, text: jax.Array) -> jax.Array:
    """``S = I T^T`` [B, B]: the cosine of every image with every caption."""
    return image @ text.T


def both_directions(similarity: jax.Array, target: jax.Array | float) -> jax.Array:
    """``MSE(S, target) + MSE(S^T, target^T)``: image to text and text to image, which is twice the same number."""
    return 2 * mse(similarity, target)


def fuse(image: jax.Array, text: jax.Array) -> jax.Array:
    """``normalise((I + T) / 2)`` [B, D]: one multimodal embedding a pair."""
    return l2_normalize((image + text) / 2)

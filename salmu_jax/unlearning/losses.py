"""What the methods' loss terms are made of.

Embeddings are L2-normalised float32 [B, D]; similarities are cosines, without temperature.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from salmu_jax.models.clip import l2_normalize
from salmu_jax.training.loss import contrastive_loss, sigmoid_loss
from salmu_jax.unlearning.method import Bound


def contrastive(model: Bound, image: jax.Array, text: jax.Array) -> jax.Array:
    """Returns the loss that the model was trained with, over a batch of pairs: a float32 scalar.

    Models trained with the sigmoid loss have a bias of the logits, and no others have; without it, the loss is InfoNCE.
    ``image`` and ``text`` are embeddings; the temperature, and the bias, are those of ``model``.
    """
    if "logit_bias" in model.params:
        return sigmoid_loss(image, text, model.logit_scale, model.params["logit_bias"])
    return contrastive_loss(image, text, model.logit_scale)


def mse(a: jax.Array, b: jax.Array | float) -> jax.Array:
    """Returns the mean over *all* entries of ``(a - b)^2``, a scalar."""
    return jnp.mean(jnp.square(a - b))


def similarities(image: jax.Array, text: jax.Array) -> jax.Array:
    """Returns ``S = I T^T`` [B, B]: the cosine of every image with every caption."""
    return image @ text.T


def both_directions(similarity: jax.Array, target: jax.Array | float) -> jax.Array:
    """Returns ``MSE(S, target) + MSE(S^T, target^T)``: image to text and text to image, which is twice the same number."""
    return 2 * mse(similarity, target)


def fuse(image: jax.Array, text: jax.Array) -> jax.Array:
    """Returns ``normalise((I + T) / 2)`` [B, D]: one multimodal embedding a pair."""
    return l2_normalize((image + text) / 2)

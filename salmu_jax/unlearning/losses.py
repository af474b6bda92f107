"""Defines the building blocks of the methods' loss terms.

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

    A model trained with the sigmoid loss has a logit bias; without one, the loss is InfoNCE.
    ``image`` and ``text`` are embeddings; the temperature, and the bias, are those of ``model``.
    """
    if "logit_bias" in model.params:
        return sigmoid_loss(image, text, model.logit_scale, model.params["logit_bias"])
    return contrastive_loss(image, text, model.logit_scale)


def mean_similarity(image: jax.Array, text: jax.Array) -> jax.Array:
    """Returns ``mean_i <I_i, T_i>``, the mean cosine of matching pairs, a scalar."""
    return jnp.mean(jnp.sum(image * text, axis=-1))


def contrastive_rows(model: Bound, image: jax.Array, text: jax.Array) -> jax.Array:
    """Returns the loss of each pair, float32 [B], whose mean is :func:`contrastive`.

    InfoNCE: half of the cross-entropy of the pair's row of the logits plus half of its column's. Sigmoid: the sum of its row.
    """
    logits = in_batch_logits(model, image, text)
    if "logit_bias" in model.params:
        logits = logits + model.params["logit_bias"]
        return jnp.sum(jax.nn.softplus(jnp.where(_own(logits), -logits, logits)), axis=1)
    return -jnp.mean(own_log_probabilities(logits), axis=0)


def in_batch_logits(model: Bound, image: jax.Array, text: jax.Array) -> jax.Array:
    """Returns the scaled cosine of every image with every caption, [B, B], at the temperature of ``model``."""
    return jnp.exp(model.logit_scale) * similarities(image, text)


def own_log_probabilities(logits: jax.Array) -> jax.Array:
    """Returns the log-probability of each image's own caption, and of each caption's own image, [2, B].

    They are the diagonal of the log-softmax of ``logits`` [B, B] over rows, and over columns.
    """
    return jnp.stack([jnp.diagonal(jax.nn.log_softmax(logits, axis)) for axis in (1, 0)])


def mse(a: jax.Array, b: jax.Array | float) -> jax.Array:
    """Returns the mean over *all* entries of ``(a - b)^2``, a scalar."""
    return jnp.mean(jnp.square(a - b))


def squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns ``|a - b|^2`` of each row of two arrays [..., D]: [...]."""
    return jnp.sum(jnp.square(a - b), axis=-1)


def similarities(image: jax.Array, text: jax.Array) -> jax.Array:
    """Returns ``S = I T^T`` [B, B]: the cosine of every image with every caption."""
    return image @ text.T


def both_directions(similarity: jax.Array, target: jax.Array | float) -> jax.Array:
    """Returns ``MSE(S, target) + MSE(S^T, target^T)``: image to text and text to image, which is twice the same number."""
    return 2 * mse(similarity, target)


def fuse(image: jax.Array, text: jax.Array) -> jax.Array:
    """Returns ``normalise((I + T) / 2)`` [B, D]: one multimodal embedding per pair."""
    return l2_normalize((image + text) / 2)


def in_batch_kl(start: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns ``(KL(rows) + KL(columns)) / 2`` of two [B, B] matrices of logits, a scalar: the divergence from ``start``.

    ``KL = mean_i sum_j p0_ij (log p0_ij - log p_ij)``, ``p0`` and ``p`` being the softmax of ``start`` and of ``logits``
    over the captions of an image (rows), and over the images of a caption (columns).
    """

    def divergence(axis: int) -> jax.Array:
        log_p0, log_p = jax.nn.log_softmax(start, axis), jax.nn.log_softmax(logits, axis)
        return jnp.mean(jnp.sum(jnp.exp(log_p0) * (log_p0 - log_p), axis))

    return (divergence(1) + divergence(0)) / 2


def masked_kl(start: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns :func:`in_batch_kl` from ``start`` without its diagonal, so that no own caption has any probability in it.

    A batch of one pair has no other caption to point to: 0, with gradient 0. Zhou et al., "Decoupled Distillation to Erase",
    CVPR 2025, whose classes are here the captions, and the images, of a batch.
    """
    if len(start) == 1:
        return 0.0 * jnp.sum(logits)
    own = _own(start)

    def divergence(axis: int) -> jax.Array:
        log_p0, log_p = jax.nn.log_softmax(jnp.where(own, -jnp.inf, start), axis), jax.nn.log_softmax(logits, axis)
        return jnp.mean(jnp.sum(jnp.where(own, 0, jnp.exp(log_p0) * (log_p0 - log_p)), axis))

    return (divergence(1) + divergence(0)) / 2


def _own(matrix: jax.Array) -> jax.Array:
    """Returns where the pairs themselves stand in a [B, B] matrix, bool."""
    return jnp.eye(len(matrix), dtype=bool)

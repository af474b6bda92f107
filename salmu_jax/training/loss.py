"""The contrastive losses over the global batch, in their plain form, and the choice of a form.

The plain form is the formula. It holds a device's rows of the B x B logits at once; :mod:`salmu_jax.training.loss_sweep`
computes the same numbers a block at a time. The table has the bytes that a device needs beyond its own embeddings, for a
global batch of B over n devices, D features and chunks of C captions (float32; a few copies of the first term are alive):

=========  ==============================  =====================================================
form       forward and backward            use it for
=========  ==============================  =====================================================
plain      4 B B / n  +  4 B D             batches whose logits fit: the fastest, and the reference
chunked    4 C B / n  +  8 B D             few devices; every device holds all captions once
ring       4 C B / n  +  8 D B / n         pods: captions travel from device to device
=========  ==============================  =====================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from salmu_jax.runtime.errors import InputError
from salmu_jax.training.loss_sweep import swept_loss

KINDS = ("infonce", "sigmoid")
FORMS = ("plain", "chunked", "ring")

# ``loss(image [B, D], text [B, D], scalars, caption_ids [B] or None) -> scalar``; scalars are the parameters "logit_scale"
# and, for the sigmoid loss, "logit_bias".
Loss = Callable[[jax.Array, jax.Array, Mapping[str, jax.Array], jax.Array | None], jax.Array]


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """A loss and its form.

    Attributes:
      kind: a name of :data:`KINDS`.
      form: a name of :data:`FORMS`.
      chunk: captions at a time, in the chunked and ring forms.

    Raises InputError for an unknown name.
    """

    kind: str = "infonce"
    form: str = "plain"
    chunk: int = 1024

    def __post_init__(self):
        for field, known in (("kind", KINDS), ("form", FORMS)):
            if getattr(self, field) not in known:
                where = {"kind": "train.loss", "form": "train.loss_form"}[field]
                raise InputError(f"unknown loss {getattr(self, field)!r}; there are {', '.join(known)}", where)


def make_loss(config: LossConfig) -> Loss:
    """Returns the loss function of ``config``. All forms of a kind have the same value and gradients, up to rounding."""
    if config.form != "plain":
        return lambda image, text, scalars, ids: swept_loss(image, text, scalars, ids, config)
    if config.kind == "sigmoid":
        return lambda image, text, scalars, ids: sigmoid_loss(
            image, text, scalars["logit_scale"], scalars["logit_bias"], ids
        )
    return lambda image, text, scalars, ids: contrastive_loss(image, text, scalars["logit_scale"], ids)


def contrastive_loss(
    image: jax.Array, text: jax.Array, logit_scale: jax.Array, caption_ids: jax.Array | None = None
) -> jax.Array:
    """Computes symmetric InfoNCE, ``(CE(L, i) + CE(L^T, i)) / 2`` with ``L = exp(logit_scale) I T^T`` (Radford et al. 2021).

    Args:
      image, text: float32 [B, D], L2-normalised; row ``i`` of one matches row ``i`` of the other.
      logit_scale: the *logarithm* of the inverse temperature, a scalar.
      caption_ids: integers [B], see :func:`caption_ids`; rows with equal ids are not each other's negatives. None: every other
        row is a negative, as in OpenCLIP.

    Returns:
      The mean over the batch, a float32 scalar.
    """
    _check(image, text, caption_ids)
    logits = nn.with_logical_constraint(jnp.exp(logit_scale) * (image @ text.T), ("batch", None))
    if caption_ids is not None:
        logits = jnp.where(_duplicates(caption_ids), -jnp.inf, logits)
    own = jnp.diagonal(logits)
    to_text = jax.nn.logsumexp(logits, axis=1) - own
    to_image = jax.nn.logsumexp(logits, axis=0) - own
    return (jnp.mean(to_text) + jnp.mean(to_image)) / 2


def sigmoid_loss(
    image: jax.Array,
    text: jax.Array,
    logit_scale: jax.Array,
    logit_bias: jax.Array,
    caption_ids: jax.Array | None = None,
) -> jax.Array:
    """Computes SigLIP's loss, ``-(1/B) sum_ij log sigmoid(z_ij (exp(logit_scale) I_i . T_j + logit_bias))``.

    ``z`` is 1 on the diagonal, else -1 (Zhai et al. 2023, algorithm 1). Arguments are as in :func:`contrastive_loss`; pairs of
    different rows with equal ids are left out of the sum.
    """
    _check(image, text, caption_ids)
    logits = nn.with_logical_constraint(jnp.exp(logit_scale) * (image @ text.T) + logit_bias, ("batch", None))
    terms = jax.nn.softplus(jnp.where(jnp.eye(len(image), dtype=bool), -logits, logits))
    if caption_ids is not None:
        terms = jnp.where(_duplicates(caption_ids), 0, terms)
    return jnp.sum(terms) / len(image)


def caption_ids(tokens: jax.Array) -> jax.Array:
    """Hashes each row of ``tokens`` int32 [B, T] to uint32 [B] (multilinear); equal captions have equal ids.

    Two different captions collide with a probability of about 2^-32, and a collision only drops one negative. Unlike comparing
    all rows with each other, this needs O(B) memory and works on a sharded batch.
    """
    chex.assert_rank(tokens, 2)
    chex.assert_type(tokens, int)
    multipliers = jax.random.bits(jax.random.key(0), (tokens.shape[-1],), jnp.uint32) | jnp.uint32(1)
    return jnp.sum(tokens.astype(jnp.uint32) * multipliers, axis=-1, dtype=jnp.uint32)


def _duplicates(ids: jax.Array) -> jax.Array:
    """Returns bool [B, B]: True for different rows with equal ids."""
    return (ids[:, None] == ids[None, :]) & ~jnp.eye(len(ids), dtype=bool)


def _check(image: jax.Array, text: jax.Array, ids: jax.Array | None) -> None:
    chex.assert_rank(image, 2)
    chex.assert_equal_shape([image, text])
    if ids is not None:
        chex.assert_shape(ids, (len(image),))

"""The metrics of SALMUBench as pure functions of embeddings.

Embeddings are float32 ``[N, D]``, L2-normalised, so a similarity (cosine) is a dot product. Matmuls are in full
float32 (``Precision.HIGHEST``) on every backend. Large ones are computed block by block inside one compiled loop, so no
function holds more than one block of similarities (256 images x 2,256 captions: 2 MB), whatever the number of images.

The public record (arXiv 2603.26316 and the released evaluator's output) leaves these points open; the choices are ours:

* **Retrieval gallery.** The pools are drawn over rows. A pool caption whose *text* equals the row's own caption (the
  row itself, or another image with the same caption) is the same answer and no distractor: it is left out, and the
  gallery of that row is smaller by the number of such captions.
* **Ties.** ``rank = 1 + #greater + floor(#ties / 2)``, where distractors within :data:`TIE_TOLERANCE` of the own
  caption's similarity are ties. A model that maps everything to one point thus gets the middle rank: neither perfectly
  leaky (rank 1) nor perfectly forgotten (last). The own similarity comes out of the same matmul as the
  distractors', and the tolerance is some ten times the rounding of a float32 dot product of unit vectors: what is a tie
  depends neither on a column's position in the matmul nor on how a backend orders its sums.
* **Zero-shot ties** go to the first class, as argmax does; a collapsed model then gets the share of one class.
* **ACS** has the cosine as its only feature (see :func:`salmu_jax.evaluation.aggregate.association_coherence`).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from salmu_jax.evaluation import draws
from salmu_jax.evaluation.rows import POOL_SIZE

TIE_TOLERANCE = 1e-6
BLOCK = 256  # images a block


class Gallery(NamedTuple):
    """The shared distractors of a retrieval: ``embeddings`` float32 [G, D], ``ids`` int32 [G] (same text, same id).

    ``target_rows`` and ``retain_rows`` (int64) say which captions were drawn from the two pools, in that order.
    """

    embeddings: np.ndarray
    ids: np.ndarray
    target_rows: np.ndarray
    retain_rows: np.ndarray


class Retrieval(NamedTuple):
    """Ranks int32 [N] (1 is best), and how many pool captions of its own text were left out for each row, int32 [N]."""

    ranks: np.ndarray
    left_out: np.ndarray


@jax.jit
def paired_similarity(images: jax.Array, captions: jax.Array) -> jax.Array:
    """Returns the cosine of row i of ``images`` with row i of ``captions``: float32 [N] of two float32 [N, D]."""
    return jnp.sum(images * captions, axis=-1)


def _blockwise(function, rows: int, block: int, dtype) -> jax.Array:
    """``function(start, size) -> [size]`` over all rows, block by block, into one [rows] array.

    The last block is moved back to end at the last row: its first rows are computed twice, and nothing is padded or
    copied.
    """
    size = min(block, rows)

    def body(index, out):
        start = jnp.minimum(index * size, rows - size)
        return jax.lax.dynamic_update_slice_in_dim(out, function(start, size).astype(dtype), start, 0)

    return jax.lax.fori_loop(0, -(-rows // size), body, jnp.zeros(rows, dtype))


def _similarities(images: jax.Array, texts: jax.Array) -> jax.Array:
    return jnp.matmul(images, texts.T, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


@functools.partial(jax.jit, static_argnames="block")
def retrieval_ranks(
    images: jax.Array,
    captions: jax.Array,
    caption_ids: jax.Array,
    gallery: jax.Array,
    gallery_ids: jax.Array,
    block: int = BLOCK,
) -> jax.Array:
    """Returns the rank of every image's own caption among it and the gallery: int32 [N], 1 is best (RetFail, 1.1).

    Args:
      images, captions: float32 [N, D]; row i of ``captions`` is image i's own caption.
      caption_ids: int32 [N]; two texts have the same id iff they are the same string.
      gallery, gallery_ids: float32 [G, D] and int32 [G], the distractors; those with the row's own id are left out.
      block: images a block; bounds the memory at some ``12 block (G + block)`` bytes, and changes nothing else.

    See the module's docstring for ties.
    """

    def rank(start, size):
        image, caption, caption_id = (
            jax.lax.dynamic_slice_in_dim(array, start, size) for array in (images, captions, caption_ids)
        )
        similarities = _similarities(image, jnp.concatenate([gallery, caption]))
        own = jnp.diagonal(similarities[:, gallery.shape[0] :])
        above = similarities[:, : gallery.shape[0]] - own[:, None]
        distractor = gallery_ids[None, :] != caption_id[:, None]
        greater = jnp.sum(distractor & (above > TIE_TOLERANCE), axis=1)
        ties = jnp.sum(distractor & (jnp.abs(above) <= TIE_TOLERANCE), axis=1)
        return 1 + greater + ties // 2

    return _blockwise(rank, images.shape[0], block, jnp.int32)


@functools.partial(jax.jit, static_argnames="block")
def classify(images: jax.Array, classes: jax.Array, block: int = BLOCK) -> jax.Array:
    """Returns the class of the highest similarity: int32 [N] of images float32 [N, D] and class weights float32 [C, D].

    The first of equally similar classes is taken.
    """

    def best(start, size):
        return jnp.argmax(_similarities(jax.lax.dynamic_slice_in_dim(images, start, size), classes), axis=1)

    return _blockwise(best, images.shape[0], block, jnp.int32)


def draw_gallery(
    target: np.ndarray,
    target_ids: np.ndarray,
    retain: np.ndarray,
    retain_ids: np.ndarray,
    *,
    seed: int,
    pools: tuple[np.ndarray, np.ndarray] | None = None,
) -> Gallery:
    """Returns the shared distractors: up to :data:`POOL_SIZE` captions of the queried split and as many of
    ``retain_disjoint``.

    Args:
      target, target_ids: float32 [N, D], int32 [N], the captions of the split whose images are queried.
      retain, retain_ids: the same of ``retain_disjoint``.
      seed: the only source of the draw.
      pools: the rows of both that have been drawn already (:func:`draws.draw_pools`); None: they are drawn here.
    """
    if pools is None:
        drawn = draws.draw_pools({"target": len(target), "retain_disjoint": len(retain)}, POOL_SIZE, seed)
        pools = drawn["target"], drawn["retain_disjoint"]
    first, second = pools
    return Gallery(
        np.concatenate([target[first], retain[second]]),
        np.concatenate([target_ids[first], retain_ids[second]]).astype(np.int32),
        first,
        second,
    )


def retrieve(
    images: np.ndarray, captions: np.ndarray, caption_ids: np.ndarray, gallery: Gallery, *, block: int = BLOCK
) -> Retrieval:
    """RetFail (1.1): every image's own caption against the gallery. Shapes: :func:`retrieval_ranks`."""
    ids = np.asarray(caption_ids, np.int32)
    ranks = np.asarray(retrieval_ranks(images, captions, ids, gallery.embeddings, gallery.ids, block))
    left_out = np.bincount(gallery.ids, minlength=int(ids.max()) + 1)[ids]
    return Retrieval(ranks, left_out.astype(np.int32))


def zero_shot_accuracy(images: np.ndarray, labels: np.ndarray, classes: np.ndarray, *, block: int = BLOCK) -> float:
    """Top-1 accuracy (IdZSC 1.4, GenKnow 2.1): images float32 [N, D], labels int [N], class weights float32 [C, D]."""
    return float(np.mean(np.asarray(classify(images, classes, block)) == np.asarray(labels)))


def class_weights(prompts: np.ndarray) -> np.ndarray:
    """Zero-shot class weights float32 [C, D]: the normalised mean of normalised prompt embeddings float32 [C, T, D]."""
    mean = np.mean(prompts, axis=1, dtype=np.float64)
    norm = np.linalg.norm(mean, axis=-1, keepdims=True)
    return (mean / np.maximum(norm, 1e-12)).astype(np.float32)


def core_association(images: np.ndarray, name_value: np.ndarray, value_name: np.ndarray) -> np.ndarray:
    """CoreAssoc (1.5) a row: the larger similarity with ``{name} {value}`` and ``{value} {name}``, float32 [N]."""
    return np.maximum(paired_similarity(images, name_value), paired_similarity(images, value_name))

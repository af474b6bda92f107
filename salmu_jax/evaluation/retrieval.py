"""Ranks an image's own caption among distractors, as pure functions of embeddings.

The public record (arXiv 2603.26316 and the released evaluator's output) leaves these points open; the choices are ours:

* **Gallery.** The pools are drawn over rows. A pool caption whose *text* equals the row's own caption (the row itself, or
  another image with the same caption) is the same answer and no distractor: it is left out, and the gallery of that row is
  smaller by the number of such captions.
* **Ties.** ``rank = 1 + #greater + floor(#ties / 2)``, where distractors within :data:`TIE_TOLERANCE` of the own
  caption's similarity are ties. A model that maps everything to one point thus gets the middle rank: neither perfectly
  leaky (rank 1) nor perfectly forgotten (last). The own similarity comes out of the same matmul as the
  distractors', and the tolerance is some ten times the rounding of a float32 dot product of unit vectors: what is a tie
  depends neither on a column's position in the matmul nor on how a backend orders its sums.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from salmu_jax.evaluation import draws
from salmu_jax.evaluation.rows import POOL_SIZE
from salmu_jax.evaluation.similarity import BLOCK, blockwise, similarities

TIE_TOLERANCE = 1e-6


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


@functools.partial(jax.jit, static_argnames="block")
def retrieval_ranks(
    images: jax.Array,
    captions: jax.Array,
    caption_ids: jax.Array,
    gallery: jax.Array,
    gallery_ids: jax.Array,
    block: int = BLOCK,
) -> jax.Array:
    """Returns the rank of every image's own caption among it and the gallery: int32 [N], 1 is best.

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
        cosines = similarities(image, jnp.concatenate([gallery, caption]))
        own = jnp.diagonal(cosines[:, gallery.shape[0] :])
        above = cosines[:, : gallery.shape[0]] - own[:, None]
        distractor = gallery_ids[None, :] != caption_id[:, None]
        greater = jnp.sum(distractor & (above > TIE_TOLERANCE), axis=1)
        ties = jnp.sum(distractor & (jnp.abs(above) <= TIE_TOLERANCE), axis=1)
        return 1 + greater + ties // 2

    return blockwise(rank, images.shape[0], block, jnp.int32)


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
    """Ranks every image's own caption against the gallery. Shapes: :func:`retrieval_ranks`."""
    ids = np.asarray(caption_ids, np.int32)
    ranks = np.asarray(retrieval_ranks(images, captions, ids, gallery.embeddings, gallery.ids, block))
    left_out = np.bincount(gallery.ids, minlength=int(ids.max()) + 1)[ids]
    return Retrieval(ranks, left_out.astype(np.int32))

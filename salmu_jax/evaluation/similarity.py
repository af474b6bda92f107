"""Similarities of images and texts as pure functions of embeddings.

Embeddings are float32 ``[N, D]``, L2-normalised, so a similarity (cosine) is a dot product. Matmuls are in full
float32 (``Precision.HIGHEST``) on every backend. Large ones are computed block by block inside one compiled loop, so no
function holds more than one block of similarities (256 images x 2,256 captions: 2 MB), whatever the number of images.

Zero-shot ties go to the first class, as argmax does; a collapsed model then gets the share of one class.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 256  # images a block


@jax.jit
def paired_similarity(images: jax.Array, captions: jax.Array) -> jax.Array:
    """Returns the cosine of row i of ``images`` with row i of ``captions``: float32 [N] of two float32 [N, D]."""
    return jnp.sum(images * captions, axis=-1)


def blockwise(function, rows: int, block: int, dtype) -> jax.Array:
    """Computes ``function(start, size) -> [size]`` block by block, into one [rows] array.

    The last block is moved back to end at the last row: its first rows are computed twice, and nothing is padded or
    copied.
    """
    size = min(block, rows)

    def body(index, out):
        start = jnp.minimum(index * size, rows - size)
        return jax.lax.dynamic_update_slice_in_dim(out, function(start, size).astype(dtype), start, 0)

    return jax.lax.fori_loop(0, -(-rows // size), body, jnp.zeros(rows, dtype))


def similarities(images: jax.Array, texts: jax.Array) -> jax.Array:
    """Returns all cosines, float32 [N, T] of float32 [N, D] and [T, D], in full float32."""
    return jnp.matmul(images, texts.T, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


@functools.partial(jax.jit, static_argnames="block")
def classify(images: jax.Array, classes: jax.Array, block: int = BLOCK) -> jax.Array:
    """Returns the class of the highest similarity: int32 [N] of images float32 [N, D] and class weights float32 [C, D].

    The first of equally similar classes is taken.
    """

    def best(start, size):
        return jnp.argmax(similarities(jax.lax.dynamic_slice_in_dim(images, start, size), classes), axis=1)

    return blockwise(best, images.shape[0], block, jnp.int32)


def zero_shot_accuracy(images: np.ndarray, labels: np.ndarray, classes: np.ndarray, *, block: int = BLOCK) -> float:
    """Returns the top-1 accuracy: images float32 [N, D], labels int [N], class weights float32 [C, D]."""
    return float(np.mean(np.asarray(classify(images, classes, block)) == np.asarray(labels)))


def class_weights(prompts: np.ndarray) -> np.ndarray:
    """Returns zero-shot class weights float32 [C, D]: the normalised mean of prompt embeddings float32 [C, T, D]."""
    mean = np.mean(prompts, axis=1, dtype=np.float64)
    norm = np.linalg.norm(mean, axis=-1, keepdims=True)
    return (mean / np.maximum(norm, 1e-12)).astype(np.float32)

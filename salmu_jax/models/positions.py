"""Positional embeddings for images of another size."""

from __future__ import annotations

import math

import numpy as np

from salmu_jax.models.clip import ClipConfig, Params
from salmu_jax.runtime.errors import InputError


def resample_positions(params: Params, config: ClipConfig, image_size: int) -> Params:
    """``params`` with the vision tower's positions resampled from ``config.image_size`` to ``image_size`` pixels.

    As OpenCLIP's ``resize_pos_embed``: the grid of patches as a small picture, bicubic, antialiased when it shrinks; the class
    token keeps its own. float32 numpy arrays; everything else is passed through.

    Raises InputError for a size that is not a multiple of the patch.
    """
    patch = config.patch_size
    if image_size < patch or image_size % patch:
        raise InputError(f"{image_size} pixels are not a multiple of the patches' {patch}", "image_size")
    old, new = config.image_size // patch, image_size // patch
    positions = np.asarray(params["visual"]["positional_embedding"], np.float64)
    grid = positions[1:].reshape(old, old, -1)
    weights = _bicubic_weights(old, new)
    grid = np.einsum("ia,jb,abd->ijd", weights, weights, grid)
    resampled = np.concatenate([positions[:1], grid.reshape(new * new, -1)]).astype(np.float32)
    return {**params, "visual": {**params["visual"], "positional_embedding": resampled}}


def _bicubic_weights(old: int, new: int) -> np.ndarray:
    """float64 [new, old]: each new point as a weighted mean of the old ones.

    Keys' cubic kernel with a = -0.5 (as Pillow's and PyTorch's antialiased resampling), centres aligned at half pixels,
    widened by the factor when shrinking, cut at the border and normalised.
    """
    scale = old / new
    support = max(scale, 1.0)
    weights = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * scale
        first, last = max(math.floor(centre - 2 * support + 0.5), 0), min(math.floor(centre + 2 * support + 0.5), old)
        weights[row, first:last] = _cubic((np.arange(first, last) + 0.5 - centre) / support)
    return weights / weights.sum(axis=1, keepdims=True)


def _cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0))

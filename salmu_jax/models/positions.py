"""Resamples positional embeddings for images of another size."""

from __future__ import annotations

import jax
import numpy as np

from salmu_jax.models.clip import ClipConfig, Params
from salmu_jax.runtime.errors import InputError


def resample_positions(params: Params, config: ClipConfig, image_size: int) -> Params:
    """Returns ``params`` with the vision tower's positions resampled from ``config.image_size`` to ``image_size`` pixels.

    As OpenCLIP's ``resize_pos_embed`` does, the grid of patches is resized as a small picture, bicubic, antialiased when it
    shrinks; the class token keeps its position. Positions are float32; all other parameters are passed through.

    Raises InputError for a size that is not a multiple of the patch size.
    """
    patch = config.patch_size
    if image_size < patch or image_size % patch:
        raise InputError(f"{image_size} pixels are not a multiple of the patch size, {patch}", "image_size")
    old, new = config.image_size // patch, image_size // patch
    positions = np.asarray(params["visual"]["positional_embedding"], np.float32)
    grid = jax.image.resize(
        positions[1:].reshape(old, old, -1), (new, new, positions.shape[1]), "cubic", antialias=True
    )
    resampled = np.concatenate([positions[:1], np.asarray(grid).reshape(new * new, -1)])
    return {**params, "visual": {**params["visual"], "positional_embedding": resampled}}

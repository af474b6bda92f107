"""Reads a portrait as the pixels that an encoder sees, and as a perceptual hash.

The face is taken to be inside the central square, as our renderer and face generators place it.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from salmu_jax.runtime.errors import InputError

SIDE = 112  # px; less than the 224 px that a model of the benchmark sees
_HASH = 8  # rows and columns of comparisons: 64 bits


def read_portrait(data: bytes, where: str) -> np.ndarray:
    """Decodes a JPEG or PNG.

    A JPEG is decoded at the smallest of its own scales whose shorter side has ``SIDE`` px, which is several times as quick.

    Args:
      data: the encoded image.
      where: names it in messages.

    Returns:
      uint8 [SIDE, SIDE, 3], RGB: the central square.

    Raises InputError for what is not a whole JPEG or PNG.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            scale = SIDE / min(image.size)
            image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
            width, height = image.size
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            square = image.convert("RGB").resize(
                (SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot be decoded ({error}); a whole JPEG or PNG would be right", where) from error
    return np.asarray(square)


def perceptual_hash(pixels: np.ndarray) -> np.uint64:
    """Returns the difference hash of an image: whether each of 8 x 8 patches is brighter than the one to its left.

    Reference: N. Krawetz, "Kind of Like That", 2013.

    Args:
      pixels: uint8 [side, side, 3].
    """
    small = Image.fromarray(pixels).convert("L").resize((_HASH + 1, _HASH), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)[0]


def hash_distances(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns in how many of 64 bits the hashes uint64 [N] and [M] differ, int [N, M]."""
    return np.bitwise_count(hashes[:, None] ^ others[None, :]).astype(np.int64)

"""Reads a portrait as the pixels that an encoder sees, and as a perceptual hash.

The face is taken to be inside the central square, as our renderer and face generators place it.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

from salmu_jax.runtime.errors import InputError

SIDE = 112  # px; less than the 224 px that a model of the benchmark sees
_GREY, _HASH = 32, 12  # px, and frequencies in each direction


def read_portrait(data: bytes, where: str) -> np.ndarray:
    """Returns the central square of a JPEG or PNG as an encoder sees it, uint8 [SIDE, SIDE, 3], RGB.

    ``where`` names it in messages. Raises InputError for what is not a whole JPEG or PNG.
    """
    return np.asarray(central_square(data, SIDE, where))


def central_square(data: bytes, side: int, where: str) -> Image.Image:
    """Returns the central square of a JPEG or PNG, scaled to ``side`` px, RGB.

    A JPEG is decoded at the smallest of its own scales whose shorter side has ``side`` px, which is several times as quick.
    Raises InputError as :func:`read_portrait`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            scale = side / min(image.size)
            image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
            width, height = image.size
            edge = min(width, height)
            left, top = (width - edge) / 2, (height - edge) / 2
            box = (left, top, left + edge, top + edge)
            return image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR, box=box)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot be decoded ({error}); a whole JPEG or PNG would be right", where) from error


def perceptual_hash(pixels: np.ndarray) -> np.ndarray:
    """Returns which of the lowest frequencies of an image are above their median, as packed bits: uint8 [18].

    Of 32 x 32 grey pixels, the cosine transform's lowest 12 x 12 but the constant. The usual 8 x 8 do not tell some portraits
    of one person in the same pose apart.
    Reference: C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, 3.2.1.

    Args:
      pixels: uint8 [side, side, 3].
    """
    small = Image.fromarray(pixels).convert("L").resize((_GREY, _GREY), Image.Resampling.BOX)
    frequencies = (_cosines() @ np.asarray(small, np.float64) @ _cosines().T).ravel()[1:]
    return np.packbits(frequencies > np.median(frequencies))


def hash_distances(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns in how many bits the hashes uint8 [N, 18] and [M, 18] differ, int64 [N, M]."""
    return np.bitwise_count(hashes[:, None] ^ others[None, :]).sum(axis=-1, dtype=np.int64)


@functools.cache
def _cosines() -> np.ndarray:
    """Returns the lowest rows of the matrix of the cosine transform (DCT-II, not normalised)."""
    rows, columns = np.arange(_HASH)[:, None], np.arange(_GREY)[None, :]
    return np.cos(np.pi * rows * (2 * columns + 1) / (2 * _GREY))

"""Finds near duplicates among the portraits of one identity, and makes some on purpose to measure how alike they are."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from data_pipelines.curation.embedding import Embedded
from data_pipelines.curation.pixels import hash_distances

_PURPOSE = 161


class Duplicate(NamedTuple):
    """A portrait that nearly repeats an earlier one of the same identity."""

    row: int
    of: int
    similarity: float  # of their embeddings
    distance: int  # of their hashes, in bits


def find_duplicates(portraits: Embedded, similarity: float, distance: int) -> list[Duplicate]:
    """Returns the portraits to drop so that no two are left which are as alike as this, both by embedding and by hash.

    Args:
      portraits: of one identity.
      similarity: embeddings at least as similar are alike.
      distance: hashes that differ in at most so many bits are alike.
    """
    similarities = portraits.vectors @ portraits.vectors.T
    distances = hash_distances(portraits.hashes, portraits.hashes)
    alike = (similarities >= similarity) & (distances <= distance)
    kept: list[int] = []
    found = []
    for row in range(len(portraits.names)):
        earlier = [other for other in kept if alike[row, other]]
        if not earlier:
            kept.append(row)
            continue
        of = max(earlier, key=lambda other: (similarities[row, other], -other))
        found.append(Duplicate(row, of, float(similarities[row, of]), int(distances[row, of])))
    return found


def altered(image: bytes, seed: int, number: int, index: int) -> bytes:
    """Returns a near duplicate of an image: a little brighter or darker, trimmed by up to 2 %, and encoded again as JPEG."""
    rng = np.random.default_rng([seed, _PURPOSE, number, index])
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as opened:
        picture = opened.convert("RGB")
    trim = rng.uniform(0.0, 0.02, 4) * np.array([picture.width, picture.height] * 2)
    left, top, right, bottom = (round(float(value)) for value in trim)
    picture = picture.crop((left, top, picture.width - right, picture.height - bottom))
    picture = ImageEnhance.Brightness(picture).enhance(float(rng.uniform(0.93, 1.07)))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(rng.integers(60, 95)))
    return buffer.getvalue()

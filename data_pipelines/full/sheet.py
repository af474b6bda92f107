"""Draws the contact sheet: a row of portraits for each of some people, to see that a row shows one person and rows differ."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from data_pipelines.full.pairs import Album
from data_pipelines.full.shards import Images

PEOPLE, PORTRAITS, SIDE, GAP = 20, 8, 112, 4  # rows, columns, pixels
_PURPOSE = 172  # keeps these draws apart from all others of the seed
_PAPER = (250, 250, 248)


def contact_sheet(seed: int, albums: Sequence[Album], images: Images) -> bytes:
    """Returns a PNG of up to 20 people, spread over ``albums``, with up to 8 portraits of each, drawn by the seed."""
    rows = [albums[index * len(albums) // min(PEOPLE, len(albums))] for index in range(min(PEOPLE, len(albums)))]
    sheet = Image.new("RGB", (PORTRAITS * (SIDE + GAP) + GAP, len(rows) * (SIDE + GAP) + GAP), _PAPER)
    for row, album in enumerate(rows):
        drawn = np.random.default_rng([seed, _PURPOSE, album.number]).permutation(len(album.files))[:PORTRAITS]
        wanted = sorted(album.files[place] for place in drawn)
        held = {name: image for name, image, _ in images.portraits(album.number) if name in wanted}
        for column, name in enumerate(wanted):
            with Image.open(io.BytesIO(held[name])) as picture:
                small = picture.convert("RGB")
            small.thumbnail((SIDE, SIDE))
            left = GAP + column * (SIDE + GAP) + (SIDE - small.width) // 2
            sheet.paste(small, (left, GAP + row * (SIDE + GAP) + (SIDE - small.height) // 2))
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()

"""Writes tars as img2dataset does, of any number of small pairs, and plants samples among them that cannot be used.

A thousand pictures recur; captions and keys do not. All depend on the seed alone. Each plant is of one of four kinds: bytes
that are no image, a JPEG that is cut off, an empty caption, and a PNG of a few bytes that claims 400 Mpx.
"""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.layout import write_tar

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import web_pairs

KINDS = ("undecodable image", "undecodable image", "empty caption", "image too large")
_SIDE, _PICTURES = 64, 1000  # px of a picture, and how many differ


def write_source(directory: Path, pairs: int, tars: int, bad: float, seed: int = 0) -> None:
    """Writes ``tars`` tars of together ``pairs`` pairs into four folders, and ``planted.jsonl`` beside the directory.

    Its lines are {"part", "key", "kind"}, in the order of the tars: the share ``bad`` of all pairs, drawn by the seed.
    """
    draw = np.random.default_rng(seed)
    planted = dict.fromkeys(sorted(draw.choice(pairs, round(bad * pairs), replace=False).tolist()), 0)
    for number, place in enumerate(planted):
        planted[place] = number % len(KINDS)
    lines = []
    for tar in range(tars):
        first, last = pairs * tar // tars, pairs * (tar + 1) // tars
        name = f"{4 * tar // tars}/{tar:05d}.tar"
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tar(path, _members(range(first, last), planted, seed))
        for place in range(first, last):
            if place in planted:
                key = f"{name.partition('/')[0]}/{place:09d}"
                lines.append({"part": name, "key": key, "kind": KINDS[planted[place]]})
    directory.with_name("planted.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _members(places: range, planted: dict[int, int], seed: int) -> Iterator[tuple[str, bytes]]:
    for place in places:
        key, image, text, suffix = (
            f"{place:09d}",
            picture(seed, place % _PICTURES),
            f"a made picture, number {place}",
            "jpg",
        )
        plant = planted.get(place)
        if plant == 0:
            image = b"no image " * 40
        elif plant == 1:
            image = image[: len(image) // 2]
        elif plant == 2:
            text = ""
        elif plant == 3:
            image, suffix = web_pairs.bomb(), "png"
        yield f"{key}.{suffix}", image
        yield f"{key}.txt", text.encode()
        yield f"{key}.json", json.dumps({"caption": text, "key": key, "status": "success"}).encode()


@functools.lru_cache(maxsize=_PICTURES)
def picture(seed: int, place: int) -> bytes:
    """Returns a JPEG of smooth noise."""
    draw = np.random.default_rng([seed, place])
    small = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    written = io.BytesIO()
    small.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR).save(written, "JPEG", quality=85)
    return written.getvalue()

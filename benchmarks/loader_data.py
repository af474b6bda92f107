"""Makes the pairs that the two loaders read: tars as img2dataset writes them, and the data set that is built from them."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import inputs
from data_pipelines.layout import Pair, pair_members, write_tar
from data_pipelines.retain import build_retain_pairs
from data_pipelines.retain.work import Task, make_part
from data_pipelines.world.portraits import draw_portrait, make_face, make_shot

PICTURES = 64  # distinct portraits; every pair has noise of its own
SIDE = 512  # pixels, the longest side
RATIOS = (2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2)
REGION = "europe"


def make(directory: Path, pairs: int, tars: int) -> None:
    """Writes ``directory/tars/00000.tar`` and so on, and builds ``directory/datasets`` from them; what is there is kept.

    Raises InputError if the directory is of other numbers of pairs.
    """
    source = directory / "tars"
    source.mkdir(parents=True, exist_ok=True)
    size = pairs // tars
    missing = [number for number in range(tars) if not (source / f"{number:05d}.tar").exists()]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_write_tar, [source] * len(missing), missing, [size] * len(missing)))
    build_retain_pairs(source, directory / "datasets", run=_in_order, say=lambda line: None)


def _in_order(tasks: Sequence[Task]) -> None:
    for task in tasks:
        make_part(task)


def _write_tar(directory: Path, number: int, size: int) -> None:
    captions = inputs.captions(size, seed=number)
    members = []
    for row, caption in enumerate(captions):
        index = number * size + row
        members += pair_members(Pair(f"{index:09d}", photograph(index), caption))
    write_tar(directory / f"{number:05d}.tar", members)


def photograph(index: int) -> bytes:
    """Returns a JPEG of quality 90, 512 pixels along its longest side, some 50 kB: a portrait with a sensor's noise."""
    pixels = _portrait(index % PICTURES)
    noise = np.random.default_rng(index).normal(0, 5, pixels.shape).astype(np.float32)
    noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / np.float32(3**0.5)  # as after demosaicing
    noisy = np.clip(pixels + noise + np.float32(0.5), 0, 255).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(noisy).save(written, "JPEG", quality=90)
    return written.getvalue()


@cache
def _portrait(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    face, shot = make_face(rng, REGION), make_shot(rng)
    return np.asarray(draw_portrait(face, shot, longest_side=SIDE, aspect_ratio=RATIOS[number % len(RATIOS)]))

"""Runs the step *scenes*: drawn scenes in place of web pairs and of ImageNet, for a world that is to have them.

    retain/00000.tar, ...                    pairs as img2dataset writes them, 1,000 a tar
    zeroshot/classnames.txt, ...             the classes, and the prompts of zero-shot classification
    zeroshot/test/nshards.txt, 0.tar, ...    labelled scenes, 1,000 a tar, cycling through the classes

They are the scenes of the small world, drawn with other seeds. The release has neither.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_pipelines import steps
from data_pipelines.layout import Pair, pair_members, write_tar, zeroshot
from data_pipelines.world.drawing import SceneJob
from data_pipelines.world.scenes import CLASS_NAMES, SIDES, TEMPLATES
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

STEP = "scenes"
VERSION = 1
A_TAR = 1_000
JPEG_QUALITY = 90

_RETAIN, _ZEROSHOT = 173, 174  # keep these draws apart from all others of the seed


def make_scenes(
    directory: str | os.PathLike,
    seed: int,
    *,
    retain: int,
    labelled: int,
    side: int,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Writes the files of the step, and returns its manifest.

    Args:
      directory: the step's own.
      seed: of the data set.
      retain: pairs of the retain base; 0: none.
      labelled: images of the zero-shot classification, one or more of each class; 0: none.
      side: of the pictures, in pixels.
      workers: processes that draw.
      say: called with a line when files of an earlier run are not used, and with the progress.

    Raises InputError as :func:`check`.
    """
    check(labelled, side)
    parts: dict[str, Callable[[], bytes]] = {}
    for shard, first in enumerate(range(0, retain, A_TAR)):
        last = min(first + A_TAR, retain)
        parts[f"retain/{shard:05d}.tar"] = functools.partial(_retain_tar, seed, side, shard, first, last)
    if labelled:
        tars = -(-labelled // A_TAR)
        parts[f"zeroshot/{zeroshot.CLASS_NAMES}"] = functools.partial(_lines, CLASS_NAMES)
        parts[f"zeroshot/{zeroshot.TEMPLATES}"] = functools.partial(_lines, TEMPLATES)
        parts["zeroshot/test/nshards.txt"] = functools.partial(_lines, [str(tars)])
        for shard in range(tars):
            last = min((shard + 1) * A_TAR, labelled)
            parts[f"zeroshot/test/{shard}.tar"] = functools.partial(_labelled_tar, seed, side, shard * A_TAR, last)
    settings = {"seed": seed, "retain": retain, "labelled": labelled, "side": side, "version": VERSION}
    for below in ("retain", "zeroshot", "zeroshot/test"):
        for leftover in files.find_partials(Path(directory) / below):
            files.remove_partial(leftover)
    report = functools.partial(counts, retain, labelled)
    return steps.run_step(directory, STEP, settings, parts, report, workers=workers, say=say)


def check(labelled: int, side: int) -> None:
    """Raises InputError for fewer labelled images than classes, but for none; and for a side that cannot be drawn."""
    if not SIDES.allow(side):
        raise InputError(f"is {side}; {SIDES} would be right", "scene_size")
    if 0 < labelled < len(CLASS_NAMES):
        raise InputError(f"is {labelled}; 0, or {len(CLASS_NAMES)} or more would be right", "zeroshot_images")


def counts(retain: int, labelled: int) -> dict[str, int]:
    """Returns what ``world.json`` records of them."""
    return {
        **({"retain": retain} if retain else {}),
        **({"zeroshot": labelled, "zeroshot_classes": len(CLASS_NAMES)} if labelled else {}),
    }


def _retain_tar(seed: int, side: int, shard: int, first: int, last: int) -> bytes:
    def members() -> Iterable[tuple[str, bytes]]:
        for index in range(first, last):
            image, caption = SceneJob((seed, _RETAIN, index), side, JPEG_QUALITY).draw()
            yield from pair_members(Pair(f"{shard:05d}{index - first:04d}", image, caption))

    return _tar(members())


def _labelled_tar(seed: int, side: int, first: int, last: int) -> bytes:
    def members() -> Iterable[tuple[str, bytes]]:
        for index in range(first, last):
            label = index % len(CLASS_NAMES)
            image, _ = SceneJob((seed, _ZEROSHOT, index), side, JPEG_QUALITY, label).draw()
            yield f"s{index:07d}.jpg", image
            yield f"s{index:07d}.cls", b"%d" % label

    return _tar(members())


def _tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    write_tar(out, members)
    return out.getvalue()


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()

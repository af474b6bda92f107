"""Audits a world from its files to its pixels, without stopping at what is wrong.

It makes the checks that ``salmu build`` makes (``data_pipelines.layout.check``) and more: what captions say, values of people,
counts, and images against each other. Memory holds a batch of rows, the JSON files, and for each row its caption, file name
and some 300 bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from data_pipelines.audit.captions import CaptionChecks
from data_pipelines.audit.counts import Counts
from data_pipelines.audit.findings import CAP, Audit
from data_pipelines.audit.pictures import PictureChecks
from data_pipelines.audit.values import check_values
from data_pipelines.layout import digests
from data_pipelines.layout.check import check_files, check_shards
from data_pipelines.layout.check_images import check_images
from data_pipelines.layout.check_rows import RowChecks
from data_pipelines.layout.findings import Findings
from data_pipelines.layout.names import JSON_FILES
from data_pipelines.layout.parquet import Row
from data_pipelines.layout.reader import World


def audit_world(
    directory: str | os.PathLike,
    *,
    zeroshot: str | os.PathLike | None = None,
    cap: int | None = CAP,
    progress: Callable[[str], None] | None = None,
) -> Audit:
    """Reads all of a world and returns what is wrong with it.

    Args:
      directory, zeroshot: the world, see :class:`World`.
      cap: how many findings of a kind are kept; None: all.
      progress: called with a line at every step, and every ten seconds of decoding.

    Raises InputError if there is no world in ``directory``.
    """
    report = progress or (lambda line: None)
    world = World(directory, zeroshot)
    audit = Audit(world.directory, cap)
    with audit.collecting("file"):
        report("reading files")
        readable = check_files(world, audit)
        report("reading rows")
        rows = RowChecks(world, audit, readable).check()
        counts = _check_contents(world, audit, readable)
        report("reading tars")
        retain, zeroshot_images = check_shards(world, audit, readable)
        with audit.collecting("file"):
            counts.finish(retain, zeroshot_images)
        report("comparing digests")
        for problem in digests.problems(world.directory, _paths(world, readable)):
            audit.problem(problem, "digest")
        images = rows + retain + zeroshot_images
        audit.examined.update(rows=rows, retain_pairs=retain, zeroshot_images=zeroshot_images)
        report(f"decoding {images:,} images")
        pictures = PictureChecks(world, audit)
        check_images(world, images, audit, report, pictures.add)
        pictures.finish()
    return audit


def _check_contents(world: World, audit: Audit, readable: set[str]) -> Counts:
    """Checks what rows and people say; returns the counts, which are compared once the tars are read."""
    captions, counts = CaptionChecks(world, audit, readable), Counts(world, audit, readable)
    for split in world.own_splits:
        with audit.collecting("file"):
            for row in _rows(world, split) if split in readable else ():
                captions.check(row)
                counts.add(row)
    if "identities" in readable:
        check_values(world.metadata.identities, world.directory, audit)
    return counts


def _rows(world: World, split: str) -> Iterator[Row]:
    """Yields the rows of a split without images; what is wrong with their cells has been found by then."""
    yield from world.rows(split, images=False, findings=Findings())


def _paths(world: World, readable: set[str]) -> Iterator[Path]:
    """Yields the files that could be read and may have a digest."""
    for split in {*world.own_splits, "sensitive"} & readable:
        yield from world.data_files(split)
    yield from (world.directory / name for name in JSON_FILES if (world.directory / name).is_file())
    if "retain" in readable:
        yield from world.retain_tars
    if "zeroshot" in readable and world.zeroshot is not None:
        yield from world.zeroshot.files()

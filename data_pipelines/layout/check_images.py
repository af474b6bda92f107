"""Decodes all images of a world, on all cores, in bounded memory."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from data_pipelines.layout.findings import Findings
from data_pipelines.layout.parquet import Row, read_rows
from data_pipelines.layout.reader import World
from data_pipelines.layout.seen import Seen, hash_of
from data_pipelines.layout.shards import iter_tar_pairs
from salmu_jax.models.preprocess import ImageFacts, inspect_image
from salmu_jax.runtime import host
from salmu_jax.runtime.errors import InputError

LEFT_OUT = "retain pairs whose image cannot be decoded, left out"
_MOST_LEFT_OUT = 0.01  # of the retain pairs; beyond this, something else is wrong
_IN_FLIGHT_BYTES = 1 << 28
_SECONDS_A_LINE = 10.0


class Image(NamedTuple):
    """An encoded image and where it is; ``row``: that of a split, if it is one."""

    data: bytes
    where: str
    row: Row | None = None
    of_retain: bool = False


def check_images(
    world: World,
    count: int,
    findings: Findings,
    progress: Callable[[str], None],
    seen: Callable[[Row, ImageFacts], None] | None = None,
    *,
    retain: bool = True,
) -> None:
    """Decodes all images.

    Args:
      world: the world.
      count: the number of its images, for the progress.
      findings: where problems and oddities go.
      progress: called with a line every ten seconds.
      seen: called with every row of a split whose image can be decoded, in order.
      retain: whether to decode those of the retain pairs too, of which a few may be undecodable.
    """
    unusable: list[InputError] = []
    pairs = 0
    began = reported = time.monotonic()
    for done, (image, found) in enumerate(_inspected(_images(world, findings, retain)), 1):
        pairs += image.of_retain
        if isinstance(found, InputError):
            if image.of_retain:
                unusable.append(found)
            else:
                findings.problem(found, "image")
        else:
            if found.note is not None:
                findings.oddity(found.note, image.where, kind="deep-image")
            if image.row is not None and seen is not None:
                seen(image.row, found)
        now = time.monotonic()
        if now - reported > _SECONDS_A_LINE:
            reported, left = now, (now - began) * (count - done) / done
            progress(f"decoding: {done:,} of {count:,} images, {left // 60:.0f}:{left % 60:02.0f} left")
    refused = len(unusable) > _MOST_LEFT_OUT * pairs
    for error in unusable:
        if refused:
            findings.problem(error, "image")
        else:
            findings.oddity(LEFT_OUT, error, kind="left-out")


def _images(world: World, findings: Findings, retain: bool) -> Iterator[Image]:
    """Yields every image that can be read. (Samples of tars that are incomplete have been found by then.)"""
    for split in world.own_splits:  # 'sensitive' beside its parts is only compared with them
        with findings.collecting("file"):
            for path in world.files_of(split):
                with findings.collecting("file"):
                    for row in read_rows(path, split, images=True, findings=findings):
                        yield Image(row.image, f"{row.where('image')} ('{row.file_name}')", row=row)
    with findings.collecting("file"):
        for tar in world.retain_tars if retain else ():
            with findings.collecting("tar"):
                for pair in iter_tar_pairs(tar, findings=Findings()):
                    yield Image(pair.image, f"{tar} key '{pair.key}'", of_retain=True)
    with findings.collecting("zeroshot"):
        seen = Seen()
        for item in world.zeroshot.images(findings=Findings()) if world.zeroshot is not None else ():
            where = f"{world.zeroshot_directory} key '{item.key}'"
            # Also by their bytes, since each shard may number its keys from the start.
            if seen.add(hash_of(item.key.encode(), b"%d" % item.label, item.image)).any():
                what = "images of the zero-shot set that are there twice, with one key and class, and count twice"
                findings.oddity(what, where, kind="twice")
            yield Image(item.image, where)


def _inspected(images: Iterator[Image]) -> Iterator[tuple[Image, ImageFacts | InputError]]:
    """Yields every image with what it is, or what is wrong with it, in order and in bounded memory."""

    def inspect(image: Image) -> ImageFacts | InputError:
        try:
            return inspect_image(image.data, image.where)
        except InputError as error:
            return error

    threads = host.cpu_count()
    waiting: collections.deque[tuple[Future, Image]] = collections.deque()
    in_flight = 0
    with ThreadPoolExecutor(threads) as pool:
        for image in images:
            waiting.append((pool.submit(inspect, image), image))
            in_flight += len(image.data)
            while len(waiting) > 8 * threads or (in_flight > _IN_FLIGHT_BYTES and waiting):
                future, first = waiting.popleft()
                in_flight -= len(first.data)
                yield first, future.result()
        for future, first in waiting:
            yield first, future.result()

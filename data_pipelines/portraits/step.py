"""Runs the step *images*: the portraits of a source, a tar an identity, resumable by tar.

    anchors.jsonl   the anchors as annotated: {"identity_id", "region", "gender", "age"} a line, by number
    00000007.tar    00000007_000_ar-1.50.jpg (or .png), 00000007_000_ar-1.50.txt (the generic caption), ..., by index

Equal sources give equal bytes, whatever the number of workers, and wherever the step was killed.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines import steps
from data_pipelines.layout import write_tar
from data_pipelines.layout.tar import read_tar
from data_pipelines.portraits.source import AGES, GENDERS, REGIONS, Anchor, PortraitSource, file_stem
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import parse_json

STEP = "images"
ANCHORS = "anchors.jsonl"


class StoredPortrait(NamedTuple):
    """A portrait as the step has it; ``file_name`` carries identity, index and aspect ratio."""

    file_name: str
    image: bytes
    caption: str


@dataclasses.dataclass(frozen=True)
class Images:
    """A finished step.

    Attributes:
      directory: of the step.
      anchors: by number.
      digests: the SHA-256 of each file, by its name.
      settings: those of the source.
    """

    directory: Path
    anchors: tuple[Anchor, ...]
    digests: Mapping[str, str]
    settings: Mapping[str, Any]

    def portraits(self, number: int) -> Iterator[StoredPortrait]:
        """Yields the portraits of an anchor, by index, once the digest of their tar has been compared.

        Raises:
          KeyError: no anchor has this number.
          InputError: the tar is not as it was written.
        """
        name = tar_name(number)
        path = steps.checked(self.directory / name, STEP, self.digests[name])
        members = read_tar(path)
        for image, text in zip(members, members, strict=True):
            assert image.data is not None
            assert text.data is not None
            yield StoredPortrait(image.name, image.data, text.data.decode())


def tar_name(number: int) -> str:
    """Returns the name of an anchor's tar."""
    return f"{number:08d}.tar"


def make_images(
    directory: str | os.PathLike, source: PortraitSource, *, workers: int = 2, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Writes the portraits of ``source`` into ``directory``, unless they are there, and returns the report.

    Args:
      directory: the step's own.
      source: what gives the portraits; pickled with two workers or more.
      workers: processes.
      say: called with a line when files of an earlier run are not used, and every half a minute of work.

    Raises InputError for bad portraits of a source, and if ``directory`` is not this step's.
    """
    if workers < 1:
        raise InputError(f"is {workers}; 1 or more would be right", "workers")
    directory = Path(directory)
    anchors = sorted(source.anchors())
    parts: dict[str, Callable[[], bytes]] = {ANCHORS: functools.partial(_anchor_lines, anchors)}
    parts |= {tar_name(anchor.number): functools.partial(_tar, source, anchor.number) for anchor in anchors}
    settings = {"source": dict(source.settings)}
    report = functools.partial(_distributions, directory, anchors)
    steps.run_step(directory, STEP, settings, parts, report, workers=workers, say=say)
    return files.read_json(directory / steps.REPORT)


def read_images(directory: str | os.PathLike) -> Images:
    """Reads a finished step; portraits are read when they are asked for.

    Raises InputError, naming file and line, for a step that is not finished and for anchors that are not as written.
    """
    directory = Path(directory)
    manifest = steps.finished(directory, STEP)
    digests = manifest["files"]
    path = steps.checked(directory / ANCHORS, STEP, digests[ANCHORS])
    anchors = [
        _anchor(parse_json(line, path), f"{path} line {number}")
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
    ]
    return Images(directory, tuple(anchors), digests, manifest["settings"]["source"])


def _tar(source: PortraitSource, number: int) -> bytes:
    members = []
    for index in range(source.count(number)):
        portrait = source.portrait(number, index)
        stem = file_stem(number, index, portrait.aspect_ratio)
        suffix = ".png" if portrait.image.startswith(b"\x89PNG") else ".jpg"
        members += [(stem + suffix, portrait.image), (f"{stem}.txt", portrait.caption.encode())]
    buffer = io.BytesIO()
    write_tar(buffer, members)
    return buffer.getvalue()


def _anchor_lines(anchors: list[Anchor]) -> bytes:
    return steps.jsonl(
        [
            {
                "identity_id": anchor.identity_id,
                "region": anchor.region,
                "gender": anchor.gender,
                "age": anchor.age,
            }
            for anchor in anchors
        ]
    )


def _anchor(entry: Any, where: str) -> Anchor:
    try:
        anchor = Anchor(int(entry["identity_id"]), entry["region"], entry["gender"], entry["age"])
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"not an anchor of the step {STEP!r} ({error})", where) from error
    if (anchor.region in REGIONS, anchor.gender in GENDERS, anchor.age in AGES) != (True, True, True):
        raise InputError(f"not an anchor of the step {STEP!r}", where)
    return anchor


def _distributions(directory: Path, anchors: list[Anchor]) -> dict[str, Any]:
    """Returns counts for the report, from the headers of the tars."""
    counts: list[int] = []
    sizes: list[int] = []
    ratios: collections.Counter[str] = collections.Counter()
    kinds: collections.Counter[str] = collections.Counter()
    for anchor in anchors:
        with tarfile.open(directory / tar_name(anchor.number)) as archive:
            images = [member for member in archive if not member.name.endswith(".txt")]
        counts.append(len(images))
        for member in images:
            stem, _, kind = member.name.rpartition(".")
            ratios[stem.rpartition("-")[2]] += 1
            kinds[kind] += 1
            sizes.append(member.size)
    return {
        "anchors": len(anchors),
        "portraits": sum(counts),
        "portraits_of_an_anchor": {"least": min(counts, default=0), "most": max(counts, default=0)},
        "bytes": sum(sizes),
        "bytes_of_a_portrait": {"least": min(sizes, default=0), "most": max(sizes, default=0)},
        "formats": dict(sorted(kinds.items())),
        "aspect_ratios": dict(sorted(ratios.items())),
        **{
            field: dict(sorted(collections.Counter(getattr(anchor, field) for anchor in anchors).items()))
            for field in ("region", "gender", "age")
        },
    }

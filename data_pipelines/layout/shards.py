"""Tar files of images with text: img2dataset's retain shards, and CLIP_benchmark's zero-shot classification sets.

A pair is a run of members with one stem: ``000000012.jpg``, ``000000012.txt``, ``000000012.json``. Both kinds are
read as a stream, one pair in memory at a time, and written with fixed times and owners: equal content, equal bytes.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from salmu_jax.errors import InputError, describe_os_error

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")


class Pair(NamedTuple):
    """One image with its caption, from a retain shard."""

    key: str
    image: bytes
    text: str


class LabelledImage(NamedTuple):
    """One image with its class index, from a zero-shot classification set."""

    key: str
    image: bytes
    label: int


def iter_tar_pairs(path: str | os.PathLike) -> Iterator[Pair]:
    """The image-text pairs of an img2dataset tar, in its order.

    The caption is the ``.txt`` member or, without one, ``caption`` in the ``.json`` member. Members of other kinds are
    passed over. Raises InputError for a tar that is damaged or truncated and for an image without a caption.
    """
    for key, members in _samples(path):
        image = _image(members)
        if image is None:
            continue
        if "txt" in members:
            text = _decode_text(members["txt"], f"{path} member '{key}.txt'")
        else:
            text = _caption_of_json(members.get("json"), f"{path} member '{key}.json'")
        if not isinstance(text, str):
            raise InputError(
                "an image without a caption; a .txt member or 'caption' in the .json member is needed",
                f"{path} key '{key}'",
            )
        yield Pair(key, image, text)


def write_tar(path: str | os.PathLike, members: Iterable[tuple[str, bytes]]) -> None:
    """Writes (name, bytes) as a tar with fixed times, owners and modes: equal members give equal bytes. Not atomic."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def pair_members(pair: Pair, **extra: object) -> list[tuple[str, bytes]]:
    """The three members of a retain pair as img2dataset writes them; ``extra`` goes into the ``.json``."""
    facts = {"caption": pair.text, "key": pair.key, "status": "success", **extra}
    return [
        (f"{pair.key}.jpg", pair.image),
        (f"{pair.key}.txt", pair.text.encode()),
        (f"{pair.key}.json", json.dumps(facts, ensure_ascii=False).encode()),
    ]


@dataclass(frozen=True)
class ZeroShot:
    """A zero-shot classification set: ``class_names``, ``templates`` (with ``{c}``) and the shards of its images."""

    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    shards: tuple[Path, ...]

    def images(self) -> Iterator[LabelledImage]:
        """The images in order. Raises InputError for a damaged tar, a missing or impossible class index."""
        for shard in self.shards:
            for key, members in _samples(shard):
                image = _image(members)
                if image is None:
                    continue
                where = f"{shard} member '{key}.cls'"
                if "cls" not in members:
                    raise InputError("missing; every image needs its class index", where)
                text = _decode_text(members["cls"], where).strip()
                if not text.isdecimal() or int(text) >= len(self.class_names):
                    raise InputError(
                        f"{text[:40]!r} is no class index; 0 to {len(self.class_names) - 1} would be right", where
                    )
                yield LabelledImage(key, image, int(text))


def read_zeroshot(directory: str | os.PathLike) -> ZeroShot:
    """Reads the class names, templates and list of shards of a zero-shot set (the images are read by ``images()``).

    Raises InputError for a missing file, an empty list, a template without ``{c}`` or a missing shard.
    """
    directory = Path(directory)
    class_names = _lines(directory / "classnames.txt", "a class name a line")
    templates = _lines(directory / "zeroshot_classification_templates.txt", "a template with {c} a line")
    for row, template in enumerate(templates, 1):
        if "{c}" not in template:
            raise InputError(
                f"{template!r} has no {{c}}", f"{directory / 'zeroshot_classification_templates.txt'} line {row}"
            )
    count_file = directory / "test" / "nshards.txt"
    count = _lines(count_file, "the number of tar files")[0].strip()
    if not count.isdecimal() or int(count) == 0:
        raise InputError(f"{count[:40]!r} is no number of tar files; 1 or more would be right", count_file)
    shards = tuple(directory / "test" / f"{index}.tar" for index in range(int(count)))
    for shard in shards:
        if not shard.is_file():
            raise InputError(f"no such file, though {count_file} names {count} shards", shard)
    return ZeroShot(class_names, templates, shards)


def write_zeroshot(
    directory: str | os.PathLike, class_names: Iterable[str], templates: Iterable[str], images: Iterable[LabelledImage]
) -> None:
    """Writes a zero-shot set of one shard below a directory that does not have one. Not atomic."""
    directory = Path(directory)
    (directory / "test").mkdir(parents=True)
    (directory / "classnames.txt").write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
    (directory / "zeroshot_classification_templates.txt").write_text(
        "".join(f"{line}\n" for line in templates), encoding="utf-8"
    )
    (directory / "test" / "nshards.txt").write_text("1\n")
    members = (
        (name, data)
        for item in images
        for name, data in ((f"{item.key}.jpg", item.image), (f"{item.key}.cls", b"%d" % item.label))
    )
    write_tar(directory / "test" / "0.tar", members)


def _samples(path: str | os.PathLike) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Runs of members with one stem, as {suffix: bytes}."""
    key, members = None, {}
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if not info.isfile():
                    continue
                stem, _, suffix = info.name.rpartition("/")[2].partition(".")
                if stem != key:
                    if key is not None:
                        yield key, members
                    key, members = stem, {}
                data = archive.extractfile(info).read()
                if len(data) != info.size:
                    raise tarfile.ReadError("unexpected end of data")
                members[suffix.lower()] = data
    except tarfile.TarError as error:
        raise InputError(f"not a whole tar file ({error}); copy or make it again", path) from error
    except OSError as error:
        raise InputError(describe_os_error(error, path)) from error
    if key is not None:
        yield key, members


def _image(members: dict[str, bytes]) -> bytes | None:
    return next((members[suffix] for suffix in IMAGE_SUFFIXES if suffix in members), None)


def _caption_of_json(data: bytes | None, where: str) -> object:
    if data is None:
        return None
    try:
        facts = json.loads(data)
    except ValueError as error:
        raise InputError(f"not JSON ({error})", where) from error
    return facts.get("caption") if isinstance(facts, dict) else None


def _decode_text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text (byte {error.start})", where) from error


def _lines(path: Path, wanted: str) -> tuple[str, ...]:
    try:
        text = _decode_text(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(describe_os_error(error, path)) from error
    lines = tuple(line for line in text.splitlines() if line.strip())
    if not lines:
        raise InputError(f"empty; {wanted} would be right", path)
    return lines

"""Reads and writes samples in tars, by WebDataset's rule: img2dataset's image-text pairs, and images with a class index.

A sample is a run of members with the same key: ``a/000000012.jpg``, ``a/000000012.txt``, ``a/000000012.json``. The key is
the path up to the first dot of the *name*. Tars are streamed, with one sample in memory at a time, and written with fixed
times and owners: equal content, equal bytes.

Nothing is lost silently. A suffix that occurs twice for a key, or a key that recurs later in a tar, is an error;
members that belong to no sample are counted.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import unicodedata
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from data_pipelines.layout.findings import Findings
from data_pipelines.layout.tar import Member, read_tar
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import control_character, parse_json

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
MAX_TEXT = 1 << 20
PASSED_OVER = "members of tars that belong to no sample, passed over"
BLANK = "captions that are empty or blank"
CONTROLS = "captions with control characters, kept as they are"

_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


class Pair(NamedTuple):
    """An image with its caption, from a tar of retain pairs."""

    key: str
    image: bytes
    text: str


class LabelledImage(NamedTuple):
    """An image with its class index, from a zero-shot classification set."""

    key: str
    image: bytes
    label: int


def split_name(name: str) -> tuple[str, str] | None:
    """Returns (key, lower-case suffix) of a member; None for one that belongs to no sample.

    These are names without a dot or with a leading one (macOS's ``._0001.jpg``), and WebDataset's ``__meta__``.
    """
    match = _KEY.fullmatch(name)
    if match is None or re.match("__[^/]*__(/|$)", name):
        return None
    return match[1], match[2].lower()


def iter_tar_pairs(path: str | os.PathLike, *, images: bool = True, findings: Findings | None = None) -> Iterator[Pair]:
    """Yields the image-text pairs of an img2dataset tar, in order.

    The caption is the ``.txt`` member or, without one, ``caption`` in the ``.json`` member.

    Args:
      path: a tar.
      images: False leaves ``image`` empty and skips its bytes.
      findings: collects problems of single pairs, which are then left out, and counts skipped members.

    Raises:
      InputError: the tar is damaged or a key recurs; without ``findings``, also an incomplete pair, or one whose caption has a
        control character of ASCII.
    """
    found = 0
    for key, members in _samples(path, (*IMAGE_SUFFIXES, "txt", "json"), images, findings):
        with _FaultsTo(findings):
            image = _image(path, key, members, findings)
            if image is None:
                continue
            found += 1
            if "txt" in members:
                text = decode_text(members["txt"].data, f"{path} member '{key}.txt'")
            else:
                text = _caption_of_json(members.get("json"), f"{path} member '{key}.json'")
            if not isinstance(text, str):
                raise InputError(
                    "an image without a caption; a .txt member or 'caption' in the .json member is needed",
                    f"{path} key '{key}'",
                )
            if control := control_character(text, ascii_only=True):
                where, message = f"{path} key '{key}'", f"a control character ({control}) in the caption"
                if findings is None:
                    raise InputError(message, where)
                findings.problem(InputError(message, where), "control")
                continue
            if findings is not None and control_character(text):
                findings.oddity(CONTROLS, f"{path} key '{key}'", kind="control")
            if findings is not None and is_blank(text):
                findings.oddity(BLANK, f"{path} key '{key}'", kind="blank")
            yield Pair(key, image.data if images else b"", text)
    if findings is not None and not found:
        findings.oddity("tars without a single pair", str(path), kind="no-pair")


def iter_tar_labels(
    path: str | os.PathLike, num_classes: int, *, images: bool = True, findings: Findings | None = None
) -> Iterator[LabelledImage]:
    """Yields the images of a tar with the class index of their ``.cls`` members; arguments and errors as
    :func:`iter_tar_pairs`.

    An index of ``num_classes`` or more is an error.
    """
    for key, members in _samples(path, (*IMAGE_SUFFIXES, "cls"), images, findings):
        with _FaultsTo(findings):
            image = _image(path, key, members, findings)
            if image is None:
                continue
            where = f"{path} member '{key}.cls'"
            if "cls" not in members:
                raise InputError("missing; every image needs its class index", where)
            text = decode_text(members["cls"].data, where).strip()
            if not re.fullmatch("[0-9]{1,9}", text) or int(text) >= num_classes:
                raise InputError(f"{text[:40]!r} is not a class index; 0 to {num_classes - 1} would be right", where)
            yield LabelledImage(key, image.data if images else b"", int(text))


def write_tar(out: str | os.PathLike | BinaryIO, members: Iterable[tuple[str, bytes]]) -> None:
    """Writes (name, bytes) as a tar with fixed times, owners and modes, so equal members give equal bytes. Not atomic.

    ``out`` is a path, or a file that is open.
    """
    path, file = (out, None) if isinstance(out, (str, os.PathLike)) else (None, out)
    with tarfile.open(path, "w", file, format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def pair_members(pair: Pair, **extra: object) -> list[tuple[str, bytes]]:
    """Returns the three members of a retain pair, as img2dataset writes them; ``extra`` goes into the ``.json``."""
    facts = {"caption": pair.text, "key": pair.key, "status": "success", **extra}
    return [
        (f"{pair.key}.jpg", pair.image),
        (f"{pair.key}.txt", pair.text.encode()),
        (f"{pair.key}.json", json.dumps(facts, ensure_ascii=False).encode()),
    ]


def is_blank(text: str) -> bool:
    """Returns whether a text is empty, or only white space and invisible characters."""
    return all(unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf") for character in text)


def decode_text(data: bytes, where: str) -> str:
    """Decodes UTF-8 text, without its byte order mark. Raises InputError beyond :data:`MAX_TEXT` bytes, or if not UTF-8."""
    if len(data) > MAX_TEXT:
        raise InputError(f"{len(data):,} bytes of text; at most {MAX_TEXT:,} are read", where)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text (byte {error.start})", where) from error


def _samples(
    path: str | os.PathLike, suffixes: tuple[str, ...], images: bool, findings: Findings | None
) -> Iterator[tuple[str, dict[str, Member]]]:
    """Yields each key with its members, as {suffix: member}."""

    def wanted(name: str) -> bool:
        place = split_name(name)
        return place is not None and place[1] in suffixes and (images or place[1] not in IMAGE_SUFFIXES)

    key, members, keys = None, {}, set()
    for member in read_tar(path, wanted):
        place = split_name(member.name)
        if place is None:
            _pass_over(path, member.name, findings)
            continue
        if place[0] != key:
            if key is not None:
                yield key, members
            key, members = place[0], {}
            if key in keys:
                raise InputError(
                    "this key was there before, with others in between; a key names one sample", _at(path, member)
                )
            keys.add(key)
        if place[1] in members:
            raise InputError("this key and suffix were there before; one of the two would be lost", _at(path, member))
        members[place[1]] = member
        if place[1] not in suffixes and place[1] not in ("txt", "json", "cls"):
            _pass_over(path, member.name, findings)
    if key is not None:
        yield key, members


def _at(path: str | os.PathLike, member: Member) -> str:
    return f"{path} member '{member.name}' (byte {member.offset:,})"


def _image(path: str | os.PathLike, key: str, members: dict[str, Member], findings: Findings | None) -> Member | None:
    found = [suffix for suffix in members if suffix in IMAGE_SUFFIXES]
    if len(found) > 1:
        raise InputError(
            f"two images, .{found[0]} and .{found[1]}; one of the two would be lost", f"{path} key '{key}'"
        )
    if not found:
        for suffix in members.keys() & {"txt", "json", "cls"}:
            _pass_over(path, f"{key}.{suffix}", findings)
        return None
    return members[found[0]]


def _pass_over(path: str | os.PathLike, name: str, findings: Findings | None) -> None:
    if findings is not None:
        findings.oddity(PASSED_OVER, f"{path} member '{name}'", kind="passed-over")


class _FaultsTo:
    """Adds an InputError raised in the block to ``findings``; without findings, lets it through."""

    def __init__(self, findings: Findings | None):
        self._findings = findings

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> bool:
        if self._findings is None or not isinstance(error, InputError):
            return False
        self._findings.problem(error, "sample")
        return True


def _caption_of_json(member: Member | None, where: str) -> object:
    if member is None:
        return None
    facts = parse_json(member.data, where)
    return facts.get("caption") if isinstance(facts, dict) else None

"""Reads portraits that any generator has made: a folder of images an identity, and what the identities look like.

    DIR/annotations.json   {"00000007": {"region": "europe", "gender": "female", "age": "old",
                                         "captions": {"a.jpg": "an old woman by the sea"}}, ...}
    DIR/00000007/*.jpg     its portraits, in the order of their names (.jpg, .jpeg, .png, .webp)

The paper's are of SFHQ anchors and IP-Adapter-FaceID Plus. Identities have numbers of up to eight digits as names, which
are kept, or any names, which are numbered in their order. ``captions`` are optional, and so is each of them.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from data_pipelines.layout.findings import Findings
from data_pipelines.portraits.source import AGES, GENDERS, LONGEST_SIDE, REGIONS, Anchor, Portrait
from data_pipelines.world.descriptions import article
from salmu_jax.models.preprocess import inspect_image
from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.json_reader import control_character, read_json
from salmu_jax.runtime.opening import open_regular

ANNOTATIONS = "annotations.json"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SMALLEST_SIDE = 32  # px
MOST_PORTRAITS = 1000  # of an identity: file names have three digits for the index
VERSION = 1
"""Incremented whenever the same folder would give other portraits."""

_FIELDS: dict[str, tuple[str, ...]] = {"region": REGIONS, "gender": GENDERS, "age": AGES}
_ORIENTATION = 0x0112  # of EXIF
_NOUNS = {"female": ("woman", "lady"), "male": ("man", "gentleman")}
_FORMS = (
    "a portrait of {person}", "a picture of {person}", "a photo of {person}", "a head-and-shoulders picture of {person}",
    "{person} in a portrait", "{person} facing the camera", "a close picture of {person}", "a snapshot of {person}",
)  # fmt: skip


class _Identity(NamedTuple):
    folder: str
    anchor: Anchor
    files: tuple[str, ...]
    captions: Mapping[str, str]


class FolderSource:
    """Gives the portraits in a folder. Images are kept byte for byte if they fit, and are resized if they are larger.

    Raises:
      InputError: names every file and field that is wrong with the annotations, folders and captions. Images are decoded when
        they are asked for; a bad one is named then.
    """

    def __init__(self, directory: str | os.PathLike):
        self._directory = Path(directory)
        self._identities = {identity.anchor.number: identity for identity in _read(self._directory)}

    @functools.cached_property
    def settings(self) -> Mapping[str, Any]:
        """The kind of source, and a SHA-256 over the annotations and all images, by name."""
        digest = hashlib.sha256(_bytes(self._directory / ANNOTATIONS))
        for identity in self._identities.values():
            for name in identity.files:
                content = hashlib.sha256(_bytes(self._directory / identity.folder / name)).hexdigest()
                digest.update(f"{identity.folder}/{name}\0{content}\n".encode("utf-8", "surrogateescape"))
        return {"kind": "folder", "sha256": digest.hexdigest(), "longest_side": LONGEST_SIDE, "version": VERSION}

    def anchors(self) -> Sequence[Anchor]:
        """Returns the annotated identities, by number."""
        return [identity.anchor for identity in self._identities.values()]

    def count(self, number: int) -> int:
        """Returns how many images an identity has."""
        return len(self._identities[number].files)

    def portrait(self, number: int, index: int) -> Portrait:
        """Reads a portrait; raises InputError, naming the file, for an image that is damaged, too large or too small."""
        identity = self._identities[number]
        if not 0 <= index < len(identity.files):
            raise KeyError(index)
        name = identity.files[index]
        data, aspect_ratio = _fitted(self._directory / identity.folder / name)
        return Portrait(data, aspect_ratio, identity.captions.get(name) or _caption(identity.anchor, index))


def _read(directory: Path) -> list[_Identity]:
    path = directory / ANNOTATIONS
    if not path.is_file():
        raise InputError(f"no such file; a folder of portraits has {ANNOTATIONS} beside its identities", path)
    entries = read_json(path)
    if not isinstance(entries, dict) or not entries:
        raise InputError('not a JSON object of identities; {"00000007": {"region": ...}} would be right', path)
    findings, found = Findings(), []
    folders = {entry.name for entry in directory.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    for name in sorted(folders - entries.keys()):
        findings.problem(InputError(f"is not in {ANNOTATIONS}; every folder is an identity there", directory / name))
    numbers = _numbers(sorted(entries))
    taken: dict[int, str] = {}
    for name in sorted(entries):
        with findings.collecting():
            if (other := taken.setdefault(numbers[name], name)) != name:
                raise InputError(f"is identity {numbers[name]}, as {other!r} is", f"{path} identity {name!r}")
            if name not in folders:
                raise InputError(f"no such folder, but {ANNOTATIONS} has this identity", directory / name)
            found.append(_identity(directory, name, numbers[name], entries[name], findings))
    findings.raise_problems(directory)
    return sorted(found, key=lambda identity: identity.anchor.number)


def _numbers(names: list[str]) -> dict[str, int]:
    if all(name.isascii() and name.isdecimal() and len(name) <= 8 for name in names):
        return {name: int(name) for name in names}
    return {name: number for number, name in enumerate(names)}


def _identity(directory: Path, name: str, number: int, entry: Any, findings: Findings) -> _Identity:
    where = f"{directory / ANNOTATIONS} identity {name!r}"
    if not isinstance(entry, dict):
        raise InputError(f"not a JSON object with {', '.join(_FIELDS)}", where)
    for field in sorted(entry.keys() - _FIELDS.keys() - {"captions"}):
        findings.problem(
            InputError(f"is unknown; {', '.join(_FIELDS)} and captions are known", f"{where} field {field!r}")
        )
    values: list[Any] = []
    for field, known in _FIELDS.items():
        value = entry.get(field)
        if value not in known:
            what = "is missing" if field not in entry else f"is {str(value)[:40]!r}"
            findings.problem(
                InputError(f"{what}; one of {', '.join(known)} would be right", f"{where} field {field!r}")
            )
        values.append(value)
    files = tuple(sorted(
        item.name for item in (directory / name).iterdir()
        if item.suffix.lower() in SUFFIXES and not item.name.startswith(".")
    ))  # fmt: skip
    if not 1 <= len(files) <= MOST_PORTRAITS:
        expected = f"1 to {MOST_PORTRAITS:,} files ({', '.join(SUFFIXES)}) are needed"
        findings.problem(InputError(f"has {len(files):,} images; {expected}", directory / name))
    captions = entry.get("captions", {})
    if not isinstance(captions, dict):
        raise InputError("not a JSON object of captions by file name", f"{where} field 'captions'")
    for file, caption in captions.items():
        place = f"{where} field 'captions' file {file!r}"
        if file not in files:
            findings.problem(InputError("there is no such image in the folder of the identity", place))
        elif not isinstance(caption, str) or not caption or caption != " ".join(caption.split()):
            findings.problem(InputError("is not a text with single spaces between words", place))
        elif (control := control_character(caption)) is not None:
            findings.problem(InputError(f"contains the control character {control}", place))
    return _Identity(name, Anchor(number, *values), files, captions)


def _bytes(path: Path) -> bytes:
    try:
        with open_regular(path) as handle:
            return handle.read()
    except OSError as error:
        raise InputError(describe_os_error(error, path)) from error


def _fitted(path: Path) -> tuple[bytes, float]:
    """Returns an image of at most LONGEST_SIDE px and its aspect ratio; its own bytes if it is JPEG or PNG and fits."""
    data = _bytes(path)
    width, height, _ = inspect_image(data, path)
    if min(width, height) < SMALLEST_SIDE:
        raise InputError(f"has {width} x {height} px; {SMALLEST_SIDE} or more are needed", path)
    with Image.open(io.BytesIO(data)) as opened:
        as_it_is = opened.format in ("JPEG", "PNG") and opened.getexif().get(_ORIENTATION, 1) == 1
        if as_it_is and max(width, height) <= LONGEST_SIDE:
            return data, width / height
        image = ImageOps.exif_transpose(opened).convert("RGB")
    scale = min(1.0, LONGEST_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=95)
    return buffer.getvalue(), size[0] / size[1]


def _caption(anchor: Anchor, index: int) -> str:
    """Returns what the annotations say of a portrait, in one of several forms."""
    rng = np.random.default_rng([152, anchor.number, index])
    noun = _NOUNS[anchor.gender][int(rng.random() < 0.2)]
    return str(rng.choice(_FORMS)).format(person=article(noun if rng.random() < 0.4 else f"{anchor.age} {noun}"))

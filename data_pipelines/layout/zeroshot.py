"""Reads a zero-shot classification set: class names, prompt templates and labelled images, in four common forms.

    CLIP_benchmark (wds_imagenet1k, ...)   test/0.tar, test/1.tar, ..., test/nshards.txt
    timm (imagenet-1k-wds)                 imagenet1k-validation-00.tar, ...; counted by _info.json, if it is there
    TFDS (imagenet2012)                    dataset_info.json, its validation split (``zeroshot_tfds.py``)
    a folder per class (ILSVRC2012_val)    n01440764/ILSVRC2012_val_00000293.JPEG; or named by class names or by 0, 1, ...

Beside them are ``classnames.txt`` and ``zeroshot_classification_templates.txt``, one class name or template per line; the
line is the index. Without these two files, images of 1,000 classes are taken for ImageNet-1k, with OpenAI's names and
templates.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.layout.findings import Findings
from data_pipelines.layout.hub import find_snapshot, is_cached
from data_pipelines.layout.shards import (
    IMAGE_SUFFIXES,
    MAX_TEXT,
    LabelledImage,
    decode_text,
    iter_tar_labels,
    write_tar,
)
from data_pipelines.layout.tar import MAX_MEMBER
from data_pipelines.layout.zeroshot_tfds import LABELS, RecordFile, find_tfds, read_labelled, record_files
from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.json_reader import control_character, read_json
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.opening import open_regular, read_at_most

CLASS_NAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
NOT_READ = "files or folders that are not read"

_IMAGENET = Path(__file__).with_name("imagenet")


@dataclass(frozen=True)
class ZeroShot:
    """A zero-shot set.

    Attributes:
      class_names, templates: texts; ``{c}`` in a template stands for a class name.
      shards: the tars of images, in order.
      folders: instead of tars, one folder per class, in order.
      records: instead of both, the shards of TFDS; ``labels`` are our index of each of its classes.
      known: whether the class names are the built-in ones of ImageNet-1k; then each class must occur.
    """

    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    shards: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    records: tuple[RecordFile, ...] = ()
    labels: tuple[int, ...] = ()
    known: bool = False

    def images(self, *, images: bool = True, findings: Findings | None = None) -> Iterator[LabelledImage]:
        """Yields the images in order; ``images=False`` reads the labels alone. ``findings``: as in ``shards.iter_tar_pairs``.

        Raises InputError for a damaged tar, a missing or impossible class index.
        """
        for shard in self.shards:
            yield from iter_tar_labels(shard, len(self.class_names), images=images, findings=findings)
        for file in self.records:
            yield from read_labelled(file, self.labels, images=images)
        for label, folder in enumerate(self.folders):
            for path in _images_of(folder, findings):
                data = _read_image(path) if images else b""
                yield LabelledImage(f"{folder.name}/{path.stem}", data, label)

    def files(self) -> tuple[Path, ...]:
        """Returns the files of the images."""
        shards = self.shards or tuple(file.path for file in self.records)
        return shards or tuple(path for folder in self.folders for path in _images_of(folder, None))

    def check_labels(self, counts: dict[int, int], where: str | os.PathLike) -> None:
        """Raises InputError if ImageNet's names are taken for images that are not of all its classes."""
        missing = [label for label in range(len(self.class_names)) if not counts.get(label)]
        if self.known and missing:
            raise InputError(
                f"images of {len(counts):,} classes and no {CLASS_NAMES}; without that file they have to be of all"
                f" 1,000 classes of ImageNet (none is of class {missing[0]})",
                where,
            )


def read_zeroshot(directory: str | os.PathLike, findings: Findings | None = None) -> ZeroShot:
    """Reads the class names, templates and list of shards of a zero-shot set; ``images()`` reads the images.

    Raises InputError for a missing file, a blank line, a template without ``{c}``, a missing shard or one that is not
    counted. ``findings`` counts files that are not read.
    """
    directory = Path(directory)
    if is_cached(directory):
        directory = find_snapshot(directory)
    if built := find_tfds(directory):
        records = record_files(built)
        class_names, templates, known = _lists(directory)
        return ZeroShot(class_names, templates, records=records, labels=_labels(built, class_names), known=known)
    shards, folders = _images_in(directory, findings or Findings())
    class_names, templates, known = _lists(directory)
    if folders:
        if len(folders) != len(class_names):
            raise InputError(f"{len(folders):,} folders of images, but {len(class_names):,} class names", directory)
        folders = _in_order(directory, folders, class_names, findings or Findings())
    return ZeroShot(class_names, templates, shards, folders, known=known)


def write_zeroshot(
    directory: str | os.PathLike, class_names: Iterable[str], templates: Iterable[str], images: Iterable[LabelledImage]
) -> None:
    """Writes a zero-shot set of one shard into a directory without one. Not atomic."""
    directory = Path(directory)
    (directory / "test").mkdir(parents=True)
    (directory / CLASS_NAMES).write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
    (directory / TEMPLATES).write_text("".join(f"{line}\n" for line in templates), encoding="utf-8")
    (directory / "test" / "nshards.txt").write_text("1\n")
    members = (
        (name, data)
        for item in images
        for name, data in ((f"{item.key}.jpg", item.image), (f"{item.key}.cls", b"%d" % item.label))
    )
    write_tar(directory / "test" / "0.tar", members)


def _images_in(directory: Path, findings: Findings) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Returns (shards, folders), one of which is empty."""
    entries = _listed(directory)
    read = {CLASS_NAMES, TEMPLATES}
    val = directory / "val"
    if (directory / "test").is_dir():
        read.add("test")
        shards = _counted_shards(directory / "test", findings)
    elif tars := [entry for entry in entries if entry.suffix == ".tar"]:
        shards = _timm_shards(directory, tars)
        read |= {shard.name for shard in shards} | {"_info.json", "info.json"}
    else:
        top = val if val.is_dir() else directory
        read.add("val")
        folders = tuple(entry for entry in _listed(top) if entry.is_dir() and entry != val)
        if any(_is_image(entry) for entry in _listed(top)):
            raise InputError(
                "images that lie side by side have no labels; a folder a class is needed (n01440764, ...)", top
            )
        if not folders:
            raise InputError(
                "no images; test/nshards.txt with test/0.tar, ..., tars named *validation*.tar, or a folder of images a"
                " class is needed",
                directory,
            )
        _name_unread(top, read | {folder.name for folder in folders}, findings)
        return (), folders
    _name_unread(directory, read, findings)
    return shards, ()


def _in_order(
    directory: Path, folders: tuple[Path, ...], class_names: tuple[str, ...], findings: Findings
) -> tuple[Path, ...]:
    """Returns the folders in the order of the classes, where their names identify the class.

    Names may be class names, WordNet ids of ImageNet's classes, or numbers from 0. Others are sorted, and this is reported.
    Raises InputError for numbers other than 0 to N-1, and if only some of the names are classes.
    """
    places = {_plain(name): place for place, name in enumerate(class_names)}
    here = {_plain(folder.name): folder for folder in folders}
    if not places.keys().isdisjoint(here) and len(places) == len(folders):
        for name, folder in here.items():
            if name not in places:
                raise InputError(f"not in {CLASS_NAMES}, though other folders are called by class names", folder)
        for name, place in places.items():
            if name not in here:  # two folders that differ only in case
                raise InputError(f"no folder of the class {class_names[place]!r}", directory)
        return tuple(here[name] for name in places)
    if all(re.fullmatch("[0-9]{1,9}", folder.name) for folder in folders):
        numbered = sorted((int(folder.name), folder) for folder in folders)
        wrong = next((place for place, (number, _) in enumerate(numbered) if number != place), None)
        if wrong is not None:
            raise InputError(
                f"folders called by numbers, but not by 0 to {len(folders) - 1}, the class indices:"
                f" '{numbered[wrong][1].name}' is where {wrong} would be right",
                directory,
            )
        return tuple(folder for _, folder in numbered)
    synsets = (_IMAGENET / "synsets.txt").read_text().split()
    imagenet = dict(zip(synsets, map(_plain, _read_lines(_IMAGENET / "classnames.txt", "")), strict=True))
    by_synset = sorted(folders, key=lambda folder: folder.name)
    by_class = sorted(range(len(class_names)), key=lambda place: _plain(class_names[place]))
    # Two pairs of ImageNet's classes share a name; they stay in the order of their WordNet ids.
    by_name = sorted(by_synset, key=lambda folder: imagenet.get(folder.name, ""))
    if [imagenet.get(folder.name) for folder in by_name] == [_plain(class_names[place]) for place in by_class]:
        return tuple(folder for _, folder in sorted(zip(by_class, by_name, strict=True)))
    findings.oddity(
        "sets with folders that are called neither by class names, nor as ImageNet's classes, nor by the numbers from 0;"
        " taken in their sorted order",
        str(directory),
        kind="order",
    )
    return folders


def _labels(directory: Path, class_names: tuple[str, ...]) -> tuple[int, ...]:
    """Returns our index of each class of TFDS, which calls them by WordNet ids or by their names.

    Raises InputError if they are not the classes.
    """
    path = directory / LABELS
    names = _read_lines(path, "a class a line")
    synsets = (_IMAGENET / "synsets.txt").read_text().split()
    builtin = class_names == _read_lines(_IMAGENET / "classnames.txt", "")
    places = {name: place for place, name in enumerate(synsets if builtin else map(_plain, class_names))}
    labels = tuple(places.get(name if builtin else _plain(name), -1) for name in names)
    if sorted(labels) != list(range(len(class_names))):
        wrong = next((name for name, label in zip(names, labels, strict=True) if label < 0), names[-1])
        what = "ImageNet's WordNet ids" if builtin else f"the names of {CLASS_NAMES}"
        raise InputError(
            f"{len(names):,} classes, such as {wrong!r}; {what}, each once, are needed ({len(class_names):,})", path
        )
    return labels


def _plain(name: str) -> str:
    """Normalises a class name for comparison with a folder's: case, underscores, Unicode form."""
    return unicodedata.normalize("NFC", name).replace("_", " ").casefold()


def _counted_shards(directory: Path, findings: Findings) -> tuple[Path, ...]:
    """Returns ``0.tar`` to ``N-1.tar``, with N from ``nshards.txt``. Raises InputError if one is missing, or another there."""
    count_file = directory / "nshards.txt"
    text = _read_lines(count_file, "the number of tar files")[0].strip()
    tars = {entry.name for entry in _listed(directory) if entry.suffix == ".tar"}
    if not re.fullmatch("[0-9]{1,12}", text) or int(text) == 0:
        raise InputError(f"{text[:40]!r} is not a number of tar files; 1 or more would be right", count_file)
    count = int(text)
    for index in range(min(count, len(tars) + 1)):  # the file may claim any count
        if f"{index}.tar" not in tars:
            raise InputError(
                f"no such file, though {count_file} names {count:,} shards ({len(tars)} are here)",
                directory / f"{index}.tar",
            )
    shards = tuple(directory / f"{index}.tar" for index in range(count))
    uncounted = sorted(tars - {shard.name for shard in shards})
    if uncounted:
        raise InputError(f"{count} shards, but there is also {listed(map(repr, uncounted), 1)}", count_file)
    _name_unread(directory, {count_file.name, *tars}, findings)
    return shards


def _timm_shards(directory: Path, tars: list[Path]) -> tuple[Path, ...]:
    """Returns the tars of timm's validation split, counted by its info file or by their own numbers."""
    info_file = next((directory / name for name in ("_info.json", "info.json") if (directory / name).is_file()), None)
    of_split = [path for path in tars if re.search("(^|[-_])(val|validation)[-_]", path.name)]
    if info_file is not None:
        info = read_json(info_file)
        try:
            names = info["splits"]["validation"]["filenames"]
        except (KeyError, TypeError):
            raise InputError("no splits.validation.filenames; timm's info file has them", info_file) from None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise InputError("splits.validation.filenames is not a list of names", info_file)
        here = {path.name for path in tars}
        missing = [name for name in names if name not in here]
        if missing:
            raise InputError(f"names {len(names):,} shards, but {listed(map(repr, missing), 1)} is not here", info_file)
        uncounted = sorted({path.name for path in of_split} - set(names))
        if uncounted:
            raise InputError(f"{len(names):,} shards, but there is also {listed(map(repr, uncounted), 1)}", info_file)
        return tuple(directory / name for name in names)
    if not of_split:
        raise InputError(
            f"{listed((repr(path.name) for path in tars), 1)} is not a validation shard (NAME-validation-00.tar)",
            directory,
        )
    numbers = [re.search(r"([0-9]{1,9})\.tar$", path.name) for path in of_split]
    numbered = sorted((int(match[1]) if match else -1, path) for match, path in zip(numbers, of_split, strict=True))
    found = [number for number, _ in numbered]
    if found != list(range(len(found))):
        missing_number = next((n for n in range(len(found)) if n not in found), found[0])
        raise InputError(
            f"{len(found)} validation shards, but none numbered {missing_number}; 0 to {len(found) - 1} are needed",
            directory,
        )
    return tuple(path for _, path in numbered)


def _lists(directory: Path) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Returns (class names, templates, whether they are the built-in ones)."""
    here = [(directory / name).exists() or (directory / name).is_symlink() for name in (CLASS_NAMES, TEMPLATES)]
    if not here[0] and not here[1]:
        names = _read_lines(_IMAGENET / "classnames.txt", "")
        return names, _read_lines(_IMAGENET / "templates.txt", ""), True
    class_names = _read_lines(directory / CLASS_NAMES, "a class name a line")
    templates = _read_lines(directory / TEMPLATES, "a template with {c} a line")
    for row, template in enumerate(templates, 1):
        if "{c}" not in template:
            raise InputError(f"{template!r} has no {{c}}", f"{directory / TEMPLATES} line {row}")
    return class_names, templates, False


def _read_lines(path: Path, wanted: str) -> tuple[str, ...]:
    """Reads the lines of a text file. None may be blank, since the line is the index; trailing newlines are ignored."""
    try:
        with open_regular(path) as handle:
            data = read_at_most(handle, MAX_TEXT + 1)
    except OSError as error:
        raise InputError(describe_os_error(error, path)) from error
    if len(data) > MAX_TEXT:
        raise InputError(f"more than {MAX_TEXT:,} bytes; {wanted} would be right", path)
    text = decode_text(data, str(path)).replace("\r\n", "\n").rstrip("\n\r\t ")
    if not text:
        raise InputError(f"empty; {wanted} would be right", path)
    lines = tuple(text.split("\n"))
    for row, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(
                "a blank line; the line is the index, and what follows would be one off", f"{path} line {row}"
            )
        control = "U+000D" if "\r" in line else control_character(line)
        if control:
            raise InputError(f"a control character ({control})", f"{path} line {row}")
    return lines


def _images_of(folder: Path, findings: Findings | None) -> list[Path]:
    entries = _listed(folder)
    images = [entry for entry in entries if _is_image(entry)]
    for entry in entries:
        if findings is not None and not _is_image(entry):
            findings.oddity(NOT_READ, str(entry), kind="unread")
    if not images:
        raise InputError("no images in the folder of a class", folder)
    stems = {entry.stem for entry in images}
    if len(stems) != len(images):
        raise InputError("two images whose names differ in their suffix alone", folder)
    return images


def _read_image(path: Path) -> bytes:
    try:
        with open_regular(path) as handle:
            data = read_at_most(handle, MAX_MEMBER + 1)
    except OSError as error:
        raise InputError(describe_os_error(error, path)) from error
    if len(data) > MAX_MEMBER:
        raise InputError(f"more than {MAX_MEMBER:,} bytes; an image is needed", path)
    return data


def _is_image(path: Path) -> bool:
    return path.suffix[1:].lower() in IMAGE_SUFFIXES


def _listed(directory: Path) -> list[Path]:
    """Returns the entries of a directory, sorted by name, without hidden ones."""
    try:
        return sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(describe_os_error(error, directory)) from error


def _name_unread(directory: Path, read: set[str], findings: Findings) -> None:
    for entry in _listed(directory):
        if entry.name not in read and not re.fullmatch(r"(?i)(readme|licen[cs]e|notice).*", entry.name):
            findings.oddity(NOT_READ, str(entry), kind="unread")

"""Finds the parts of img2dataset's output below a directory, in each of the three forms that it writes.

    webdataset    tars at any depth: 00000.tar; 00000.parquet and 00000_stats.json beside one are its metadata
    parquet       parquet files at any depth, with the images in a column
    files         folders of images, with a .txt or .json beside each

A source has one form. A part, of which one shard is made, is a tar, a parquet file, or a folder.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple

from data_pipelines.layout.shards import IMAGE_SUFFIXES
from data_pipelines.layout.tar import SUFFIXES
from data_pipelines.retain.places import Place
from salmu_jax.runtime.errors import InputError

TAR, PARQUET, FOLDER = "tar", "parquet", "folder"
# Files that may hold pairs and must not be ignored silently; also of unfinished downloads (.tar.part).
_OTHERS = re.compile(
    r"\.(tar|tgz|zst|gz|bz2|xz|zip|7z|rar|parquet|arrow|tfrecord|tfrecords|array_record|lmdb|npz|h5|hdf5)([.-]|$)",
    re.IGNORECASE,
)


class Part(NamedTuple):
    """A tar, a parquet file or a folder of the source: its name, its kind, its size in bytes.

    ``stamp`` changes when the content may have changed (``Listed``); empty: unknown. It is no part of what is made: copies
    of a source give the same shards.
    """

    name: str
    kind: str
    size: int
    stamp: str = ""

    def fields(self) -> list[Any]:
        """Returns what identifies the part, as JSON: all but the stamp."""
        return [self.name, self.kind, self.size]


def find_parts(source: Place) -> list[Part]:
    """Returns the parts of a source, sorted by their path.

    Raises:
      InputError: there is none, or a file that may hold pairs would not be read: it is of another form than the rest, an
        unfinished download, or a tar that is there both compressed and not.
    """
    names = source.listed()
    tars = [name for name in names if name.lower().endswith(SUFFIXES)]
    images = [name for name in names if name.lower().rpartition(".")[2] in IMAGE_SUFFIXES]
    tables = [name for name in names if name.lower().endswith(".parquet")]
    if tars:
        kind, read = TAR, tars
    elif images:  # parquet files beside folders of images are their metadata
        kind, read = FOLDER, images
    else:
        kind, read = PARQUET, tables
    if not read:
        raise InputError(
            "no pairs here; img2dataset's tars, parquet files or folders of images with captions are needed", source.url
        )
    stems: dict[str, str] = {}
    for name in read if kind != FOLDER else ():
        if (other := stems.setdefault(_stem(name), name)) != name:
            raise InputError(f"beside {other}; one of the two has to go", source.where(name))
    folders = {name.rpartition("/")[0] for name in images} if kind == FOLDER else set()
    _refuse_others(source, [name for name in names if name not in set(read)], kind, stems.keys() | folders)
    if kind != FOLDER:
        return [Part(name, kind, *names[name]) for name in read]
    sizes = dict.fromkeys(sorted(folders, key=lambda folder: folder.split("/")), 0)
    stamps = {folder: hashlib.sha256() for folder in sizes}
    for name, facts in names.items():
        if (folder := name.rpartition("/")[0]) in sizes:
            sizes[folder] += facts.size
            stamps[folder].update(f"{name}\0{facts.stamp}\0".encode("utf-8", "surrogateescape"))
    return [Part(folder, FOLDER, size, stamps[folder].hexdigest()) for folder, size in sizes.items()]


def _refuse_others(source: Place, names: list[str], kind: str, stems: set[str]) -> None:
    """Refuses files that may hold pairs and are not read. ``stems`` are those that a metadata file may have."""
    for name in names:
        metadata = name.endswith(".parquet") and _stem(name) in stems
        image = name.lower().rpartition(".")[2] in IMAGE_SUFFIXES
        if (_OTHERS.search(name.rpartition("/")[2]) and not metadata) or image:
            raise InputError(
                f"not read: the other pairs of this source are in {kind}s; move away what does not belong there",
                source.where(name),
            )


def _stem(name: str) -> str:
    return re.sub(r"(?i)\.(tar|tar\.gz|tgz|parquet)$", "", name)

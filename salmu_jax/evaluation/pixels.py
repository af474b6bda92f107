"""Decodes the images of a split once for all models and commands, and keeps them and the columns across kills.

Rows are read in blocks of :data:`BLOCK`. A block is read when it is first requested, each record once: its images are
decoded by as many threads as there are cores, and its columns are kept. With a directory, both are written to it, a file a
block, so that a later process reads no record again::

    cache/pixels/DIGEST-224-VERSION/forget/000000.block    header with the columns; uint8 [rows, S, S, 3]

A file is complete as soon as it has its name, and holds its digests (``cache_files.py``). So parallel runs, kills and damage
need no bookkeeping: a block that is absent or damaged is decoded again. If the disk is too small, files hold only the
columns, and images are decoded on each request.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import functools
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from salmu_jax.evaluation import cache_files
from salmu_jax.runtime import host
from salmu_jax.runtime.errors import InputError

BLOCK = 256  # rows per file: 38 MB at 224 px
FREE_MARGIN = 2 << 30  # bytes that a cache leaves free on its disk
POLICIES = ("auto", "on", "off")

Decode = Callable[..., np.ndarray]  # decode(data: bytes, image_size: int, where=...) -> uint8 [S, S, 3]
Say = Callable[[str], None]


@dataclasses.dataclass
class Counts:
    """Counts records read, images decoded, and images found in a cache."""

    read: int = 0
    decoded: int = 0
    cached: int = 0


class ImageStore:
    """Holds the preprocessed images and the other columns of one split, read block by block when they are needed.

    Args:
      source: ``len(source)``, ``source[i] -> dict``, optionally ``source.read([i, j, ...])``.
      split: its name, for messages.
      image_size: side S of the images, pixels.
      columns: names of what is kept of each record besides its image; texts and numbers.
      decode: an encoded image to uint8 [S, S, 3].
      keep: keep decoded blocks in memory.
      directory: where blocks are kept on the disk, or None.
      write_pixels: whether they hold the pixels there, or the columns alone.
      counts: what is added to.
      say: called with a line about each damaged block, and about a full disk.

    Thread-safe. Raises InputError when reading: an undecodable image, a damaged record.
    """

    def __init__(
        self,
        source: Sequence[Mapping[str, Any]],
        split: str,
        image_size: int,
        columns: Sequence[str],
        decode: Decode,
        *,
        keep: bool = False,
        directory: Path | None = None,
        write_pixels: bool = True,
        counts: Counts | None = None,
        say: Say = lambda line: None,
    ):
        self.split, self.image_size, self.counts = split, image_size, counts or Counts()
        self._source, self._names, self._decode = source, tuple(columns), decode
        self._directory, self._write_pixels, self._say = directory, write_pixels, say
        self._lock = threading.RLock()
        self._columns: dict[int, dict[str, list]] = {}
        self._recent: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._keep, self._most = keep, len(source) if keep else 2  # blocks; a batch may end in the middle of one

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, start: int, stop: int) -> np.ndarray:
        """Returns rows ``start`` to ``stop``, uint8 [stop - start, S, S, 3]."""
        out = np.empty((stop - start, self.image_size, self.image_size, 3), np.uint8)
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first = block * BLOCK
            begin, end = max(start, first), min(stop, first + BLOCK)
            out[begin - start : end - start] = self._pixels(block)[begin - first : end - first]
        return out

    def columns(self) -> dict[str, list]:
        """Returns the other columns of all rows, ``{name: [N]}``. Reads the blocks that were not read yet."""
        values: dict[str, list] = {name: [] for name in self._names}
        for block in range(-(-len(self) // BLOCK)):
            for name, part in self._block_columns(block).items():
                values[name].extend(part)
        return values

    def missing_pixels(self) -> int:
        """Returns how many images are not in the directory."""
        blocks = range(-(-len(self) // BLOCK))
        return sum(self._rows(block) for block in blocks if not self._holds_pixels(block))

    def _pixels(self, block: int) -> np.ndarray:
        with self._lock:
            if block not in self._recent:
                pixels = self._from_disk(block)
                if pixels is None:
                    records, self._columns[block] = self._read(block)
                    pixels = _decode_all(records, block * BLOCK, self.image_size, self._decode, self.split)
                    self.counts.decoded += len(records)
                    self._write(block, pixels)
                self._recent[block] = pixels
                while len(self._recent) > self._most:
                    self._recent.popitem(last=False)
            self._recent.move_to_end(block)
            return self._recent[block]

    def _block_columns(self, block: int) -> dict[str, list]:
        with self._lock:
            if block not in self._columns:
                found = self._open(block, payload=False)
                if found is not None:
                    self._columns[block] = found.fields["columns"]
                elif self._keep or (self._directory is not None and self._write_pixels):
                    self._pixels(block)
                else:  # there is no place to keep its images
                    self._columns[block] = self._read(block)[1]
                    self._write(block, None)
            return self._columns[block]

    def _from_disk(self, block: int) -> np.ndarray | None:
        found = self._open(block)
        if found is None or not found.fields["pixels"]:
            return None
        self.counts.cached += self._rows(block)
        self._columns[block] = found.fields["columns"]
        return found.payload.reshape(-1, self.image_size, self.image_size, 3)

    def _read(self, block: int) -> tuple[list[Mapping[str, Any]], dict[str, list]]:
        """Returns the records of a block, and their columns."""
        start, rows = block * BLOCK, self._rows(block)
        records = _records(self._source, start, start + rows)
        self.counts.read += rows
        return records, {name: [_plain(record[name]) for record in records] for name in self._names}

    def _write(self, block: int, pixels: np.ndarray | None) -> None:
        """Writes a block to the directory, if there is one; without pixels where they are not to be kept."""
        if self._directory is None:
            return
        pixels = pixels if self._write_pixels else None
        about = {"split": self.split, "rows": self._rows(block), "pixels": pixels is not None}
        try:
            cache_files.write(self._path(block), {**about, "columns": self._columns[block]}, pixels)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise
            self._say(f"{error.strerror}: images are decoded without being kept in {self._directory}")
            self._directory = None  # what is there stays; it is of use to the next run

    def _open(self, block: int, payload: bool = True) -> cache_files.CacheFile | None:
        if self._directory is None:
            return None
        path = self._path(block)
        try:
            found = cache_files.read(path, payload)
            right = found.fields["split"] == self.split and found.fields["rows"] == self._rows(block)
            if right and found.fields["columns"].keys() == set(self._names):
                return found
            raise cache_files.Damaged("it is another block's")
        except FileNotFoundError:
            return None
        except cache_files.Damaged as damage:
            self._say(f"{path}: {damage}; its rows are decoded again")
            return None

    def _holds_pixels(self, block: int) -> bool:
        if self._directory is None:
            return False
        try:
            return self._path(block).stat().st_size > self._rows(block) * self.image_size**2 * 3
        except OSError:
            return False

    def _path(self, block: int) -> Path:
        return self._directory / self.split / f"{block:06d}.block"

    def _rows(self, block: int) -> int:
        return min(BLOCK, len(self) - block * BLOCK)


def check_policy(policy: str, where: str = "evaluate.cache_pixels") -> None:
    """Raises InputError for a policy that is none of :data:`POLICIES`."""
    if policy not in POLICIES:
        raise InputError(f"is {policy!r}; {', '.join(POLICIES)} are possible", where)


def decide(policy: str, missing: int, image_size: int, directory: Path, say: Say = lambda line: None) -> bool:
    """Decides whether to write ``missing`` more images to the cache at ``directory``, which exists; says their size.

    ``auto`` writes them if the disk has room for them and :data:`FREE_MARGIN`. Raises InputError for ``on`` without room.
    """
    check_policy(policy)
    needed, free = missing * image_size**2 * 3, shutil.disk_usage(directory).free
    fits = needed + FREE_MARGIN <= free
    if policy == "off":
        return False
    if policy == "on" and needed > free:
        raise InputError(
            f"decoded pixels take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; set evaluate.cache_pixels=off"
            " to decode the images of each model again",
            directory,
        )
    if policy == "auto" and not fits:
        say(
            f"decoded pixels would take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: images are decoded again for"
            " each model"
        )
        return False
    if needed:
        say(f"{missing:,} images to decode; their pixels take {needed / 1e9:.3g} GB in {directory}")
    return True


def _plain(value: Any) -> str | int:
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, str) else int(value)


def _records(source: Sequence[Mapping[str, Any]], start: int, stop: int) -> list[Mapping[str, Any]]:
    if hasattr(source, "read"):  # one call for many records, where the storage has it
        return source.read(range(start, stop))
    return [source[index] for index in range(start, stop)]


def _decode_all(records: Sequence[Mapping[str, Any]], start: int, size: int, decode: Decode, split: str) -> np.ndarray:
    out = np.empty((len(records), size, size, 3), np.uint8)

    def one(index: int) -> None:
        record = records[index]
        name = record.get("file_name", record.get("key", ""))
        name = name.decode() if isinstance(name, bytes) else name
        out[index] = decode(record["image"], size, where=f"{split} row {start + index} ({name})")

    for _ in _threads().map(one, range(len(records))):  # raises what a thread has raised
        pass
    return out


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Returns a pool of as many threads as cores; the decoder releases the GIL."""
    return ThreadPoolExecutor(max_workers=host.cpu_count(), thread_name_prefix="decode")

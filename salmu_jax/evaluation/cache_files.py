"""Reads and writes the files of the evaluation's caches: a JSON header and raw bytes, each with a digest.

    line 1    SHA-256 of line 2
    line 2    JSON: "schema", "payload" {"bytes", "sha256"}, and the writer's own fields
    the rest  the payload

A run may be killed while it writes a cache, two runs may fill it at once, and its disk may damage it. So a file is written
whole and renamed, never changed in place. Reading compares the digests, and a damaged file counts as absent.

Caches are in ``WORKDIR/cache``. :func:`prune` removes the oldest, but only directories that :func:`claim` has marked as ours
and that no other run holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

SCHEMA = "salmu_jax.cache/1"
MARK = "cache.json"  # in every directory of a cache: what it holds, and that it is ours
_LOCK = ".lock"
_PARTIAL = re.compile(r".+\.partial-[0-9]+-[0-9a-f]{8}", re.DOTALL)  # the names that write() begins with


class Damaged(Exception):
    """Says why a file is not as it was written."""


class CacheFile(NamedTuple):
    """Holds the ``fields`` of the header, and the ``payload``: uint8 [bytes], mapped from the file."""

    fields: dict[str, Any]
    payload: np.ndarray


def write(path: Path, fields: Mapping[str, Any], payload: np.ndarray | None = None) -> None:
    """Writes a file whole. Raises OSError, leaving nothing."""
    data = b"" if payload is None else np.ascontiguousarray(payload).data.cast("B")
    described = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    header = json.dumps({"schema": SCHEMA, "payload": described, **fields}, ensure_ascii=True).encode()
    digest = hashlib.sha256(header).hexdigest().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two runs, even on two machines, may write the same file at once, so their temporary names must differ.
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(partial, "xb") as handle:
            # No fsync: what a power cut destroys is found by its digest, and made again.
            handle.writelines((digest, b"\n", header, b"\n", data))
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def read(path: Path, payload: bool = True) -> CacheFile:
    """Reads a file and compares its digests; without ``payload`` only the header is read, and the payload is empty.

    Raises Damaged for a file that is not as it was written, FileNotFoundError for none.
    """
    try:
        with open(path, "rb") as handle:
            digest, header = handle.readline(80).strip(), handle.readline().removesuffix(b"\n")
            start, size = handle.tell(), os.fstat(handle.fileno()).st_size
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(error.strerror or str(error)) from error
    if hashlib.sha256(header).hexdigest().encode() != digest:
        raise Damaged("its header is not as it was written")
    fields = json.loads(header)
    if fields.get("schema") != SCHEMA:
        raise Damaged(f"its schema is {fields.get('schema')!r}, not {SCHEMA!r}")
    described = fields.pop("payload")
    if size - start != described["bytes"]:
        raise Damaged(f"it holds {size - start:,} bytes of {described['bytes']:,}")
    if not payload or not described["bytes"]:
        return CacheFile(fields, np.zeros(0, np.uint8))
    try:
        mapped = np.memmap(path, np.uint8, "r", offset=start)
        same = hashlib.sha256(mapped).hexdigest() == described["sha256"]
    except OSError as error:
        raise Damaged(error.strerror or str(error)) from error
    if not same:
        raise Damaged("its bytes are not as they were written")
    return CacheFile(fields, mapped)


@contextlib.contextmanager
def claim(directory: Path, about: Mapping[str, Any]) -> Iterator[None]:
    """Makes ``directory`` a cache of ours, and keeps other runs from removing it inside the block.

    Raises InputError for a directory that holds something else.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if not is_ours(directory):
        names = [path.name for path in directory.iterdir() if path.name not in (_LOCK, MARK)]
        if strange := [name for name in names if not _PARTIAL.fullmatch(name)]:
            raise InputError(f"holds '{min(strange)}', which is no cache of ours; move it away", directory)
    with open(directory / _LOCK, "a") as handle:
        with contextlib.suppress(OSError):  # no other run is here: what killed runs have left is useless
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in directory.rglob("*.partial-*"):
                if _PARTIAL.fullmatch(path.name):
                    path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # without locks nothing is ever removed, see _unused
            fcntl.flock(handle, fcntl.LOCK_SH)
        # Only now: a run that is alone removes everything under a temporary name, as the leftovers of a kill.
        if not is_ours(directory):
            files.write_json(directory / MARK, {"schema": SCHEMA, **about})
        with contextlib.suppress(OSError):
            os.utime(directory / MARK)  # when it was last used
        yield


def is_ours(directory: Path) -> bool:
    """Returns whether a directory is a cache of ours."""
    try:
        mark = json.loads((directory / MARK).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(mark, dict) and mark.get("schema") == SCHEMA


def remove(directory: Path) -> bool:
    """Removes a cache of ours, unless a run holds it. Returns whether it is gone.

    Its mark goes last: after a kill the rest is still a cache of ours.
    """
    if not is_ours(directory):
        return not directory.exists()
    try:
        with _unused(directory) as unused:
            if unused:
                for path in directory.iterdir():
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path, ignore_errors=True)
                    elif path.name not in (_LOCK, MARK):
                        path.unlink(missing_ok=True)
                shutil.rmtree(directory, ignore_errors=True)
    except FileNotFoundError:  # another run has removed it
        return True
    return unused


def size_of(directory: Path) -> int:
    """Returns the bytes that the files below a directory take; another run may be removing it."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(parent, name)).st_size
    return total


def prune(root: Path, keep_bytes: int) -> list[Path]:
    """Removes the caches below ``root`` that were used longest ago, until the rest take at most ``keep_bytes``.

    What is not ours is left alone, and so is what another run holds. Returns what was removed.
    """
    used = []
    for directory in root.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another run may remove it meanwhile
            if directory.is_dir() and is_ours(directory):
                used.append(((directory / MARK).stat().st_mtime_ns, directory))
    removed, total = [], 0
    for _, directory in sorted(used, reverse=True):
        size = size_of(directory)
        if total + size <= keep_bytes:
            total += size
            continue
        if remove(directory):
            removed.append(directory)
    return removed


@contextlib.contextmanager
def _unused(directory: Path) -> Iterator[bool]:
    """Yields whether no run holds a cache. Where files cannot be locked, it counts as held."""
    with open(directory / _LOCK, "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True

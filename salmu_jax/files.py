"""Atomic files and directories, and digests of them.

Nothing in this project writes an output in place: a file is written beside its final name, flushed to the disk and
renamed, and a directory is filled under a temporary name and renamed when it is complete. A kill at any moment therefore
leaves the old output, the new one, or none, and at worst a ``*.partial-*`` leftover that the next run removes.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from salmu_jax.json_reader import read_json as read_json  # beside write_json

_PARTIAL = ".partial-"


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes ``data`` to ``path`` atomically, making parent directories. Raises OSError, leaving no partial file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}{_PARTIAL}{os.getpid()}")
    try:
        with open(partial, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 ``text`` to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes ``value`` as JSON to ``path`` atomically; NaN and infinities are refused, since JSON has none."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode("utf-8", "backslashreplace"))  # a file's name need be no UTF-8


@contextlib.contextmanager
def new_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty directory that becomes ``path`` when the block ends well, and disappears when it does not.

    An existing directory ``path`` is replaced; a file there is NotADirectoryError. Leftovers of killed runs beside it are
    removed first, so only one process may build ``path`` at a time (the command line holds a lock on the work directory).
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(path)
    partial = path.with_name(f"{path.name}{_PARTIAL}{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            old = path.with_name(f"{path.name}{_PARTIAL}old-{os.getpid()}")
            os.replace(path, old)
            try:
                os.replace(partial, path)
            except BaseException:
                os.replace(old, path)
                raise
            shutil.rmtree(old)
        else:
            os.replace(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def remove_partials(path: str | os.PathLike) -> None:
    """Removes what killed runs left beside ``path`` under temporary names."""
    path = Path(path)
    for leftover in path.parent.glob(f"{glob.escape(path.name)}{_PARTIAL}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def remove_directory(path: str | os.PathLike) -> None:
    """Removes a directory in one step as far as a later run can see: a kill leaves all of it, or a ``*.partial-*``."""
    path = Path(path)
    doomed = path.with_name(f"{path.name}{_PARTIAL}old-{os.getpid()}")
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def sha256_file(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """The SHA-256 of a JSON value in canonical form (sorted keys, no spaces), in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()  # a file's name need be no UTF-8


def sha256_tree(directory: str | os.PathLike) -> str:
    """One SHA-256 over the relative names and contents of all files below ``directory``, in sorted order."""
    directory = Path(directory)
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return sha256_json([[name, sha256_file(directory / name)] for name in names])

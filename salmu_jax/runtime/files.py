"""Writes files atomically, names temporary files, and computes digests.

Nothing in this project writes an output in place: a file is written beside its final name, flushed to the disk and
renamed, and a directory is filled under a temporary name and renamed when it is complete (``directories.py``). A kill or a
power cut at any moment therefore leaves the old output, the new one, or none, and at worst a leftover that the next run
removes.

We remove and replace only what is ours. A temporary name, ``NAME.partial-PID-MARK``, ends with a mark computed from
the rest of the name, so that a user's ``notes.partial-1`` is not taken for ours. It contains the process id of its
writer, so that the files of a live process are left alone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any

from salmu_jax.runtime.json_reader import read_json as read_json  # beside write_json

_PARTIAL = re.compile(r"(?P<name>.+)\.partial-(?P<old>old-)?(?P<pid>\d+)-(?P<mark>[0-9a-f]{8})")


def partial_path(path: str | os.PathLike, *, old: bool = False, pid: int | None = None) -> Path:
    """Returns the temporary name of process ``pid`` (this one) beside ``path``; ``old``: for what it replaces."""
    path = Path(path)
    begin = f"{path.name}.partial-{'old-' if old else ''}{os.getpid() if pid is None else pid}"
    return path.with_name(f"{begin}-{_mark(begin)}")


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes ``data`` to ``path`` atomically, making parent directories.

    Raises OSError, which names ``path``, leaving no partial file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        with open(partial, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.filename == str(partial):  # users do not know the temporary name
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    sync_directory(path.parent)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 ``text`` to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes ``value`` as JSON to ``path`` atomically; NaN and infinities are refused, since JSON has none."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode("utf-8", "backslashreplace"))  # file names need not be UTF-8


def remove_partials(path: str | os.PathLike) -> None:
    """Removes what killed runs left beside ``path`` under temporary names; follows links.

    Files of a live process are left alone. A directory that was moved aside and not yet replaced is put back.
    """
    path = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    for leftover in find_partials(path.parent):
        if _PARTIAL.fullmatch(leftover.name)["name"] == path.name:
            remove_partial(leftover)


def remove_directory(path: str | os.PathLike) -> None:
    """Removes a directory; a kill leaves the whole directory, or a leftover that the next run removes."""
    doomed = partial_path(path)
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def find_partials(directory: str | os.PathLike) -> list[Path]:
    """Returns the leftovers in ``directory`` (not below it): temporary names of ours whose process has ended."""
    try:
        entries = sorted(Path(directory).iterdir())
    except OSError:
        return []
    return [path for path in entries if _is_leftover(path.name)]


def remove_partial(leftover: Path) -> None:
    """Removes a leftover of :func:`find_partials`, or puts it back if it is the old output and there is no new one."""
    parts = _PARTIAL.fullmatch(leftover.name)
    final = leftover.with_name(parts["name"])
    with contextlib.suppress(OSError):
        if parts["old"] and not os.path.lexists(final):
            os.replace(leftover, final)
        elif leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def sync_directory(path: str | os.PathLike) -> None:
    """Flushes the names in a directory to the disk, so that a rename outlives a power cut."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # unreadable, or the file system does not support this
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(descriptor)


def sync_tree(directory: str | os.PathLike) -> None:
    """Flushes all files below ``directory``, and their names, to the disk.

    Does not follow links or open pipes and sockets: opening a pipe would block until somebody writes to it.
    """
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as handle:
                    os.fsync(handle.fileno())
        sync_directory(parent)


def _mark(begin: str) -> str:
    return hashlib.sha256(f"salmu_jax {begin}".encode(errors="surrogateescape")).hexdigest()[:8]


def _is_leftover(name: str) -> bool:
    parts = _PARTIAL.fullmatch(name)
    if parts is None or parts["mark"] != _mark(name.rpartition("-")[0]):
        return False
    pid = int(parts["pid"])
    return pid == os.getpid() or not is_running(pid)  # our own id in a leftover is an earlier process's


def is_running(pid: int) -> bool:
    """Returns whether a process with this id runs on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True


def sha256_file(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Returns the SHA-256 of a JSON value in canonical form (sorted keys, no spaces), in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()  # file names need not be UTF-8

"""Opens untrusted files: regular files only.

Opening a pipe may wait forever, and a device such as ``/dev/zero`` never ends. Links are followed, since the Hugging Face
hub's cache needs them. A repository cloned without Git LFS has pointers, short texts, instead of its files.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from salmu_jax.runtime.errors import InputError

_GIT_LFS = b"version https://git-lfs"
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def check_regular(path: str | os.PathLike) -> os.stat_result:
    """Returns the status of a regular file. Raises InputError if ``path`` is of another kind, OSError if it is missing."""
    return _checked(os.stat(path), path)


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Opens a regular file for reading bytes.

    Raises InputError if it is of another kind or only a pointer of Git LFS, OSError as :func:`open`.
    """
    check_regular(path)  # before opening, which would block on a pipe
    handle = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 (the caller closes it)
    try:
        _checked(os.fstat(handle.fileno()), path)
        if handle.read(len(_GIT_LFS)) == _GIT_LFS:
            raise InputError("a pointer of Git LFS, not the file itself; run 'git lfs pull', or download it", path)
        handle.seek(0)
    except BaseException:
        handle.close()
        raise
    return handle


def read_at_most(handle: BinaryIO, most: int) -> bytes:
    """Returns at most ``most`` bytes of a file that :func:`open_regular` has opened.

    ``handle.read(most)`` would allocate that many bytes first, however small the file is.
    """
    return handle.read(min(most, os.fstat(handle.fileno()).st_size + 1))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _checked(status: os.stat_result, path: str | os.PathLike) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "no regular file")
        raise InputError(f"it is {kind}; a regular file is needed", path)
    return status

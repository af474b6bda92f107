"""Checks where an output goes before any work: it can be made there, and replaces nothing but an earlier one of the same kind.

Directories that hold a manifest are checked in ``directories.py``; here are single files, and what both have in common.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.opening import open_regular

_HEAD = 512  # bytes of a file, among which its mark is


def output_file(path: Path, where: str, mark: str, inputs: Iterable[Path] = ()) -> Path:
    """Returns the path of a file that may be written, with a link followed.

    Args:
      path: as given.
      where: the option that it was given in.
      mark: a text at the beginning of all files that the same command writes. A file with it is replaced.
      inputs: directories and files that the command reads.

    Raises InputError: something else is there; it is an input or lies in one; no file can be made there.
    """
    named = f"{where} {path}"
    if path.is_dir():
        raise InputError("is a directory; the name of a file is needed", named)
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    for given in inputs:
        if path.resolve() == given.resolve():
            raise InputError("is read by this command; another file is needed", named)
        if path.resolve().is_relative_to(given.resolve()):
            raise InputError(f"lies in {given}, which is read; a file elsewhere is needed", named)
    if path.exists() and not path.is_file():
        raise InputError("is not a regular file; another name is needed", named)
    if path.exists() and not _has(path, mark):
        raise InputError(
            "is there, and this command did not write it, so it is not replaced; choose another name", named
        )
    check_directory(path.parent, named)
    return path


def check_directory(directory: Path, where: str) -> None:
    """Raises InputError if a directory can neither be made nor written to; ``where`` names it in messages."""
    there = directory.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise InputError(f"{there} is no directory, and one is needed; choose another path", where)
    if not os.access(there, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
        raise InputError(describe_os_error(OSError(code, os.strerror(code)), there))


def _has(path: Path, mark: str) -> bool:
    try:
        with open_regular(path) as handle:
            return mark.encode() in handle.read(_HEAD)
    except OSError as error:
        raise InputError(describe_os_error(error, path)) from error

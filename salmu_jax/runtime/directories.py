"""Writes directories: fills them under a temporary name, renames them when complete, and never replaces a user's.

A directory is ours if it holds one of our manifests (``contents.py``). Files in it that the manifest does not name are a
user's, and are kept when the directory is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from salmu_jax.runtime import contents, files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import listed


@contextlib.contextmanager
def new_directory(path: str | os.PathLike, *, say: Callable[[str], None] = print) -> Iterator[Path]:
    """Yields an empty directory that becomes ``path`` if the block succeeds, and is removed if it fails.

    An existing directory ``path`` is replaced if it is ours. Files in it that its manifest does not name are a user's: they
    are kept in the new one, and ``say`` is called with a line. A link is followed, and stays. Leftovers of killed runs beside
    ``path`` are removed first, so only one process may write it at a time (the command line locks the work directory).

    Raises:
      NotADirectoryError: ``path`` is a file.
      InputError: the directory is not ours, a mount point, or behind a link that leads nowhere.
    """
    path = check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.remove_partials(path)
    partial, old = files.partial_path(path), files.partial_path(path, old=True)
    partial.mkdir()
    try:
        yield partial
        strays = contents.strays(path) if path.is_dir() else []
        for name in strays or ():
            _keep(path / name, partial / name)
        files.sync_tree(partial)
        if path.exists():
            os.replace(path, old)
            try:
                os.replace(partial, path)
            except BaseException:
                os.replace(old, path)
                raise
            files.sync_directory(path.parent)
            if strays is None:
                aside = _free_name(path)
                os.replace(old, aside)
            else:
                shutil.rmtree(old)
        else:
            os.replace(partial, path)
            files.sync_directory(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if strays is None:
        say(
            f"{path}: the one before had a damaged manifest, so it is unknown which files are a user's: kept as {aside}"
        )
    elif strays:
        say(f"{path}: kept {listed(strays)}, which salmu did not write")


def check_replaceable(path: str | os.PathLike) -> Path:
    """Checks that the directory ``path`` may be replaced, and returns it with links resolved.

    Raises NotADirectoryError for a file, and InputError for a user's directory, a mount point, or a dangling link.
    """
    path = Path(path)
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if not target.exists() and not target.parent.is_dir():
            raise InputError(f"is a link to {target}, which is not there; is its disk mounted?", path)
        path = target
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if os.path.ismount(path):
        raise InputError(
            "is a mount point, and an output is replaced as a whole; make it a link to a directory on that disk", path
        )
    if not contents.is_ours(path):
        some = listed(sorted(entry.name for entry in path.iterdir()), 3)
        raise InputError(
            f"holds {some}, and no manifest says that salmu wrote it, so it is not replaced; move it away, or choose"
            " another directory",
            path,
        )
    return path


def _keep(source: Path, target: Path) -> None:
    """Links or copies a user's file into the new directory; the old directory keeps it until it is removed."""
    if os.path.lexists(target):  # the new output has a file with this name
        target = target.with_name(f"{target.name}.kept")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _free_name(path: Path) -> Path:
    numbers = (path.with_name(f"{path.name}.old-{number}") for number in itertools.count(1))
    return next(name for name in numbers if not os.path.lexists(name))

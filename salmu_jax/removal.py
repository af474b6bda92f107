"""Directories that somebody removes under a run: one line that names what is gone, whatever libraries make of it.

A library that misses a file says so in its own words (``d: no such file``, an empty RuntimeError, a page of TensorStore), and
the name in them is rarely one that its user knows.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from salmu_jax import contents
from salmu_jax.errors import InputError, Preempted
from salmu_jax.messages import listed


@contextlib.contextmanager
def named(held: Mapping[Path, Iterable[str]], line: Callable[[Path, str], InputError]) -> Iterator[None]:
    """Turns any failure inside ``with`` into ``line(path, what was removed)`` if one of ``held`` has lost a file.

    Args:
      held: files and directories that are needed inside the block; of a directory also the names of what it has to hold.
      line: makes the error; ``what was removed`` is ``"was removed"``, or with names, ``"a, b and 3 more were removed"``.

    A run that has been told to stop, and has saved its state, ends as it would.
    """
    from salmu_jax.training.distributed import RemoteInputError

    try:
        yield
    except (Preempted, RemoteInputError):
        raise
    except Exception as error:
        for path, names in held.items():
            if what := removed(path, names):
                raise line(path, what) from error
        raise


def names_in(path: Path) -> list[str]:
    """Returns what a directory has to hold by its manifest; nothing if it has none of ours."""
    held = contents.read_contents(path) if path.is_dir() else None
    return list(held["files"]) if held else []


def removed(path: Path, names: Iterable[str] = ()) -> str:
    """Returns what of a file or directory is not there, as a part of a sentence; empty if all of it is."""
    if not os.path.lexists(path):
        return "was removed"
    gone = [name for name in names if not os.path.exists(path / name)]
    return f"{listed(gone, 3)} {'was' if len(gone) == 1 else 'were'} removed" if gone else ""

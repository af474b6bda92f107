"""Reports, in one line, a directory or file that was removed while a run used it.

Libraries report a missing file in their own ways (``d: no such file``, an empty RuntimeError, a page of TensorStore), rarely
with a name that the user knows.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from salmu_jax.runtime import contents
from salmu_jax.runtime.errors import InputError, Preempted
from salmu_jax.runtime.messages import listed


@contextlib.contextmanager
def named(held: Mapping[Path, Iterable[str]], line: Callable[[Path, str], InputError]) -> Iterator[None]:
    """Replaces any failure inside ``with`` by ``line(path, what)`` if one of ``held`` has lost a file.

    Args:
      held: the files and directories that the block needs, each with the names of the files that a directory must hold.
      line: makes the error; ``what`` is ``"was removed"``, or with names ``"a, b, c, and 3 more were removed"``.

    :class:`Preempted` is passed on unchanged: the run has saved its state.
    """
    from salmu_jax.runtime.distributed import RemoteInputError

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
    """Returns the files that a directory must hold by its manifest; none without our manifest."""
    held = contents.read_contents(path) if path.is_dir() else None
    return list(held["files"]) if held else []


def removed(path: Path, names: Iterable[str] = ()) -> str:
    """Returns which part of a file or directory is missing, as part of a sentence; empty if none is."""
    if not os.path.lexists(path):
        return "was removed"
    gone = [name for name in names if not os.path.exists(path / name)]
    return f"{listed(gone, 3)} {'was' if len(gone) == 1 else 'were'} removed" if gone else ""

"""Withholds files of this package from unlearning methods: what a probe asks with must not be what a method trained on.

The files are in the package, since evaluations read them. A method's process calls :func:`withhold` before it loads a
method's code; from then on, opening one of them raises. A sandbox hides their directory as well.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from salmu_jax.runtime.errors import InputError

DIRECTORY = Path(__file__).resolve().parents[1] / "evaluation" / "probes" / "withheld"


def withhold() -> None:
    """Makes Python refuse to open any file of :data:`DIRECTORY` in this process, under any path, until the process ends.

    It is an audit hook, which cannot be removed. Opening then raises InputError. Programs that the process starts, and
    libraries that open files without Python, are not covered (``docs/permissions.md``).
    """
    names = frozenset(os.listdir(DIRECTORY)) if DIRECTORY.is_dir() else frozenset()  # a sandbox may have hidden it
    files = frozenset(filter(None, (_file(DIRECTORY / name) for name in names)))

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.fsdecode(arguments[0])
        if os.path.basename(path) in names or _file(path) in files:
            raise InputError("no method may read it: probes ask with it whether a model has forgotten", path)

    sys.addaudithook(refuse)


def _file(path: str | os.PathLike) -> tuple[int, int] | None:
    """Returns what identifies a file under all of its names, or None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino

"""Makes touching what no method may read an error: data on disk, models on disk, and the files of the evaluation.

For runs in this process over pairs in memory, which have nothing to open: whatever a method opens of ours is out of bounds.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import data_pipelines.builders.source
import data_pipelines.input
from salmu_jax.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
DATA_OF_THE_EVALUATION = ROOT / "salmu_jax" / "evaluation"  # its schemas, and wordings that methods must not know
_OPENING = ("open", "os.listdir", "os.scandir", "os.rename", "os.link", "shutil.copyfile")
_CODE = (".py", ".pyc")

_closed: list[str] = []  # directories; the hook can be installed once, and never be removed


class TouchedError(AssertionError):
    """A method has touched what it may not read."""


@contextlib.contextmanager
def out_of_bounds(*directories: Path) -> Iterator[None]:
    """Raises TouchedError where anything below ``directories``, or of the evaluation's data, is opened.

    So do opening a split of built data sets, and loading a model.
    """
    _install()

    def refuse(*arguments, **options):
        raise TouchedError(f"{arguments}")

    patched = [
        mock.patch.object(data_pipelines.builders.source, "open_source", refuse),
        mock.patch.object(data_pipelines.input, "open_source", refuse),
        *(mock.patch.object(checkpoint, name, refuse) for name in ("load_model", "read_manifest")),
    ]
    with contextlib.ExitStack() as stack:
        for patch in patched:
            stack.enter_context(patch)
        _closed.extend(str(path.resolve()) for path in (*directories, DATA_OF_THE_EVALUATION))
        try:
            yield
        finally:
            _closed.clear()


def _hook(event: str, arguments: tuple) -> None:
    if _closed and event in _OPENING:
        for path in arguments[:2]:
            if isinstance(path, str | bytes | os.PathLike):
                place = os.path.realpath(os.fsdecode(path))
                if f"{place}/".startswith(tuple(f"{one}/" for one in _closed)) and not place.endswith(_CODE):
                    raise TouchedError(f"{event} {place}")


@functools.cache
def _install() -> None:
    sys.addaudithook(_hook)

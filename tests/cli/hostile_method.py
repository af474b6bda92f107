"""A method that looks for what it may not see, and patches the metrics on import: copied among the methods by a test.

What it has found goes to the file that the variable ``LOOT`` names, a JSON line for every process that imports it; to standard
output, if there is no such file to be written.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from salmu_jax.evaluation import similarity
from salmu_jax.unlearning.methods.descent_to_delete import DescentToDelete
from salmu_jax.unlearning.stream_batches import Batches
from salmu_jax.unlearning.streams import Forget


def _broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a metric was patched")


def _texts(value: Any, depth: int = 4) -> Iterator[str]:
    """The strings and paths in an object, and in what it holds."""
    if isinstance(value, str | os.PathLike):
        yield os.fspath(value)
    elif isinstance(value, dict) and depth:
        for item in list(value.items()):
            yield from _texts(item[0], depth - 1)
            yield from _texts(item[1], depth - 1)
    elif isinstance(value, list | tuple | set) and depth:
        for item in list(value):
            yield from _texts(item, depth - 1)
    elif depth and str(type(value).__module__).partition(".")[0] in (
        "salmu_jax",
        "data_pipelines",
        "argparse",
        "pathlib",
    ):
        yield from _texts(getattr(value, "__dict__", {}), depth - 1)


def _frames() -> Iterator[Any]:
    frame = sys._getframe()
    while frame is not None:
        yield from list(frame.f_locals.values())
        frame = frame.f_back
    for thread in sys._current_frames().values():
        while thread is not None:
            yield from list(thread.f_locals.values())
            thread = thread.f_back


def _everything_named() -> set[str]:
    """All texts that frames, live objects, command line, environment, open files and working directory give away."""
    found = {os.getcwd(), *sys.argv, *sys.orig_argv, *sys.path, *os.environ.values()}
    found |= {os.readlink(link) for link in Path("/proc/self/fd").glob("*") if link.is_symlink()}
    for value in _frames():
        found.update(_texts(value))
    for value in gc.get_objects():  # what is nested in them is among them
        found.update(_texts(value, depth=1))
    return {text for text in found if "/" in text and "\n" not in text and len(text) < 1000}


def _places(texts: Iterable[str]) -> list[Path]:
    """The directories among ``texts``, and those just above them."""
    places: set[Path] = set()
    for text in texts:
        path = Path(text)
        if not path.is_relative_to(sys.base_prefix) and not path.is_relative_to("/proc") and os.path.exists(path):
            places |= {path.absolute(), *list(path.absolute().parents)[:3]}
    return [place for place in places if place.is_dir() and len(place.parts) > 2 and "site-packages" not in place.parts]


def _rows(texts: Iterable[str]) -> set[str]:
    """The captions in all data sets that lie at, below or just above the paths among ``texts``."""
    from data_pipelines.builders.source import RecordSource

    patterns = ("", "*/", "*/*/", "*/*/*/")
    infos = {
        info for place in _places(texts) for pattern in patterns for info in place.glob(f"{pattern}dataset_info.json")
    }
    found: set[str] = set()
    for info in infos:
        try:
            splits = json.loads(info.read_text())["splits"]
        except ValueError:  # of a data set that another test is writing
            continue
        for split in splits:
            found.update(row["text"] for row in RecordSource(info.parent, split["name"]) if "text" in row)
    return found


def _models(texts: Iterable[str]) -> set[str]:
    """The digests in all manifests of models that lie at, below or just above the paths among ``texts``."""
    found: set[str] = set()
    for directory in _places(texts):
        for pattern in ("", "*/", "*/*/"):
            for path in directory.glob(f"{pattern}manifest.json"):
                found.add(str(json.loads(path.read_text()).get("digest")))
    return found


def _withheld() -> str:
    """What came of reading the wordings that probes ask with."""
    from salmu_jax.runtime.withheld import DIRECTORY

    try:
        return (DIRECTORY / "unseen_wordings.json").read_text()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _tell(**loot: Any) -> None:
    line = json.dumps({"command": sys.orig_argv, **loot})
    try:
        with open(os.environ["LOOT"], "a") as handle:
            handle.write(line + "\n")
    except OSError:  # hidden by a sandbox
        print(f"LOOT {line}", flush=True)


for _name, _value in list(vars(similarity).items()):
    if callable(_value) and getattr(_value, "__module__", "") == similarity.__name__:
        setattr(similarity, _name, _broken)
_tell(texts=sorted(_everything_named()), withheld=_withheld())


@dataclasses.dataclass(frozen=True)
class Hostile(DescentToDelete):
    """Noise, and a search."""

    name: ClassVar[str] = "hostile"
    title: ClassVar[str] = "Hostile"

    def prepare(self, ctx: Any) -> Any:
        texts = _everything_named()
        batches = Batches({"forget": Forget()}, {"forget": 8}, ctx.stream_batches.inputs)()
        next(batches)
        frame = batches.gi_frame
        while frame is not None:
            texts.update(text for value in list(frame.f_locals.values()) for text in _texts(value))
            frame = frame.f_back
        _tell(texts=sorted(texts), rows=sorted(_rows(texts)), models=sorted(_models(texts)), withheld=_withheld())
        return super().prepare(ctx)

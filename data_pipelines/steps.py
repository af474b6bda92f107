"""Runs one step of making a data set: files in a directory of the step's own, with a report, resumable file by file.

    step.json    what the step was asked for, and the SHA-256 of each file that is finished: {"schema", "step", "complete",
                 "settings", "files"}
    report.json  counts and distributions, for people; written last

A finished file is kept if its bytes are as recorded and the step is asked for the same; so a killed step goes on where it was.
Asked for something else, it says what has changed and makes everything again. Files that it did not write are kept. One
process may run a step at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines import parallel
from salmu_jax.runtime import files, identity
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import parse_json

SCHEMA = "salmu_jax.step/1"
MANIFEST, REPORT = "step.json", "report.json"
EVERY = 30.0  # seconds between lines of progress


def run_step(
    directory: str | os.PathLike,
    step: str,
    settings: Mapping[str, Any],
    parts: Mapping[str, Callable[[], bytes]],
    report: Callable[[], Mapping[str, Any]],
    *,
    workers: int = 1,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Makes what is missing of a step, and returns its manifest, which is the same for every number of workers.

    Args:
      directory: the step's own; new, empty, or of an earlier run of the step.
      step: the name of the step.
      settings: all that the files depend on, as JSON: seeds, sizes, digests of inputs, versions.
      parts: what makes the content of each file, by its name. A part may not depend on which others are made.
      report: called when all files are there.
      workers: processes that make parts at the same time; with two or more, parts are pickled.
      say: called with a line when files of an earlier run are not used, and, in long work, with the progress.

    Raises:
      InputError: the directory has files but is not this step's.
      OSError: writing fails; what was finished is kept.
    """
    directory = Path(directory)
    settings = json.loads(json.dumps(settings))
    before = _begun(directory, step)
    kept = dict(before["files"]) if before else {}
    if before and kept and before["settings"] != settings:
        changed = "; ".join(identity.changes(before["settings"], settings))
        say(f"{directory}: made again, since this has changed: {changed}")
        _forget(directory, kept)
        kept = {}
    done = {name: kept[name] for name in parts if name in kept and _is(directory / name, kept[name])}
    missing = [name for name in parts if name not in done]
    manifest = {"schema": SCHEMA, "step": step, "complete": False, "settings": settings, "files": done}
    progress = _Progress(step, len(missing), say)
    jobs = [(directory / name, parts[name]) for name in missing]
    with _begun_for(directory, step, done), parallel.written(jobs, workers) as written:
        for index, digest in written:
            done[missing[index]] = digest
            files.write_json(directory / MANIFEST, manifest)
            progress.one_more()
    manifest["files"] = done = {name: done[name] for name in parts}
    _forget(directory, {name: digest for name, digest in kept.items() if name not in done})
    files.write_json(directory / REPORT, report())
    manifest["complete"] = True
    files.write_json(directory / MANIFEST, manifest)
    return manifest


def begin_step(directory: str | os.PathLike, step: str) -> bool:
    """Makes the directory a step's; returns whether it was not before.

    Other steps may then run in directories below it, before it runs itself. Raises InputError as :func:`run_step`.
    """
    is_new = _begun(Path(directory), step) is None
    for leftover in files.find_partials(directory):
        files.remove_partial(leftover)
    if is_new:
        manifest = {"schema": SCHEMA, "step": step, "complete": False, "settings": {}, "files": {}}
        files.write_json(Path(directory) / MANIFEST, manifest)
    return is_new


@contextlib.contextmanager
def _begun_for(directory: Path, step: str, done: dict[str, str]) -> Iterator[None]:
    """Begins a step before its first file is written, lest a kill in between leave files of nobody's.

    Bad input that is found before anything is ``done`` leaves no directory behind.
    """
    is_new = begin_step(directory, step)
    try:
        yield
    except Exception:
        if is_new and not done:
            (directory / MANIFEST).unlink()
            with contextlib.suppress(OSError):
                directory.rmdir()
        raise


def step_lines(directory: str | os.PathLike, step: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (where it is, object) for each line of a finished step's JSONL files, in the order of the files.

    Raises InputError for a step that is not complete, and for a file that is not as it was written.
    """
    directory = Path(directory)
    for name, digest in finished(directory, step)["files"].items():
        path = checked(directory / name, step, digest)
        with open(path, "rb") as handle:
            for number, line in enumerate(handle, 1):
                where = f"{path} line {number}"
                yield where, parse_json(line, where)


def finished(directory: str | os.PathLike, step: str) -> dict[str, Any]:
    """Returns the manifest of a step. Raises InputError for one that is not complete."""
    manifest = _begun(Path(directory), step)
    if manifest is None or not manifest["complete"]:
        raise InputError(f"the step {step!r} has not been finished; run it first", directory)
    return manifest


def checked(path: Path, step: str, digest: str) -> Path:
    """Returns ``path``. Raises InputError unless the file has this SHA-256."""
    if not _is(path, digest):
        raise InputError(f"is not as the step {step!r} wrote it; run the step again", path)
    return path


def step_digest(directory: str | os.PathLike, step: str) -> str:
    """Returns one SHA-256 over the names and digests of a step's files. Raises InputError for a step that is not there."""
    manifest = _begun(Path(directory), step)
    if manifest is None:
        raise InputError(f"the step {step!r} has not been run; run it first", directory)
    return files.sha256_json(sorted(manifest["files"].items()))


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    """Returns rows as UTF-8 JSON, one a line."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def _begun(directory: Path, step: str) -> dict[str, Any] | None:
    """Returns the manifest of an earlier run; None if the directory is new or empty."""
    path = directory / MANIFEST
    if not path.is_file():
        if directory.is_dir() and set(directory.iterdir()) - set(files.find_partials(directory)):
            raise InputError(f"has files, but no {MANIFEST}: not a step's; choose a new directory", directory)
        return None
    manifest = files.read_json(path)
    known = isinstance(manifest, dict) and manifest.get("schema") == SCHEMA
    if not known or manifest.get("step") != step or not isinstance(manifest.get("files"), dict):
        raise InputError(f"is not the manifest of the step {step!r}; choose a new directory", path)
    return manifest


def _forget(directory: Path, written: Mapping[str, str]) -> None:
    """Removes files that an earlier run wrote, unless somebody has changed them since."""
    for name, digest in written.items():
        if _is(directory / name, digest):
            (directory / name).unlink()


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and files.sha256_file(path) == digest


class _Progress:
    """Says how far a step is, every half a minute."""

    def __init__(self, step: str, total: int, say: Callable[[str], None]):
        self._step, self._total, self._say = step, total, say
        self._done, self._start = 0, time.monotonic()
        self._last = self._start

    def one_more(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._last >= EVERY:
            self._last = now
            left = (now - self._start) / self._done * (self._total - self._done)
            self._say(f"{self._step}: {self._done:,} of {self._total:,} files, about {left / 60:.0f} min left")

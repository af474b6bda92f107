"""The work directory of a run: where each stage's output lies, and when it may be reused.

    runs/mini/
      world/               generate       (absent when the config names a world_dir)
      datasets/            build
      models/clean/ ...    pretrain, unlearn: one directory a model; NAME.state/ beside it while it is being made
      results/NAME.json    evaluate: one file a model
      report/index.html    report
      logs/NAME/           pretrain: event files and traces, where they were asked for
      stages/*.json        what each output was made from

A stage is identified by a digest of the config fields that it depends on and of its inputs. Its output is reused when the
recorded identity is the present one and the output is as it was left (file names, sizes, and the contents of small files).

With several processes, process 0 holds the lock, keeps the records, and decides for all what is reused.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import salmu_jax
from salmu_jax import console, files
from salmu_jax.errors import InputError
from salmu_jax.locks import Busy, Lock
from salmu_jax.text import safe_text, safe_value
from salmu_jax.training import distributed

_SMALL = 1 << 20  # bytes; larger files are recognised by name and size


class Workspace:
    """Paths of a run, its lock, and the records of its stages."""

    def __init__(self, config: ConfigDict):
        self.config = config
        self.root = Path(config.workdir)
        self.world = Path(config.world_dir) if config.world_dir else self.root / "world"
        self.datasets = self.root / "datasets"
        self.report = self.root / "report"
        self._lock: Any = None

    def model(self, name: str) -> Path:
        """The directory of a finished model."""
        return self.root / "models" / name

    def model_state(self, name: str) -> Path:
        """The directory of the state of a model that is being made."""
        return self.root / "models" / f"{name}.state"

    def states(self, name: str) -> str:
        """Where the states of a model that is being made go instead, as ``train.state_dir`` has it; empty: nowhere else."""
        directory = self.config.train.state_dir
        return f"{directory.rstrip('/')}/{name}.state" if directory else ""

    def logs(self, name: str) -> Path:
        """Where event files and traces of a model's training go."""
        return self.root / "logs" / name

    def result(self, name: str) -> Path:
        """The result file of a model."""
        return self.root / "results" / f"{name}.json"

    @contextlib.contextmanager
    def locked(self, shared: bool = False) -> Iterator[bool]:
        """Holds the work directory for this process. Raises InputError if another run has it or it cannot be written.

        With ``shared``, other runs that share it may be at work there too. Yields whether nobody else is; then this run has
        the directory to itself until it calls :meth:`share`.
        """
        with Lock(self.root / ".lock", directory=True) as held:

            def lock() -> bool:
                self._lock = held
                try:
                    return held.take(shared)
                except Busy as error:
                    who = f" ({error})" if str(error) else ""
                    raise InputError(
                        f"another salmu run is at work in this directory{who}; wait for it, or set 'workdir'", self.root
                    ) from error

            yield distributed.from_main(lock)

    def share(self) -> None:
        """Lets other runs that share the work directory in."""
        distributed.from_main(self._lock.share)

    @contextlib.contextmanager
    def result_locked(self, name: str) -> Iterator[None]:
        """Holds a result for this process. Raises InputError if another run is making it."""
        with Lock(self.result(name).with_name(f".{name}.lock")) as held:

            def lock() -> None:
                try:
                    held.take()
                except Busy as error:
                    raise InputError("another salmu run is making it; wait for it", self.result(name)) from error

            distributed.from_main(lock)
            yield

    @contextlib.contextmanager
    def stage(self, name: str, output: Path, fields: Mapping[str, Any]) -> Iterator[str | None]:
        """Yields the stage's identity, or None when ``output`` is complete and made from the same ``fields``.

        The caller leaves the block at once on None. When the block ends well, ``output`` is recorded as complete.
        """
        record_path = self.root / "stages" / f"{name.replace(' ', '-')}.json"
        fields = {"version": salmu_jax.__version__, **fields}

        def begin() -> str | None:
            identity = files.sha256_json(fields)
            record = _read_record(record_path)
            same = bool(record) and record["identity"] == identity
            if same and output.exists() and record["output"] == fingerprint(output):
                say(f"{name}: reused, {output} is complete and of the same config")
                return None
            if record and not same and output.exists():
                say(f"{name}: made anew, {_changes(record['fields'], fields)} changed since {output} was made")
            say(f"{name}: ...")
            record_path.unlink(missing_ok=True)
            return identity

        began = time.monotonic()
        identity = distributed.from_main(begin)
        yield identity
        if identity is None:
            return

        def end() -> None:
            seconds = round(time.monotonic() - began, 1)
            made = {"identity": identity, "fields": fields, "seconds": seconds, "output": fingerprint(output)}
            files.write_json(record_path, {"stage": name, **made})
            say(f"{name}: {seconds:.1f} s, {output}")

        distributed.from_main(end)

    def stage_seconds(self) -> dict[str, float]:
        """Seconds that each recorded stage took, in the order in which they ended."""
        paths = sorted((self.root / "stages").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        records = [record for record in map(_read_record, paths) if record]
        return {record["stage"]: record["seconds"] for record in records}


def fingerprint(path: Path) -> str | None:
    """A digest that tells whether a file or directory is as it was left; None if it is not there."""
    if path.is_file():
        return files.sha256_file(path)
    if not path.is_dir():
        return None
    entries = []
    for file in sorted(path.rglob("*")):
        if file.is_file():
            size = file.stat().st_size
            entries.append(
                [file.relative_to(path).as_posix(), size, files.sha256_file(file) if size < _SMALL else None]
            )
    return files.sha256_json(entries)


def devices() -> str:
    """The devices that this process computes on, ``8 x TPU v4 (tpu)``."""
    import jax

    return f"{jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()})"


def provenance(config: Mapping[str, Any], device: str | None = None) -> dict[str, Any]:
    """What an output was made with: config, versions, command, devices (None: this process's), and the time of day."""
    packages = (
        "jax",
        "flax",
        "optax",
        "orbax-checkpoint",
        "grain",
        "tensorflow-datasets",
        "numpy",
        "tokenizers",
        "pillow",
    )
    versions = {"salmu_jax": salmu_jax.__version__, "python": platform.python_version()}
    versions |= {package: importlib.metadata.version(package) for package in packages}
    return {
        "config": safe_value(config),  # the name of a directory need be no text
        "versions": versions,
        "command": safe_text(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]), limit=None),
        "device": device or devices(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def say(line: str) -> None:
    """Prints a line of a run's story, from process 0 only."""
    if distributed.is_main():
        console.say(line)


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = files.read_json(path)
    except (OSError, InputError):
        return None
    whole = isinstance(record, dict) and record.keys() >= {"stage", "identity", "fields", "seconds", "output"}
    return record if whole else None


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The names of the fields that differ, ``train.epochs, world.seed``."""

    def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(tree, Mapping):
            return {
                k: v
                for key, value in tree.items()
                for k, v in flat(value, f"{prefix}.{key}" if prefix else key).items()
            }
        return {prefix: tree}

    before, after = flat(old), flat(new)
    return (
        ", ".join(sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key)))
        or "its inputs"
    )

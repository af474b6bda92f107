"""Manages a work directory: where each stage's output is, and when it is reused.

    runs/mini/
      world/               generate       (absent when the config names a world_dir)
      datasets/            build
      models/clean/ ...    pretrain, unlearn: one directory per model; NAME.state/ beside it until it is complete
      results/NAME.json    evaluate: one file per model
      cache/               evaluate: decoded images and embeddings; may be deleted at any time
      report/index.html    report
      logs/NAME/           event files and traces, if asked for
      stages/*.json        what each output was made from; seen.json: digests of files, to read each only once

An output that is current (``currency.py``) is reused. Otherwise it is made again, and a line says why. The old record is
replaced only when the new output is complete, so an interrupted attempt costs nothing.

With ``datasets_dir``, several work directories share data sets there. The first one that needs them builds them,
and nobody replaces them while another one reads them. Data sets of another world, or built by other code, are refused, not
replaced.

With several processes, process 0 holds the lock, writes the records, and decides for all which outputs are reused.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import itertools
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

import salmu_jax
from salmu_jax.runtime import console, distributed, host, removal
from salmu_jax.runtime.currency import Currency
from salmu_jax.runtime.directories import check_replaceable
from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.identity import ROOT, Identity
from salmu_jax.runtime.locks import Busy, Lock
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.text import safe_text, safe_value

_OUTPUTS = ("models", "results", "report", "stages", "logs", "cache")


class _Made(NamedTuple):
    """A stage and its output; see :meth:`Workspace.stage`."""

    name: str
    output: Path
    identity: Identity
    inputs: tuple[Path, ...]
    beside: tuple[Path, ...]
    asked: Any

    @property
    def outputs(self) -> list[Path]:
        return [self.output, *self.beside]


class Workspace:
    """Holds the paths of a work directory, its lock, and the records of its stages."""

    def __init__(self, config: ConfigDict):
        self.config = config
        self.root = Path(config.workdir)
        self.world = Path(config.world_dir) if config.world_dir else self.root / "world"
        shared = Path(config.datasets_dir) if config.datasets_dir else None
        self.datasets = shared or self.root / "datasets"
        self.currency = Currency(self.root, shared)
        self.report = self.root / "report"
        self.rerun = False  # make every output again, even if current
        self.unfinished = ""  # for an unfinished run of another config: resume, restart, or empty to stop
        self._lock: Lock | None = None

    @property
    def outermost(self) -> Path:
        """The directory that everything of this work directory lies in: what methods work beside."""
        return self.root

    @property
    def place_of_cells(self) -> Path:
        """The directory to make the cells of methods in, see ``unlearning/cells.py``: beside the work directory."""
        return self.outermost.resolve().parent

    @property
    def hidden(self) -> list[str]:
        """The directories that must stay hidden from methods."""
        config = self.config
        state_dir = "" if "://" in config.train.state_dir else config.train.state_dir
        named = (
            config.workdir,
            config.world_dir,
            config.zeroshot_dir,
            config.retain_dir,
            config.datasets_dir,
            state_dir,
        )
        return [path for path in named if path]

    def model(self, name: str) -> Path:
        """Returns the directory of a finished model."""
        return self.root / "models" / name

    def model_state(self, name: str) -> Path:
        """Returns the directory of an unfinished model's checkpoints."""
        return self.root / "models" / f"{name}.state"

    def states(self, name: str) -> str:
        """Returns the directory in ``train.state_dir`` for an unfinished model's checkpoints; empty if there is none."""
        directory = self.config.train.state_dir
        return f"{directory.rstrip('/')}/{name}.state" if directory else ""

    def logs(self, name: str) -> Path:
        """Returns the directory of event files and traces of a model's training."""
        return self.root / "logs" / name

    def result(self, name: str) -> Path:
        """Returns the result file of a model."""
        return self.root / "results" / f"{name}.json"

    @contextlib.contextmanager
    def locked(self, shared: bool = False) -> Iterator[bool]:
        """Locks the work directory. Raises InputError if another run holds it or it cannot be written.

        With ``shared``, several runs may share it. Yields whether this run is alone; it then holds the directory
        exclusively until it calls :meth:`share`.
        """
        with Lock(self.root / ".lock", directory=True) as held:

            def lock() -> bool:
                self._lock = held
                return _take(held, self.root, shared)

            yield distributed.from_main(lock)

    def share(self) -> None:
        """Lets other runs share the work directory."""
        distributed.from_main(lambda: self._lock.share())  # only process 0 holds it

    @contextlib.contextmanager
    def result_locked(self, name: str) -> Iterator[None]:
        """Locks a result. Raises InputError if another run is making it."""
        with Lock(self.result(name).with_name(f".{name}.lock")) as held:

            def lock() -> None:
                try:
                    held.take()
                except Busy as error:
                    raise InputError("another salmu run is making it; wait for it", self.result(name)) from error

            distributed.from_main(lock)
            yield

    @contextlib.contextmanager
    def stage(
        self,
        name: str,
        output: Path,
        fields: Mapping[str, Any],
        *,
        inputs: Sequence[Path] = (),
        beside: Sequence[Path] = (),
        asked: Any = None,
    ) -> Iterator[Identity | None]:
        """Yields the stage's identity, or None if ``output`` is intact and has the same identity.

        On None, the caller leaves the block at once. If the block succeeds, ``output`` is recorded as complete.

        Args:
          name: of the stage, and of its record.
          output: the file or directory that it makes.
          fields: what the output is made from: JSON values by name.
          inputs: directories (or files) that it reads, none of which may be the output or lie in it.
          beside: files that it writes besides ``output``.
          asked: a JSON value to keep in the record, outside of the identity.

        Raises:
          InputError: an input lies in the output; the output is not ours to replace; an input was removed meanwhile.
        """
        made = _Made(name, output, Identity(fields), tuple(inputs), tuple(beside), asked)
        began = time.monotonic()
        with Lock(self.datasets.with_name(f".{self.datasets.name}.lock")) as held_data:
            agreed = distributed.from_main(functools.partial(self._begin, made, held_data))
            if agreed is None:
                yield None
                return
            held = {path: removal.names_in(path) for path in inputs}
            removed = functools.partial(self._removed, name, _inode(self.root))
            with held_data.removed_if_refused(unless=self.datasets), removal.named(held, removed):
                yield Identity(agreed)  # all processes use the fields of process 0
            distributed.from_main(functools.partial(self._end, made, began, held, removed))

    def _begin(self, made: _Made, held_data: Lock) -> Mapping[str, Any] | None:
        """Says what the stage does, and returns its fields; None if its output is current."""
        name, output = made.name, made.output
        _check_inputs(output, made.inputs)
        _check_replaceable(output)
        builds, reads = output == self.datasets, self.datasets in made.inputs
        alone = self._hold_datasets(name, held_data, builds) if builds or reads else True
        again = self.rerun and output.exists()
        reasons = ["as --rerun asks"] if again else self.currency.reasons(name, made.identity, made.outputs, made.asked)
        if builds and reasons != []:
            self._check_replaceable_for_others(reasons, alone)
        if reasons == []:
            say(f"{name}: reused, {output} is complete and up to date")
            return None
        if reasons:
            say(f"{name}: made again, {listed(reasons)}")
        say(f"{name}: ...")
        return made.identity.fields

    def _end(
        self,
        made: _Made,
        began: float,
        held: Mapping[Path, Iterable[str]],
        removed: Callable[[Path, str], InputError],
    ) -> None:
        """Records the output as complete."""
        seconds = round(time.monotonic() - began, 1)
        self.currency.keep(made.name, made.identity, seconds, made.outputs, made.asked)
        say(f"{made.name}: {seconds:.1f} s, {made.output}")
        for path, names in held.items():  # they were read or opened before, so the output is complete
            if what := removal.removed(path, names):
                say(f"warning: {removed(path, what)}")

    def _hold_datasets(self, name: str, lock: Lock, builds: bool) -> bool:
        """Locks the data sets, waiting for another run that builds them; returns whether nobody else reads them.

        Data sets that somebody else keeps, in a directory that cannot be written to, need no lock.
        """
        place = self.datasets.parent
        if place.is_dir() and not os.access(place, os.W_OK):
            return True
        for attempt in itertools.count():
            try:
                alone = lock.take(shared=True)
            except Busy as error:
                if attempt == 5:  # a lock that is only looked at is held for a moment
                    who = f" ({error})" if str(error) else ""
                    say(f"{name}: waits for another salmu run that builds {self.datasets}{who}")
                time.sleep(0.2)
            else:
                if not builds:
                    lock.share()
                return alone
        raise AssertionError

    def _check_replaceable_for_others(self, reasons: Sequence[str] | None, alone: bool) -> None:
        """Raises InputError if another work directory reads the data sets to be made again, or made them differently."""
        if not alone:
            raise InputError(
                f"is read by another salmu run, and has to be made again ({listed(reasons or ['it is missing'])}); wait for"
                " that run, or set another datasets_dir",
                self.datasets,
            )
        changed = [reason for reason in reasons or () if reason.startswith(("changed since", "nothing says"))]
        if self.config.datasets_dir and changed:
            raise InputError(
                f"{listed(changed)}; it may be shared by other work directories, so set another datasets_dir, or --rerun to"
                " build it again",
                self.datasets,
            )

    @property
    def outputs(self) -> list[Path]:
        """All outputs of the stages except a made world."""
        return [self.datasets, *(self.root / name for name in _OUTPUTS)]

    def _removed(self, name: str, root: tuple[int, int] | None, path: Path, what: str) -> InputError:
        """Returns the error of a stage whose input, or whole work directory, somebody has removed."""
        if root is not None and _inode(self.root) != root:  # a library may have created another one in its place
            return InputError(f"was removed while '{name}' worked in it; put it back, or begin again", self.root)
        again = {self.datasets: "'salmu build' makes it again", self.root / "world": "'salmu generate' makes it again"}
        return InputError(f"{what} while '{name}' read it; {again.get(path, 'put it back, or make it again')}", path)


@contextlib.contextmanager
def held_around(path: Path) -> Iterator[None]:
    """Locks the work directory that contains ``path``, if there is one, so as not to disturb a run there."""
    above = path.absolute().parents[:3]
    roots = [parent for parent in above if (parent / ".lock").is_file() and (parent / "stages").is_dir()]
    if not roots:
        yield
        return
    with Lock(roots[0] / ".lock", directory=True) as held:
        _take(held, roots[0])
        yield


def _take(lock: Lock, root: Path, shared: bool = False) -> bool:
    try:
        return lock.take(shared)
    except Busy as error:
        who = f" ({error})" if str(error) else ""
        raise InputError(
            f"another salmu run is at work in this directory{who}; wait for it, or set 'workdir'", root
        ) from error


def _inode(path: Path) -> tuple[int, int] | None:
    """Returns the device and inode of a directory, which tell it from a replacement; None if there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _check_inputs(output: Path, inputs: Sequence[Path]) -> None:
    place = output.resolve()
    for path in inputs:
        if path.resolve() == place or place in path.resolve().parents:
            raise InputError(f"lies in {output}, which would be replaced; it has to lie elsewhere", path)


def _check_replaceable(output: Path) -> None:
    """Raises InputError if the output to be replaced is not ours, before hours go into the new one."""
    if output.suffix == ".json":
        if output.is_file() and b'"salmu_jax.' not in output.read_bytes():
            raise InputError("is not a result of salmu, so it is not replaced; move it away", output)
        return
    try:
        check_replaceable(output)
    except OSError as error:
        raise InputError(describe_os_error(error, output)) from error


def devices() -> str:
    """Returns the devices of this process, such as ``8 x TPU v4 (tpu)``."""
    import jax

    return f"{jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()})"


def provenance(config: Mapping[str, Any], device: str | None = None) -> dict[str, Any]:
    """Returns what an output is made with: config, versions, command, time, and ``device`` (None: this process's)."""
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
    for package in ("simplejpeg", "cykooz-resizer"):  # not on all platforms (models/fast_jpeg.py)
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "config": safe_value(config),  # directory names need not be valid text
        "versions": versions,
        "command": safe_text(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]), limit=None),
        "device": device or devices(),
        "environment": host.numeric_environment(),
        "git": git_state(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Returns the commit of the package's checkout, and whether tracked files differ from it; None outside of one."""
    if not (ROOT / ".git").exists():
        return None

    def ask(*words: str) -> str:
        quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            quiet.pop(name, None)
        command = ["git", "-C", str(ROOT), *words]
        options = {"capture_output": True, "text": True, "check": True, "timeout": 10, "env": quiet}
        return subprocess.run(command, stdin=subprocess.DEVNULL, **options).stdout.strip()

    try:
        commit = ask("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):  # no git, or another user's checkout
        return None


def say(line: str) -> None:
    """Prints a line, from process 0 only."""
    if distributed.is_main():
        console.say(line)

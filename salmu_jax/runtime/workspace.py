"""The work directory of a run: where each stage's output is, and when it is reused.

    runs/mini/
      world/               generate       (absent when the config names a world_dir)
      datasets/            build
      models/clean/ ...    pretrain, unlearn: one directory a model; NAME.state/ beside it while it is being made
      results/NAME.json    evaluate: one file a model
      cache/               evaluate: decoded images and embeddings; may be deleted at any time
      report/index.html    report
      logs/NAME/           pretrain: event files and traces, where they were asked for
      stages/*.json        what each output was made from; seen.json: digests of files, to read each only once

An output is reused if it was made from the same values, code and inputs (``identity.py``) and is intact: its manifest names
every file with its digest (``contents.py``). Otherwise it is made again, and a line says why. The old record is replaced only
when the new output is complete, so an interrupted attempt costs nothing.

With several processes, process 0 holds the lock, writes the records, and decides for all what is reused.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import salmu_jax
from salmu_jax.runtime import console, contents, distributed, files, host, removal
from salmu_jax.runtime.directories import check_replaceable
from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.identity import ROOT, Identity
from salmu_jax.runtime.locks import Busy, Lock
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.text import safe_text, safe_value

_OUTPUTS = ("datasets", "models", "results", "report", "stages", "logs", "cache")


class Workspace:
    """Paths of a run, its lock, and the records of its stages."""

    def __init__(self, config: ConfigDict):
        self.config = config
        self.root = Path(config.workdir)
        self.world = Path(config.world_dir) if config.world_dir else self.root / "world"
        self.datasets = self.root / "datasets"
        self.report = self.root / "report"
        self.rerun = False  # make every output again, whatever is there
        self.unfinished = ""  # what to do with an unfinished run of another config: resume, restart, or empty: ask
        self._lock: Lock | None = None

    def model(self, name: str) -> Path:
        """Returns the directory of a finished model."""
        return self.root / "models" / name

    def model_state(self, name: str) -> Path:
        """Returns the directory of the states of a model under way."""
        return self.root / "models" / f"{name}.state"

    def states(self, name: str) -> str:
        """Returns the directory in ``train.state_dir`` for the states of a model under way; empty if there is none."""
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
        distributed.from_main(lambda: self._lock.share())  # process 0 alone has it

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
        """Yields the stage's identity, or None when ``output`` is intact and of the same identity.

        The caller leaves the block at once on None. When the block ends well, ``output`` is recorded as complete.

        Args:
          name: of the stage, and of its record.
          output: the file or directory that it makes.
          fields: what the output is made from: JSON values by name.
          inputs: directories (or files) that it reads, none of which may be the output or lie in it.
          beside: files that it writes besides ``output``.
          asked: a JSON value to keep in the record, outside of the identity.

        Raises:
          InputError: an input lies in the output; the output is not ours to replace; an input has been removed meanwhile.
        """
        identity = Identity(fields)

        def begin() -> dict[str, Any] | None:
            _check_inputs(output, inputs)
            _check_replaceable(output)
            reasons = self._reasons(name, identity, [output, *beside], asked)
            if reasons == []:
                say(f"{name}: reused, {output} is complete and of the same config")
                return None
            if reasons:
                say(f"{name}: made again, {listed(reasons)}")
            say(f"{name}: ...")
            return dict(fields)

        began = time.monotonic()
        agreed = distributed.from_main(begin)  # the fields of process 0 are those of all
        if agreed is None:
            yield None
            return
        held = {path: removal.names_in(path) for path in inputs}
        removed = functools.partial(self._removed, name, _inode(self.root))
        with removal.named(held, removed):
            yield Identity(agreed)

        def end() -> None:
            seconds = round(time.monotonic() - began, 1)
            self._record(name, identity, seconds, [output, *beside], asked)
            say(f"{name}: {seconds:.1f} s, {output}")
            for path, names in held.items():  # all had been read or opened before, so that the output is whole
                if what := removal.removed(path, names):
                    say(f"warning: {removed(path, what)}")

        distributed.from_main(end)

    def record(self, name: str) -> dict[str, Any] | None:
        """Returns the record of a stage: its ``fields`` and its ``output``; None if there is none that can be read."""
        return _read_record(self._record_path(name))

    def damage(self, directory: Path, *prefixes: str) -> list[str]:
        """Returns what is wrong with a directory of ours, or with its parts ``prefixes``, a line a file.

        Files are read only if they have changed since they were last read.
        """
        held = contents.read_contents(directory)
        if held is None or not contents.seal_holds(directory):
            return ["its manifest is missing or damaged"]
        named = held["files"]
        if prefixes:
            named = {name: named[name] for name in named if name.partition("/")[0] in prefixes}
        with self._seen(directory) as seen:
            return contents.problems(directory, {**held, "files": named}, seen)

    def foreign_digest(self, directory: Path) -> str:
        """Returns a digest of the contents of a world that has no manifest: of all files but hidden ones and Markdown.

        Our own outputs are left out where they lie in it. Links are followed, and files are read only if they have changed.
        """
        outputs = [(self.root / name).resolve() for name in _OUTPUTS]
        others = contents.other_names(directory)
        with self._seen(directory) as seen:
            found = {
                # A dangling link counts as content: the build has to run, and refuses it.
                name: contents.digest_of(directory / name, seen, name) if name not in others else "no file"
                for name in [*contents.file_names(directory), *others]
                if not any(part.startswith(".") for part in name.split("/"))
                and not name.endswith((".md", ".lock"))
                and not any(Path(os.path.realpath(directory / name)).is_relative_to(path) for path in outputs)
            }
        return files.sha256_json(found)

    @contextlib.contextmanager
    def _seen(self, directory: Path) -> Iterator[contents.Seen]:
        """Yields the digests of files of ``directory`` read before; keeps those that the block adds."""
        path, key = self.root / "stages" / "seen.json", str(directory.resolve())
        try:
            known = files.read_json(path)
        except (OSError, InputError):
            known = {}
        known = known if isinstance(known, dict) else {}
        before = known.get(key)
        seen = dict(before) if isinstance(before, dict) else {}
        yield seen
        if seen != before and self.root.is_dir():
            files.write_json(path, {**known, key: seen})

    def _removed(self, name: str, root: tuple[int, int] | None, path: Path, what: str) -> InputError:
        """Returns the end of a stage under which somebody has removed an input, or the work directory with it."""
        if root is not None and _inode(self.root) != root:  # a library may have made another one in its place
            return InputError(f"was removed while '{name}' worked in it; put it back, or begin again", self.root)
        again = {self.datasets: "'salmu build' makes it again", self.root / "world": "'salmu generate' makes it again"}
        return InputError(f"{what} while '{name}' read it; {again.get(path, 'put it back, or make it again')}", path)

    def _reasons(self, name: str, identity: Identity, outputs: Sequence[Path], asked: Any) -> list[str] | None:
        """Returns why a stage has to run: an empty list if it has not, None if there is no output."""
        output = outputs[0]
        if not output.exists():
            return None
        if self.rerun:
            return ["as --rerun asks"]
        record = self.record(name)
        # A kill between a model and its record leaves a model whose own manifest says what it was made from.
        adopted = (record is None or record["identity"] != identity.digest) and _identity_in(output) == identity.digest
        if not adopted:
            if record is None:
                return [f"nothing says what {output} was made from"]
            if record["identity"] != identity.digest:
                return [f"changed since {output} was made: {listed(identity.changes(record['fields']))}"]
        if damage := self._damage(outputs, {} if adopted else record["output"]):
            self._record_path(name).unlink(missing_ok=True)  # a model of the same identity may take its place
            return [f"{output}: {listed(damage)}"]
        if adopted:
            self._record(name, identity, 0.0, outputs, asked)
        return []

    def _damage(self, outputs: Sequence[Path], recorded: Mapping[str, str | None]) -> list[str]:
        """Returns which files of a stage's outputs are not as they were written."""
        output = outputs[0]
        if output.is_dir() and (damage := self.damage(output)):
            return damage
        now = output_state(outputs)
        names = [name for name in sorted({*recorded, *now}) if recorded and recorded.get(name) != now.get(name)]
        if output.is_dir() and names:
            return ["holds other files than were written"]
        return [f"{name} is {'missing' if now.get(name) is None else 'not as it was written'}" for name in names]

    def _record(self, name: str, identity: Identity, seconds: float, outputs: Sequence[Path], asked: Any) -> None:
        made = {"stage": name, "identity": identity.digest, "fields": identity.fields, "seconds": seconds}
        made |= {"output": output_state(outputs)} | ({} if asked is None else {"asked": asked})
        files.write_json(self._record_path(name), made)

    def _record_path(self, name: str) -> Path:
        return self.root / "stages" / f"{name.replace(' ', '-')}.json"

    def stage_seconds(self) -> dict[str, float]:
        """Returns the seconds that each recorded stage took, in the order in which they ended."""
        paths = sorted((self.root / "stages").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        records = [record for record in map(_read_record, paths) if record]
        return {record["stage"]: record["seconds"] for record in records}


@contextlib.contextmanager
def held_around(path: Path) -> Iterator[None]:
    """Locks the work directory that contains ``path``, if there is one, so that no run there is disturbed."""
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


def output_state(outputs: Sequence[Path]) -> dict[str, str | None]:
    """Returns the digests of files, and of the manifests of directories, by name."""
    return {path.name: _digest_of(path) for path in outputs}


def _digest_of(path: Path) -> str | None:
    if path.is_file():
        return files.sha256_file(path)
    held = contents.read_contents(path) if path.is_dir() else None
    return None if held is None else files.sha256_json([contents.contents_digest(held), contents.manifest_digest(path)])


def _identity_in(output: Path) -> str | None:
    """Returns the identity in a model's own manifest."""
    try:
        manifest = files.read_json(output / "manifest.json")
    except (OSError, InputError):
        return None
    return manifest.get("identity") if isinstance(manifest, dict) else None


def _inode(path: Path) -> tuple[int, int] | None:
    """Returns what tells a directory from another one in its place; None if there is none."""
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
    """Raises InputError if the output to be replaced is not ours, before hours are spent on the new one."""
    if output.suffix == ".json":
        if output.is_file() and b'"salmu_jax.' not in output.read_bytes():
            raise InputError("is not a result of salmu, so it is not replaced; move it away", output)
        return
    try:
        check_replaceable(output)
    except OSError as error:
        raise InputError(describe_os_error(error, output)) from error


def devices() -> str:
    """Returns the devices of this process, ``8 x TPU v4 (tpu)``."""
    import jax

    return f"{jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()})"


def provenance(config: Mapping[str, Any], device: str | None = None) -> dict[str, Any]:
    """Returns what an output was made with: config, versions, command, devices (None: this process's) and time."""
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


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = files.read_json(path)
    except (OSError, InputError):
        return None
    whole = isinstance(record, dict) and record.keys() >= {"stage", "identity", "fields", "seconds", "output"}
    return record if whole else None

"""Keeps the states of unfinished runs: each run has its own directory, named by its identity.

    models/clean.state/0123456789ab/run.json        the fields of the run's identity
    models/clean.state/0123456789ab/200/            its states (state_store.py)
    models/clean.state/0123456789ab/metrics.jsonl   its metrics so far

With ``train.state_dir`` the states, and a copy of ``run.json``, are in ``STATE_DIR/clean.state/0123456789ab/`` instead;
several work directories may share a ``STATE_DIR``.

A run resumes from its own states. If it has none, but an unfinished run with another config, code or data has left some, it
stops and says what differs: hours of training are at stake, and only the user can decide whether to resume from them
(``--resume``) or to begin at step 0 (``--restart``). Neither option removes them.

States that outlive their run (in ``STATE_DIR``, or kept by ``train.keep_every``) get a file ``finished`` once the model is
written. ``--rerun`` renames such a directory to ``0123456789ab.finished-1`` and begins at step 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

import salmu_jax
from salmu_jax.runtime import distributed, files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import Identity
from salmu_jax.runtime.locks import Busy, Lock
from salmu_jax.runtime.messages import listed
from salmu_jax.training.state_store import StateStore, state_path
from salmu_jax.training.stopping import SavePolicy

RUN_SCHEMA = "salmu_jax.run/1"
RESUME, RESTART = "resume", "restart"

_RUN, _FINISHED = "run.json", "finished"
_LENGTH = 12  # characters of an identity that name a directory


@dataclasses.dataclass(frozen=True)
class Other:
    """An unfinished run with another identity."""

    directory: str
    step: int  # of its newest state
    identity: str = ""
    changes: tuple[str, ...] = ()  # from it to this run
    created: str = ""


@dataclasses.dataclass(frozen=True)
class States:
    """The states of one run.

    Args:
      root: ``models/NAME.state``, for the metrics, and for the states if ``shared`` is empty.
      identity: of the run.
      label: names the run in messages.
      shared: ``STATE_DIR/NAME.state``, possibly in a bucket, or empty.
      owner: identifies this work directory among those that share ``shared``.
      unfinished: ``resume`` or ``restart``, what to do if only other runs have left states; empty: stop and ask.
      rerun: begin at step 0 if this run has finished before; an unfinished one is resumed.

    A local ``shared`` directory is locked while a run uses its states. A bucket has no locks: two work directories that run
    the same training there at the same time damage each other's states.
    """

    root: Path
    identity: Identity
    label: str
    shared: str = ""
    owner: str = ""
    unfinished: str = ""
    rerun: bool = False

    @property
    def directory(self) -> Path:
        """The directory for this run's metrics, and for its states if ``shared`` is empty."""
        return self.root / self.identity.digest[:_LENGTH]

    def begin(self) -> Other | None:
        """Makes this run's directory, and returns the other run to resume from, if any. All processes have to call this.

        Raises InputError if only a run with another identity has left states and ``unfinished`` is empty.
        """
        other = distributed.from_main(self._begin)
        return None if other is None else Other(**{**other, "changes": tuple(other["changes"])})

    @contextlib.contextmanager
    def opened(self, policy: SavePolicy, *, stride: int, other: Other | None = None) -> Iterator[StateStore]:
        """Opens the store of this run's states; if it has none, it restores those of ``other``."""
        with contextlib.ExitStack() as held:
            held.callback(self._lock().release)
            before = None
            if other is not None:
                before = StateStore(other.directory, other.identity, read_only=True)
                held.callback(before.close)
            store = StateStore(self._location(), self.identity.digest, policy, stride=stride, before=before)
            held.callback(store.close)
            yield store

    def remove(self) -> None:
        """Removes this run's states and metrics from the work directory, and nothing else; call this once the model exists."""

        def remove() -> None:
            if (self.directory / _RUN).is_file():
                files.remove_directory(self.directory)
            with contextlib.suppress(OSError):  # not empty: states of other runs
                self.root.rmdir()

        distributed.from_main(remove)

    def finish(self) -> None:
        """Marks kept states as those of a finished run, so that no other run stops and asks about them."""

        def mark() -> None:
            location = self._location()
            if (location / _RUN).exists() and not (location / _FINISHED).exists():
                with contextlib.suppress(InputError), self._lock():  # another work directory may be running the same
                    (location / _FINISHED).write_text("")

        distributed.from_main(mark)

    def _lock(self) -> Lock:
        """Takes the lock on shared states. Raises InputError in all processes if another run holds it."""
        lock = Lock(Path(self._location()) / ".lock")

        def take() -> None:
            try:
                lock.take()
            except Busy as error:
                raise InputError(
                    f"{self.label}: another run is using the same states; wait for it, or set another train.state_dir",
                    self._location(),
                ) from error

        if self.shared and "://" not in self.shared:
            distributed.from_main(take)
        return lock

    def _put_aside(self, location: epath.Path) -> None:
        """Renames the directory of a finished run, so that this one begins at step 0."""
        if not (location / _FINISHED).exists():
            return
        names = (location.parent / f"{location.name}.finished-{number}" for number in itertools.count(1))
        with self._lock():
            location.rename(next(name for name in names if not name.exists()))

    def _location(self) -> epath.Path:
        root = state_path(self.shared) if self.shared else epath.Path(self.root.absolute())
        return root / self.identity.digest[:_LENGTH]

    def _begin(self) -> dict[str, Any] | None:
        location = self._location()
        if self.rerun:
            self._put_aside(location)
        others = [] if _newest(location) is not None else self._others(location)
        if others and not self.unfinished:
            raise InputError(self._question(others[0], len(others)), others[0].directory)
        about = {
            "schema": RUN_SCHEMA,
            "label": self.label,
            "identity": self.identity.digest,
            "fields": self.identity.fields,
            "owner": self.owner,
            "version": salmu_jax.__version__,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        for directory in dict.fromkeys((epath.Path(self.directory), location)):
            if not (directory / _RUN).exists():
                directory.mkdir(parents=True, exist_ok=True)
                if "://" in str(directory):
                    (directory / _RUN).write_text(json.dumps(about))
                else:
                    files.write_json(directory / _RUN, about)
        if not others or self.unfinished == RESTART:
            return None
        return dataclasses.asdict(others[0])

    def _others(self, location: epath.Path) -> list[Other]:
        """Returns the unfinished runs of this work directory with other identities, the latest first."""
        found = []
        for root, ours in dict.fromkeys(((epath.Path(self.root), True), (location.parent, not self.shared))):
            if not root.is_dir():
                continue
            for directory in (root, *(path for path in root.iterdir() if path.is_dir() and not path.name.isdecimal())):
                step = _newest(directory)
                about = _about(directory)
                if directory == location or step is None or (directory / _FINISHED).exists():
                    continue
                if not (ours or about.get("owner") == self.owner):
                    continue
                fields = about.get("fields")
                changes = (
                    self.identity.changes(fields)
                    if isinstance(fields, Mapping)
                    else ["it does not record what it was made from"]
                )
                known = {"identity": str(about.get("identity", "")), "created": str(about.get("created", ""))}
                found.append(Other(str(directory), step, changes=tuple(changes), **known))
        return sorted(found, key=lambda other: (other.created, other.step), reverse=True)

    def _question(self, other: Other, count: int) -> str:
        more = f" (and {count - 1} more)" if count > 1 else ""
        return (
            f"{self.label}: an unfinished training was saved here at step {other.step:,}{more}, and has changed since:"
            f" {listed(list(other.changes))}; add --resume to resume from it all the same, or --restart to begin at step 0"
            " (nothing is removed)"
        )


def _newest(directory: epath.Path) -> int | None:
    """Returns the newest step with a state in a directory, or None."""
    try:
        steps = [int(path.name) for path in directory.iterdir() if path.name.isdecimal()]
    except (FileNotFoundError, NotADirectoryError):
        return None
    return max(steps, default=None)


def _about(directory: epath.Path) -> dict[str, Any]:
    try:
        about = json.loads((directory / _RUN).read_text())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) and about.get("schema") == RUN_SCHEMA else {}

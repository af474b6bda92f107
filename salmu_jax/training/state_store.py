"""The states of a run: what it goes on from when it was killed.

A state (parameters, optimizer and step, from which the position in the data follows) is saved as one, by Orbax, in the
background::

    NAME.state/200/state/           the arrays, each process's parts written by itself
    NAME.state/200/meta/metadata    which run it is of, and a record a leaf: shape, dtype, digest
    NAME.state/200/files.json       the size of every file, written before the step is committed

Orbax's array payloads carry no checksum, so that a flipped bit restores silently; an empty directory counts as a step; and
nothing falls back by itself. Here every file's size and every leaf's digest is compared at restore, all problems of a step
are listed in one warning, and the next older step is tried. What is restored need not lie as it was saved: the template
says over which devices, of how many processes. All processes restore the same step, or none.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from salmu_jax import files
from salmu_jax.errors import InputError
from salmu_jax.messages import first_line, listed
from salmu_jax.training import distributed
from salmu_jax.training.records import (
    Records,
    device_records,
    leaf_path,
    mismatches,
    shape_records,
    without_digests,
)
from salmu_jax.training.stopping import SavePolicy

STATE_SCHEMA = "salmu_jax.state/2"

_INVENTORY = "files.json"
# What Python, TensorStore and Orbax say of a file that is not there any more.
_GONE = re.compile(r"FileNotFoundError|NOT_FOUND|No such file|not found|does not exist|are missing", re.IGNORECASE)
_AT_COMMIT = {_INVENTORY, "_CHECKPOINT_METADATA", "commit_success.txt"}  # written after the inventory is taken

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every save at the warning level


class StateStore:
    """The states of one run, by step.

    Args:
      directory: a local one, or ``gs://BUCKET/PATH``, which all processes see.
      identity: the digest of what the run is (config, code and inputs): states of another run in ``directory`` are ignored
        and kept.
      policy: which states are kept.
      stride: steps between which a state can be saved (the steps of a device call).
      warn: gets a line for every state that cannot be used, in process 0.
      before: where to begin if this store has no state that can be used.
      read_only: nothing is written or removed.

    Raises:
      InputError: a ``gs://`` directory without gcsfs.
    """

    def __init__(
        self,
        directory: str | Path | epath.Path,
        identity: str,
        policy: SavePolicy = SavePolicy(),  # noqa: B008 (frozen)
        *,
        stride: int = 1,
        warn: Callable[[str], None] = print,
        before: StateStore | None = None,
        read_only: bool = False,
    ):
        self.directory, self.policy = state_path(directory), policy
        self._identity, self._stride, self._warn = identity, stride, warn
        self._before = before
        self._useless: set[int] = set()  # damaged ones, until there is something better
        self._foreign: set[int] = set()  # steps of other runs
        self._saving: int | None = None
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_inventory),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        # As long as it is open, no directory that takes its place is mistaken for it.
        self._held = None if "://" in str(self.directory) else os.open(self.directory, os.O_RDONLY)

    def save(self, step: int, state: Any) -> None:
        """Begins to save ``state`` as of ``step``. Once it returns, the buffers of ``state`` may be donated.

        The step appears whole, when the writing in the background is done; the one before is done by the time this is. All
        processes have to call it. Raises what went wrong with the one before (a full disk), and InputError if somebody has
        removed the directory.
        """
        self.wait()
        self._check_there()
        if step in self._manager.all_steps():  # a damaged one: the run has come by again
            with self._line_if_removed():
                self._manager.delete(step)
        self._useless.discard(step)
        leaves = {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
        meta = {"schema": STATE_SCHEMA, "identity": self._identity, "step": step, "leaves": device_records(leaves)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(leaves), meta=ocp.args.JsonSave(meta))
        self._saving = step
        with self._line_if_removed():
            self._manager.save(step, args=args, force=True)

    def restore(self, template: Any) -> Any | None:
        """The newest intact state of this run, with the structure and shardings of ``template``; None if there is none.

        A state that cannot be used is named in a warning together with all that is wrong with it, and the next older one is
        tried. ``template`` holds arrays, or ``jax.ShapeDtypeStruct``s with shardings. All processes have to call it.
        """
        for step in distributed.from_main(lambda: sorted(self._manager.all_steps(), reverse=True)):
            try:
                return self._restore_step(step, template)
            except _OtherRun:
                self._foreign.add(step)
            except _Damaged as damaged:
                self._useless.add(step)
                if distributed.is_main():
                    where = self.directory / str(step)
                    self._warn(f"warning: {where} cannot be used ({damaged}); trying an older one")
        if self._before is None:
            return None
        state = self._before.restore(template)
        if state is None:
            raise InputError("no state there can be gone on from; --restart begins at step 0", self._before.directory)
        return state

    def wait(self) -> None:
        """Waits until what is being saved is saved."""
        with self._line_if_removed():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for what is being written, and ends the threads behind."""
        try:
            with self._line_if_removed():
                self._manager.close()
        finally:
            if self._held is not None:
                os.close(self._held)
                self._held = None

    @contextlib.contextmanager
    def _line_if_removed(self) -> Iterator[None]:
        """Raises InputError, in one line, for a failure because somebody has removed the directory or files in it."""
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds, pages long
            self._check_there()
            if self._held is not None and _GONE.search(f"{type(error).__name__} {error}"):
                message = "files in it were removed while it was written to; the same command goes on from what is left"
                raise InputError(message, self.directory) from error
            raise

    def _check_there(self) -> None:
        """Raises InputError if somebody has removed the directory; a library may have made another one."""
        there = self.directory.exists()
        if there and self._held is not None:
            there = os.path.samestat(os.fstat(self._held), os.stat(self.directory))
        if not there:
            raise InputError("was removed while it was written to; the same command begins again", self.directory)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which of the ``checkpoints`` to keep: Orbax asks, after every save."""
        ours = [info.step for info in checkpoints if info.step not in self._useless | self._foreign]
        kept = {*self._foreign, *ours[-self.policy.keep_last :]}
        kept |= {step for step in ours if self.policy.is_milestone(step, self._stride)}
        return [info.step in kept for info in checkpoints]

    def _write_inventory(self) -> None:
        """Writes the sizes of all files of the step that is about to be committed. Orbax calls it, in process 0."""
        name = str(self._saving)
        for path in self.directory.iterdir():
            if path.name == name or path.name.startswith(f"{name}.orbax-checkpoint-tmp"):
                (path / _INVENTORY).write_text(json.dumps(_sizes(path)))
                if "://" not in str(path):
                    files.sync_tree(Path(path))

    def _restore_step(self, step: int, template: Any) -> Any:
        told = distributed.from_main(lambda: self._examine(step, template))
        if told["problems"]:
            raise _Damaged(listed(told["problems"], separator="; "))
        if not told["ours"]:
            raise _OtherRun
        read: dict[str, jax.Array] = {}
        problem = ""
        try:
            read = _read_arrays(self.directory / str(step) / "state", template)
        except Exception as error:  # Orbax and TensorStore raise many kinds, pages long
            problem = f"its arrays cannot be read: {first_line(error)}"
        if problems := sorted(filter(None, set(distributed.from_all(problem)))):
            raise _Damaged("; ".join(problems))
        if problems := mismatches(told["leaves"], device_records(read)):
            raise _Damaged(listed(problems, separator="; "))
        leaves = [read[leaf_path(path)] for path, _ in jax.tree_util.tree_leaves_with_path(template)]
        return jax.tree.unflatten(jax.tree.structure(template), leaves)

    def _examine(self, step: int, template: Any) -> dict[str, Any]:
        """What can be said of a step without reading its arrays."""
        told: dict[str, Any] = {"problems": [], "ours": True, "leaves": {}}
        directory, problems = self.directory / str(step), []
        try:
            if not any(directory.iterdir()):
                return {**told, "problems": ["it is an empty directory"]}
            problems = _damaged_files(directory)
            metadata = directory / "meta" / "metadata"
            if not metadata.exists():
                return {**told, "problems": problems or ["meta/metadata is missing"]}
            meta = json.loads(metadata.read_text())
            if not isinstance(meta, dict) or meta.get("schema") != STATE_SCHEMA:
                found = meta.get("schema") if isinstance(meta, dict) else meta
                return {**told, "problems": [*problems, f"it is of schema {found!r}, not {STATE_SCHEMA!r}"]}
            if self._identity and meta.get("identity") != self._identity:
                return {**told, "ours": False}
            records: Records = meta["leaves"]
            problems += mismatches(shape_records(template), without_digests(records))
            return {**told, "problems": problems, "leaves": records}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return {**told, "problems": problems or [f"meta/metadata cannot be read: {first_line(error)}"]}


class _OtherRun(Exception):
    """The state was saved by a run of another config."""


class _Damaged(Exception):
    """All that is wrong with a state, in one line."""


def state_path(directory: str | Path | epath.Path) -> epath.Path:
    """An absolute path, or one of a bucket as it stands. Raises InputError if nothing installed can read buckets."""
    path = epath.Path(directory)
    if "://" not in str(path):
        return epath.Path(Path(path).absolute())
    try:
        path.exists()
    except ImportError as error:
        raise InputError("buckets are read through gcsfs, which is not installed: pip install gcsfs", path) from error
    return path


def local_checkpointer() -> ocp.Checkpointer:
    """An Orbax checkpointer that reads or writes in this process alone, waiting for no other."""
    alone = alone_options()
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def alone_options() -> ocp.options.MultiprocessingOptions:
    """What tells Orbax that this process works alone."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=str(me))


def _read_arrays(directory: epath.Path, template: Any) -> dict[str, jax.Array]:
    """The arrays by path, each where the template's lies. It waits for no other process, so that one may fail alone."""

    def target(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

    leaves = {leaf_path(path): target(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(template)}
    with local_checkpointer() as checkpointer:
        return checkpointer.restore(directory, args=ocp.args.StandardRestore(leaves))


def _sizes(directory: epath.Path) -> dict[str, int]:
    """Bytes of every file below ``directory``, by its path in it."""
    sizes: dict[str, int] = {}
    waiting = [directory]
    while waiting:
        for path in waiting.pop().iterdir():
            if path.is_dir():
                waiting.append(path)
            elif path.name not in _AT_COMMIT:
                sizes[path.relative_to(directory).as_posix()] = path.stat().length
    return dict(sorted(sizes.items()))


def _damaged_files(directory: epath.Path) -> list[str]:
    """What differs from the inventory, if there is one: it is there to name the damage, the digests find it in any case."""
    inventory: Any = None
    with contextlib.suppress(OSError, ValueError):
        inventory = json.loads((directory / _INVENTORY).read_text())
    if not isinstance(inventory, dict) or not all(type(size) is int for size in inventory.values()):
        return []
    found = _sizes(directory)
    problems = [f"{name} is missing" for name in inventory if name not in found]
    for name in inventory.keys() & found.keys():
        if found[name] < inventory[name]:
            problems.append(f"{name} is cut off after {found[name]:,} of {inventory[name]:,} bytes")
        elif found[name] > inventory[name]:
            problems.append(f"{name} has {found[name]:,} bytes, not {inventory[name]:,}")
    return sorted(problems)

"""Saves and restores the states of a run, from which it resumes after a kill.

Orbax saves a state (parameters, optimizer state, and the step, which gives the position in the data) in the background::

    NAME.state/200/state/           the arrays; each process writes its own shards
    NAME.state/200/meta/metadata    the run's identity, and a record a leaf: shape, dtype, digest
    NAME.state/200/files.json       the size of every file, written before the step is committed

Orbax's array payloads have no checksum, so a flipped bit restores silently; it takes an empty directory for a step; and it has
no fallback. Restoring here compares the size of every file and the digest of every leaf, lists all problems of a step in one
warning, and tries the next older step. The devices and processes need not be those that saved the state: the template gives
the shardings. All processes restore the same step, or none.
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

from salmu_jax.runtime import distributed, files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import first_line, listed
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
      directory: a local one, or ``gs://BUCKET/PATH``; all processes have to see it.
      identity: the digest of the run's config, code and inputs; states of other runs in ``directory`` are ignored and kept.
      policy: which states are kept.
      stride: the steps of a device call; states can be saved only between calls.
      warn: called with one line for every state that cannot be used, in process 0.
      before: the store to restore from if this one has no usable state.
      read_only: write and remove nothing.

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
        self._useless: set[int] = set()  # damaged steps, kept until a better one exists
        self._foreign: set[int] = set()  # steps of other runs
        self._saving: int | None = None
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_inventory),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        # While this is open, another directory of the same name cannot be mistaken for it.
        self._held = None if "://" in str(self.directory) else os.open(self.directory, os.O_RDONLY)

    def save(self, step: int, state: Any) -> None:
        """Starts to save ``state`` as of ``step``. Once this returns, the buffers of ``state`` may be donated.

        The step appears, complete, when the background write is done; this first waits for the previous one. All processes
        have to call it. Raises the error of the previous save (a full disk), and InputError if the directory was removed.
        """
        self.wait()
        self._check_there()
        if step in self._manager.all_steps():  # it was damaged, and the run has reached it again
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
        """Restores the newest intact state of this run, with the structure and shardings of ``template``, or returns None.

        If a state cannot be used, a warning lists what is wrong with it, and the next older one is tried. ``template`` holds
        arrays, or ``jax.ShapeDtypeStruct``s with shardings. All processes have to call this.

        Raises InputError if there is no state of this run, and none of ``before`` can be used.
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
            raise InputError("no state there can be resumed from; --restart begins at step 0", self._before.directory)
        return state

    def wait(self) -> None:
        """Waits until the current save is complete."""
        with self._line_if_removed():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the current save, and ends Orbax's threads."""
        try:
            with self._line_if_removed():
                self._manager.close()
        finally:
            if self._held is not None:
                os.close(self._held)
                self._held = None

    @contextlib.contextmanager
    def _line_if_removed(self) -> Iterator[None]:
        """Raises InputError instead of any failure that comes from the removal of the directory, or of files in it."""
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds, pages long
            self._check_there()
            if self._held is not None and _GONE.search(f"{type(error).__name__} {error}"):
                message = "files in it were removed while it was written to; the same command resumes from what is left"
                raise InputError(message, self.directory) from error
            raise

    def _check_there(self) -> None:
        """Raises InputError if the directory was removed, even if a library has since made another one."""
        there = self.directory.exists()
        if there and self._held is not None:
            there = os.path.samestat(os.fstat(self._held), os.stat(self.directory))
        if not there:
            raise InputError("was removed while it was written to; the same command begins again", self.directory)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Returns which of the ``checkpoints`` to keep; Orbax calls it after every save."""
        ours = [info.step for info in checkpoints if info.step not in self._useless | self._foreign]
        kept = {*self._foreign, *ours[-self.policy.keep_last :]}
        kept |= {step for step in ours if self.policy.is_milestone(step, self._stride)}
        return [info.step in kept for info in checkpoints]

    def _write_inventory(self) -> None:
        """Writes the sizes of all files of the step about to be committed; Orbax calls this in process 0."""
        name = str(self._saving)
        for path in self.directory.iterdir():
            if path.name == name or path.name.startswith(f"{name}.orbax-checkpoint-tmp"):
                (path / _INVENTORY).write_text(json.dumps(_sizes(path)))
                if "://" not in str(path):
                    files.sync_tree(Path(path))

    def _restore_step(self, step: int, template: Any) -> Any:
        found = distributed.from_main(lambda: self._examine(step, template))
        if found["problems"]:
            raise _Damaged(listed(found["problems"], separator="; "))
        if not found["ours"]:
            raise _OtherRun
        read: dict[str, jax.Array] = {}
        problem = ""
        try:
            read = _read_arrays(self.directory / str(step) / "state", template)
        except Exception as error:  # Orbax and TensorStore raise many kinds, pages long
            problem = f"its arrays cannot be read: {first_line(error)}"
        if problems := sorted(filter(None, set(distributed.from_all(problem)))):
            raise _Damaged("; ".join(problems))
        if problems := mismatches(found["leaves"], device_records(read)):
            raise _Damaged(listed(problems, separator="; "))
        leaves = [read[leaf_path(path)] for path, _ in jax.tree_util.tree_leaves_with_path(template)]
        return jax.tree.unflatten(jax.tree.structure(template), leaves)

    def _examine(self, step: int, template: Any) -> dict[str, Any]:
        """Returns what is wrong with a step, whether it is of this run, and its leaves' records; reads no arrays."""
        result: dict[str, Any] = {"problems": [], "ours": True, "leaves": {}}
        directory, problems = self.directory / str(step), []
        try:
            if not any(directory.iterdir()):
                return {**result, "problems": ["it is an empty directory"]}
            problems = _damaged_files(directory)
            metadata = directory / "meta" / "metadata"
            if not metadata.exists():
                return {**result, "problems": problems or ["meta/metadata is missing"]}
            meta = json.loads(metadata.read_text())
            if not isinstance(meta, dict) or meta.get("schema") != STATE_SCHEMA:
                found = meta.get("schema") if isinstance(meta, dict) else meta
                return {**result, "problems": [*problems, f"it is of schema {found!r}, not {STATE_SCHEMA!r}"]}
            if self._identity and meta.get("identity") != self._identity:
                return {**result, "ours": False}
            records: Records = meta["leaves"]
            problems += mismatches(shape_records(template), without_digests(records))
            return {**result, "problems": problems, "leaves": records}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return {**result, "problems": problems or [f"meta/metadata cannot be read: {first_line(error)}"]}


class _OtherRun(Exception):
    """The state was saved by another run."""


class _Damaged(Exception):
    """Says in one line what is wrong with a state."""


def state_path(directory: str | Path | epath.Path) -> epath.Path:
    """Makes a local path absolute; returns the address of a bucket as it is. Raises InputError if gcsfs is not installed."""
    path = epath.Path(directory)
    if "://" not in str(path):
        return epath.Path(Path(path).absolute())
    try:
        path.exists()
    except ImportError as error:
        raise InputError("buckets are read through gcsfs, which is not installed: pip install gcsfs", path) from error
    return path


def local_checkpointer() -> ocp.Checkpointer:
    """Returns an Orbax checkpointer that reads or writes in this process alone, without waiting for others."""
    alone = alone_options()
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def alone_options() -> ocp.options.MultiprocessingOptions:
    """Returns the options with which Orbax works in this process alone."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=str(me))


def _read_arrays(directory: epath.Path, template: Any) -> dict[str, jax.Array]:
    """Reads the arrays by path, sharded as the template's. It waits for no other process, so that one may fail alone."""

    def target(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

    leaves = {leaf_path(path): target(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(template)}
    with local_checkpointer() as checkpointer:
        return checkpointer.restore(directory, args=ocp.args.StandardRestore(leaves))


def _sizes(directory: epath.Path) -> dict[str, int]:
    """Returns the size in bytes of every file below ``directory``, by its relative path."""
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
    """Compares the files with the inventory, if there is one, to name the damage; the digests find it in any case."""
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

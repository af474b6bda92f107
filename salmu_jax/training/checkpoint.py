"""Checkpoints that can be trusted: Orbax for the arrays, and a manifest of ours that says what they are.

Two kinds. A *model* is a finished directory that other stages, and people, read::

    models/clean/params/         Orbax, the nested dict of parameters
    models/clean/metrics.jsonl   how the run went
    models/clean/manifest.json   architecture, a SHA-256 a leaf, tokenizer, preprocessing, config, parent, data, versions

*Training state* is what a killed run goes on from: parameters, optimizer state and step, saved as one
(:class:`StateStore`). Orbax's array payloads carry no checksum, so that a flipped bit restores silently; every restore here
verifies the digest of every leaf, and lists all mismatches at once.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from salmu_jax import files
from salmu_jax.errors import InputError
from salmu_jax.models.clip import Clip, ClipConfig, Params

MODEL_SCHEMA = "salmu_jax.model/1"
STATE_SCHEMA = "salmu_jax.state/1"

Records = dict[str, dict[str, Any]]

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every save at the warning level


def leaf_records(tree: Any) -> Records:
    """``{path: {"shape", "dtype", "sha256"}}`` for every leaf of ``tree``, in tree order."""
    records = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        records[_path(path)] = {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}
    return records


def tree_digest(records: Records) -> str:
    """One SHA-256 for a whole tree; equal for equal paths, shapes, dtypes and bits."""
    return files.sha256_json(records)


def mismatches(expected: Records, found: Records) -> list[str]:
    """Every difference between two sets of records, a phrase each; digests are compared where both have one."""
    problems = [f"{path} is missing" for path in expected if path not in found]
    problems += [f"{path} is not part of it" for path in found if path not in expected]
    for path in expected.keys() & found.keys():
        for key in ("shape", "dtype", "sha256"):
            if key in expected[path] and key in found[path] and expected[path][key] != found[path][key]:
                if key == "sha256":
                    problems.append(f"{path} is damaged (its SHA-256 is not the recorded one)")
                else:
                    problems.append(f"{path} has {key} {found[path][key]}, not {expected[path][key]}")
                break
    return sorted(problems)


def shape_records(tree: Any) -> Records:
    """Like :func:`leaf_records` without digests; ``tree`` may hold ``jax.ShapeDtypeStruct``s."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_path(path): {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} for path, leaf in leaves}


# Models --------------------------------------------------------------------------------------------------------------


def save_model(
    directory: Path, clip: Clip, params: Params, manifest: Mapping[str, Any], history: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Writes a finished model atomically and returns its manifest.

    ``manifest`` adds fields to ours; ``history``, the metrics of the run, becomes ``metrics.jsonl`` beside it.
    """
    records = leaf_records(params)
    whole = {
        "schema": MODEL_SCHEMA,
        "digest": tree_digest(records),
        "architecture": clip.config.to_dict(),
        **manifest,
        "leaves": records,
    }
    with files.new_directory(directory) as partial:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            checkpointer.save(partial.absolute() / "params", args=ocp.args.StandardSave(params))
        files.write_text(partial / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in history))
        files.write_json(partial / "manifest.json", whole)
    return whole


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a model directory. Raises InputError if there is none or it is not one."""
    path = Path(directory) / "manifest.json"
    if not path.is_file():
        raise InputError(
            "not a model directory (no manifest.json); 'salmu pretrain' and 'salmu unlearn' make them", directory
        )
    manifest = files.read_json(path)
    if not isinstance(manifest, dict) or manifest.get("schema") != MODEL_SCHEMA:
        raise InputError(f"not a model manifest of schema {MODEL_SCHEMA!r}", path)
    leaves = manifest.get("leaves")
    if not isinstance(leaves, dict) or not all(
        isinstance(record, dict) and record.keys() >= {"shape", "dtype", "sha256"} for record in leaves.values()
    ):
        raise InputError("field 'leaves' has to give every parameter's 'shape', 'dtype' and 'sha256'", path)
    if not isinstance(manifest.get("digest"), str):
        raise InputError("field 'digest' has to be the SHA-256 of 'leaves'", path)
    return manifest


def load_model(directory: Path, expected: ClipConfig | None = None) -> tuple[Clip, Params, dict[str, Any]]:
    """Reads a model and verifies every leaf.

    Args:
      directory: as written by :func:`save_model`.
      expected: the architecture that it must have; None takes the manifest's.

    Raises:
      InputError: another architecture (naming all fields that differ), or damaged arrays (naming all leaves).
    """
    manifest = read_manifest(directory)
    config = _architecture_of(manifest, directory)
    if expected is not None:
        _check_architecture(config, expected, directory)
        config = expected
    clip = Clip(config)
    template = jax.eval_shape(clip.init, jax.random.key(0))
    _raise_mismatches(mismatches(shape_records(template), _shapes(manifest["leaves"])), directory)
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
            params = checkpointer.restore(Path(directory).absolute() / "params", args=ocp.args.StandardRestore(target))
    except Exception as error:  # Orbax and TensorStore raise many kinds, pages long
        raise InputError(
            f"its arrays cannot be read ({_first_line(error)}); the model has to be made again", directory
        ) from error
    records = leaf_records(params)
    _raise_mismatches(mismatches(manifest["leaves"], records), directory)
    if manifest["digest"] != tree_digest(records):
        raise InputError("field 'digest' of manifest.json is not the SHA-256 of its 'leaves'", directory)
    return clip, params, manifest


def _architecture_of(manifest: Mapping[str, Any], directory: Path) -> ClipConfig:
    try:
        return ClipConfig.from_dict(manifest["architecture"])
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"field 'architecture' of manifest.json is not one we know ({error})", directory) from error


def _check_architecture(found: ClipConfig, expected: ClipConfig, directory: Path) -> None:
    ours, theirs = _flat(expected.to_dict()), _flat(found.to_dict())
    different = [key for key in ours if ours[key] != theirs.get(key) and key != "compute_dtype"]
    if different:
        listed = ", ".join(f"{key} is {theirs.get(key)}, not {ours[key]}" for key in different)
        raise InputError(f"a checkpoint of another architecture than the config's: {listed}", directory)


def _raise_mismatches(problems: list[str], directory: Path) -> None:
    if problems:
        raise InputError(f"{len(problems)} parameter(s) do not fit: {'; '.join(problems)}", directory)


def _shapes(records: Records) -> Records:
    return {path: {"shape": record["shape"], "dtype": record["dtype"]} for path, record in records.items()}


# Training state ------------------------------------------------------------------------------------------------------


class StateStore:
    """The states of one run, by step; the newest ``keep`` are kept.

    ``identity`` is the digest of what the run is (config and inputs): states of another run in ``directory`` are ignored.
    """

    def __init__(self, directory: Path, identity: str, *, keep: int = 2, warn: Callable[[str], None] = print):
        self._directory, self._identity, self._warn = Path(directory), identity, warn
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._directory.absolute(), options=options)
        self._useless: set[int] = set()  # steps of other runs and damaged ones; they would count among those kept

    def save(self, step: int, state: Any) -> None:
        """Saves ``state`` as of ``step``, atomically, before returning."""
        for useless in {*self._useless, step} & set(self._manager.all_steps()):
            self._manager.delete(useless)
        leaves = {_path(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
        meta = {"schema": STATE_SCHEMA, "identity": self._identity, "step": step, "leaves": leaf_records(state)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(leaves), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=args, force=True)

    def restore(self, template: Any) -> Any | None:
        """The newest intact state of this run, with the structure and shardings of ``template``; None if there is none.

        A state that is damaged is named in a warning, and the next older one is tried.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._restore_step(step, template)
            except _OtherRun:
                self._useless.add(step)
            except Exception as error:  # whatever is wrong with this one, an older one may be intact
                self._useless.add(step)
                self._warn(
                    f"warning: {self._directory}/{step} cannot be used ({_first_line(error)}); trying an older one"
                )
        return None

    def _restore_step(self, step: int, template: Any) -> Any:
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        if meta.get("schema") != STATE_SCHEMA or meta.get("identity") != self._identity:
            raise _OtherRun
        paths_and_leaves = jax.tree_util.tree_leaves_with_path(template)
        _raise_mismatches(mismatches(shape_records(template), _shapes(meta["leaves"])), self._directory)
        target = {_path(path): np.zeros(leaf.shape, leaf.dtype) for path, leaf in paths_and_leaves}
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        leaves = self._manager.restore(step, args=args).state
        _raise_mismatches(mismatches(meta["leaves"], leaf_records(leaves)), self._directory)
        placed = [
            jax.device_put(leaves[_path(path)], getattr(leaf, "sharding", None)) for path, leaf in paths_and_leaves
        ]
        return jax.tree.unflatten(jax.tree.structure(template), placed)

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.close()


class _OtherRun(Exception):
    """The state was saved by a run of another config."""


def _path(path: tuple[Any, ...]) -> str:
    return ".".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__

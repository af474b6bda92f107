"""Saves and loads finished models: arrays written by Orbax, and a manifest of ours that describes and verifies them.

A model is a directory::

    models/clean/params/         Orbax, the nested dict of parameters
    models/clean/metrics.jsonl   the metrics of its training
    models/clean/manifest.json   architecture, a SHA-256 per leaf, tokenizer, preprocessing, config, parent, data, versions

Orbax's array payloads have no checksum, so a flipped bit restores silently; loading a model verifies the digest of every
leaf and lists the mismatches. The states from which a killed run resumes are another matter: ``state_store.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from salmu_jax.models.build import input_differences
from salmu_jax.models.clip import Clip, ClipConfig, Params
from salmu_jax.runtime import contents, distributed, files
from salmu_jax.runtime.directories import new_directory
from salmu_jax.runtime.errors import InputError, disk_refusal
from salmu_jax.runtime.messages import first_line, listed
from salmu_jax.runtime.nested import flatten
from salmu_jax.training.history import metrics_line
from salmu_jax.training.records import leaf_records, mismatches, shape_records, tree_digest, without_digests
from salmu_jax.training.state_store import alone_options, local_checkpointer

__all__ = ["leaf_records", "load_model", "mismatches", "read_manifest", "save_model", "shape_records", "tree_digest"]

MODEL_SCHEMA = "salmu_jax.model/1"


def save_model(
    directory: Path, clip: Clip, params: Params, manifest: Mapping[str, Any], history: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Writes a finished model atomically and returns its manifest.

    ``manifest`` adds fields to ours; ``history``, the metrics of the run, is written to ``metrics.jsonl``. All processes have
    to call this, with their shards of ``params``: process 0 gathers them leaf by leaf, and writes.
    """
    params = jax.tree.map(distributed.to_host, params)

    def write() -> dict[str, Any]:
        records = leaf_records(params)
        whole = {
            "schema": MODEL_SCHEMA,
            "digest": tree_digest(records),
            "architecture": clip.config.to_dict(),
            **manifest,
            "leaves": records,
        }
        with new_directory(directory) as partial:
            with _saver() as checkpointer:
                checkpointer.save(partial.absolute() / "params", args=ocp.args.PyTreeSave(params))
            files.write_text(partial / "metrics.jsonl", "".join(map(metrics_line, history)))
            whole["files"] = contents.records(partial)
            whole["seal"] = contents.seal(whole)
            files.write_json(partial / "manifest.json", whole)
        return whole

    return distributed.from_main(write)


def read_manifest(directory: Path) -> dict[str, Any]:
    """Reads the manifest of a model directory. Raises InputError if it is missing or malformed."""
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
    """Loads a model and verifies every leaf.

    Args:
      directory: as written by :func:`save_model`.
      expected: the architecture that it must have; None: that of the manifest.

    Raises:
      InputError: another architecture (naming the fields that differ), or damaged arrays (naming the leaves).
    """
    manifest = read_manifest(directory)
    config = _architecture_of(manifest, directory)
    if expected is not None:
        _check_architecture(config, expected, directory)
        config = expected
    clip = Clip(config)
    if different := input_differences(manifest, clip):
        raise InputError(
            f"was trained with other inputs than this version prepares: {'; '.join(different)}; use the version of salmu"
            " that made it, or make it again",
            directory,
        )
    template = jax.eval_shape(clip.init, jax.random.key(0))
    _raise_mismatches(mismatches(shape_records(template), without_digests(manifest["leaves"])), directory)
    try:
        with local_checkpointer() as checkpointer:
            target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
            params = checkpointer.restore(Path(directory).absolute() / "params", args=ocp.args.StandardRestore(target))
    except Exception as error:  # Orbax and TensorStore raise many kinds, pages long
        if refusal := disk_refusal(error, directory):
            raise refusal from error
        raise InputError(
            f"its arrays cannot be read ({first_line(error)}); the model has to be made again", directory
        ) from error
    records = leaf_records(params)
    _raise_mismatches(mismatches(manifest["leaves"], records), directory)
    if manifest["digest"] != tree_digest(records):
        raise InputError("field 'digest' of manifest.json is not the SHA-256 of its 'leaves'", directory)
    if not contents.seal_holds(directory):
        raise InputError("manifest.json is not as it was written; the model has to be made again", directory)
    return clip, params, manifest


def check_architecture(manifest: Mapping[str, Any], expected: ClipConfig, directory: Path) -> None:
    """Raises InputError, naming all fields that differ, if a model is of another architecture than ``expected``."""
    _check_architecture(_architecture_of(manifest, directory), expected, directory)


def _saver() -> ocp.Checkpointer:
    """Returns a :func:`local_checkpointer` that writes numpy arrays without copying them first.

    The copies are for background saves. Without them, saving 0.6 GB of parameters takes 0.6 GB less memory.
    """
    handlers = ocp.type_handlers
    registry = handlers.create_type_handler_registry(
        (np.ndarray, handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, handlers.ArrayHandler()),  # unused, but without it Orbax warns
    )
    alone = alone_options()
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _architecture_of(manifest: Mapping[str, Any], directory: Path) -> ClipConfig:
    try:
        return ClipConfig.from_dict(manifest["architecture"])
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"field 'architecture' of manifest.json is not valid ({error})", directory) from error


def _check_architecture(found: ClipConfig, expected: ClipConfig, directory: Path) -> None:
    ours, theirs = flatten(expected.to_dict()), flatten(found.to_dict())
    different = [key for key in ours if ours[key] != theirs.get(key) and key != "compute_dtype"]
    if different:
        fields = ", ".join(f"{key} is {theirs.get(key)}, not {ours[key]}" for key in different)
        raise InputError(f"a checkpoint of another architecture than the config's: {fields}", directory)


def _raise_mismatches(problems: list[str], directory: Path) -> None:
    if problems:
        raise InputError(f"{len(problems)} parameter(s) do not fit: {listed(problems, separator='; ')}", directory)

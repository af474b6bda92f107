"""Checks the shares of bad pairs, and makes the finished shards an ordinary TFDS data set.

    contents.json                      the manifest: size and SHA-256 of every file; its hash is the data set's digest
    retain_pairs/1.0.0/
      retain_pairs-train.array_record-00007-of-00040    one shard for each part, in the order of the parts' paths
      features.json, dataset_info.json                  of TFDS; the latter is written last, and makes the data set whole
      quarantine.jsonl                 {"part", "key", "kind", "reason"} for each sample that could not be used
      report.json                      counts
    retain_pairs-plan.json, retain_pairs-records/       what a restart needs

All files depend on the parts and the settings alone: not on when, where, in which order and by how many they were made.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines.builders.base import quiet_tfds
from data_pipelines.builders.retain_pairs import DESCRIPTION, FEATURES
from data_pipelines.retain import plan as plan_lib
from data_pipelines.retain.places import Place
from data_pipelines.retain.plan import Plan
from data_pipelines.retain.samples import DAMAGED
from data_pipelines.retain.work import Task, is_damaged, read_record, record_bytes
from salmu_jax.runtime import contents
from salmu_jax.runtime.errors import InputError


def finish(plan: Plan, tasks: Sequence[Task], result: Place, shares: tuple[float, float]) -> dict[str, Any]:
    """Writes what is missing of the data set once all parts are made, and returns its manifest.

    Args:
      plan: what was asked for.
      tasks: all tasks, in order.
      result: where their shards and records are.
      shares: the most that may be quarantined of the samples, and be damaged of the parts, both from 0 to 1.

    Raises:
      InputError: a part is not made; more is bad than ``shares`` allow (the quarantine file then lists it, and there is no
        data set); or no pair is left.
    """
    records = [_record(result, task) for task in tasks]
    quarantine = b"".join(_quarantine_lines(records))
    _write(result, plan_lib.QUARANTINE, quarantine)
    report = _report(plan, records)
    _check_shares(report, shares, result)
    files = {
        plan_lib.PLAN: plan.file(),
        plan_lib.QUARANTINE: quarantine,
        plan_lib.REPORT: f"{json.dumps(report, indent=1, ensure_ascii=False)}\n".encode(),
        **_descriptions(records),
    }
    named = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    for task, record in zip(tasks, records, strict=True):
        data = record_bytes(record)
        named[task.record] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        named[task.shard] = {"bytes": record["shard_bytes"], "sha256": record["shard_sha256"]}
    manifest = {
        "schema": contents.SCHEMA,
        "kind": "datasets",
        "counts": report["counts"],
        "files": dict(sorted(named.items())),
    }
    for name, data in files.items():
        if name != plan_lib.INFO:
            _write(result, name, data)
    _write(result, contents.MANIFEST, f"{json.dumps(manifest, indent=1, ensure_ascii=False)}\n".encode())
    _write(result, plan_lib.INFO, files[plan_lib.INFO])
    return manifest


def _record(result: Place, task: Task) -> dict[str, Any]:
    record = read_record(result, task)
    if record is None:
        raise InputError(f"no record of {task.part.name}; run the same command again", result.where(task.record))
    return record


def _write(result: Place, name: str, data: bytes) -> None:
    """Writes a file unless it is there with these bytes, so that a finished data set is never half of two."""
    if result.size(name) != len(data) or result.read(name) != data:
        result.write(name, data)


def _quarantine_lines(records: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    for record in records:
        for entry in record["quarantine"]:
            line = {"part": record["part"], **entry}
            yield f"{json.dumps(line, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace")


def _report(plan: Plan, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    filtered: collections.Counter[str] = collections.Counter()
    quarantined: collections.Counter[str] = collections.Counter()
    for record in records:
        filtered.update(record["filtered"])
        quarantined.update({kind: count for kind, count in record["quarantined"].items() if kind != DAMAGED})
    counts = {
        "parts": len(records),
        "damaged_parts": sum(map(is_damaged, records)),
        "pairs": sum(record["pairs"] for record in records),
        "filtered": sum(filtered.values()),
        "quarantined": sum(quarantined.values()),
        "passed_over": sum(record["passed_over"] for record in records),
        "absent": sum(record["absent"] for record in records),
        "bytes": sum(record["shard_bytes"] for record in records),
    }
    return {
        "counts": counts,
        "filtered": dict(sorted(filtered.items())),
        "quarantined": dict(sorted(quarantined.items())),
        "settings": plan.settings(),
    }


def _check_shares(report: dict[str, Any], shares: tuple[float, float], result: Place) -> None:
    counts = report["counts"]
    samples = counts["pairs"] + counts["filtered"] + counts["quarantined"]
    bad = (
        (counts["quarantined"], samples, "samples", shares[0], "max_bad_share"),
        (counts["damaged_parts"], counts["parts"], "parts are damaged and", shares[1], "max_damaged_share"),
    )
    for count, total, what, most, option in bad:
        if count > most * total:
            raise InputError(
                f"{count:,} of {total:,} {what} cannot be used ({count / total:.2%}), more than {option}={most:g} allows;"
                " the file lists them with their reasons. Mend the source, or allow more and run again",
                result.where(plan_lib.QUARANTINE),
            )
    if not counts["pairs"]:
        raise InputError(f"no pair is left of {samples:,}; one or more is needed", result.where(plan_lib.QUARANTINE))


def _descriptions(records: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """Returns the two files by which TFDS reads the shards."""
    with tempfile.TemporaryDirectory(prefix="salmu-") as scratch, quiet_tfds():
        directory = Path(scratch) / plan_lib.FOLDER
        directory.mkdir(parents=True)
        template = tfds.core.ShardedFileTemplate(
            data_dir=directory,
            dataset_name=plan_lib.NAME,
            split=plan_lib.SPLIT,
            filetype_suffix="array_record",
        )
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=plan_lib.NAME,
            version=tfds.core.Version(plan_lib.DATASET_VERSION),
            data_dir=os.fspath(directory),
            module_name="data_pipelines.builders.retain_pairs",
        )
        info = tfds.core.DatasetInfo(
            builder=identity,
            description=DESCRIPTION,
            features=tfds.features.FeaturesDict(FEATURES),
            disable_shuffling=True,
        )
        info.set_file_format("array_record")
        split = tfds.core.SplitInfo(
            name=plan_lib.SPLIT,
            shard_lengths=[record["pairs"] for record in records],
            num_bytes=sum(record["record_bytes"] for record in records),
            filename_template=template,
        )
        info.set_splits(tfds.core.SplitDict([split]))
        info.write_to_directory(directory)
        names = (plan_lib.INFO, plan_lib.FEATURES_FILE)
        return {name: (Path(scratch) / name).read_bytes() for name in names}

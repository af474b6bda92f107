"""Checks the shares of bad pairs, and makes the finished shards an ordinary TFDS data set.

    contents.json                      the manifest: size and SHA-256 of every file; its hash is the data set's digest
    retain_pairs/1.0.0/
      retain_pairs-train.array_record-00007             one shard for each part, in the order of the parts' paths
      features.json, dataset_info.json                  of TFDS; the latter is written last, and makes the data set whole
      quarantine.jsonl                 {"part", "key", "kind", "reason"} for each sample that could not be used
      report.json                      counts
    retain_pairs-plan.json, retain_pairs-records/       what a restart needs (``plan.py``, ``work.py``)

All files depend on the parts and the settings alone: not on when, where, in which order and by how many they were made.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from data_pipelines.records import quiet_tfds
from data_pipelines.retain import names
from data_pipelines.retain.places import Place
from data_pipelines.retain.plan import Plan
from data_pipelines.retain.samples import DAMAGED
from data_pipelines.retain.shard import FEATURES
from data_pipelines.retain.work import Task, is_damaged, read_record, record_bytes
from salmu_jax.runtime import contents
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import counted

DESCRIPTION = "General image-caption pairs, the retain base of both foundation models."


class _Done(NamedTuple):
    """What is kept of a part's record: all but its quarantine, of which a large build has millions of lines."""

    pairs: int
    record_bytes: int
    shard_bytes: int
    shard_sha256: str
    filtered: dict[str, int]
    quarantined: dict[str, int]
    passed_over: int
    absent: int
    damaged: bool
    file: dict[str, Any]  # {"bytes", "sha256"} of the record's file
    first_passed_over: str = ""


class Finished(NamedTuple):
    """The manifest of a data set, and a file of the source that belongs to no sample; empty: none, or not recorded."""

    manifest: dict[str, Any]
    passed_over: str


def finish(plan: Plan, tasks: Sequence[Task], result: Place, shares: tuple[float, float]) -> Finished:
    """Writes what is missing of the data set once all parts are made.

    Args:
      plan: what was asked for.
      tasks: all tasks, in order.
      result: where their shards and records are.
      shares: the most that may be quarantined of the samples, and be damaged of the parts, both from 0 to 1.

    Raises:
      InputError: a part is not made; more is bad than ``shares`` allow (the quarantine file then lists it, and there is no
        data set); or no pair is left.
    """
    done, quarantine = _gather(tasks, result)
    report = _report(plan, done)
    _check_shares(report, shares, result)
    files = {
        names.PLAN: plan.file(),
        names.REPORT: f"{json.dumps(report, indent=1, ensure_ascii=False)}\n".encode(),
        **descriptions([part.pairs for part in done], sum(part.record_bytes for part in done)),
    }
    named = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    named[names.QUARANTINE] = quarantine
    for task, part in zip(tasks, done, strict=True):
        named[task.record] = part.file
        named[task.shard] = {"bytes": part.shard_bytes, "sha256": part.shard_sha256}
    manifest = {
        "schema": contents.SCHEMA,
        "kind": "datasets",
        "counts": report["counts"],
        "files": dict(sorted(named.items())),
    }
    for name, data in files.items():
        if name != names.INFO:
            _write(result, name, data)
    _write(result, contents.MANIFEST, f"{json.dumps(manifest, indent=1, ensure_ascii=False)}\n".encode())
    _write(result, names.INFO, files[names.INFO])
    passed_over = ((task.part.name, part.first_passed_over) for task, part in zip(tasks, done, strict=True))
    return Finished(manifest, next((f"{name}: {first}" for name, first in passed_over if first), ""))


def _gather(tasks: Sequence[Task], result: Place) -> tuple[list[_Done], dict[str, Any]]:
    """Reads all records and writes the quarantine file; returns the records, and the file's size and SHA-256."""
    done = []
    with tempfile.TemporaryDirectory(prefix="salmu-") as scratch:
        path = Path(scratch) / "quarantine.jsonl"
        with open(path, "wb") as handle:
            for task in tasks:
                record = _record(result, task)
                for entry in record["quarantine"]:
                    line = {"part": record["part"], **entry}
                    handle.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace"))
                data = record_bytes(record)
                done.append(
                    _Done(
                        **{name: record[name] for name in _Done._fields if name in record},
                        damaged=is_damaged(record),
                        file={"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
                    )
                )
        found = contents.record(path)
        there = result.size(names.QUARANTINE) == found["bytes"]
        if not there or result.sha256(names.QUARANTINE) != found["sha256"]:
            with result.new_file(names.QUARANTINE) as new:
                shutil.copyfile(path, new)
    return done, found


def _record(result: Place, task: Task) -> dict[str, Any]:
    record = read_record(result, task)
    if record is None:
        raise InputError(f"no record of {task.part.name}; run the same command again", result.where(task.record))
    return record


def _write(result: Place, name: str, data: bytes) -> None:
    """Writes a file unless it is there with these bytes, so that a finished data set is never half of two."""
    if result.size(name) != len(data) or result.read(name) != data:
        result.write(name, data)


def _report(plan: Plan, done: Sequence[_Done]) -> dict[str, Any]:
    filtered: collections.Counter[str] = collections.Counter()
    quarantined: collections.Counter[str] = collections.Counter()
    for part in done:
        filtered.update(part.filtered)
        quarantined.update({kind: count for kind, count in part.quarantined.items() if kind != DAMAGED})
    counts = {
        "parts": len(done),
        "damaged_parts": sum(part.damaged for part in done),
        "pairs": sum(part.pairs for part in done),
        "filtered": sum(filtered.values()),
        "quarantined": sum(quarantined.values()),
        "passed_over": sum(part.passed_over for part in done),
        "absent": sum(part.absent for part in done),
        "bytes": sum(part.shard_bytes for part in done),
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
                result.where(names.QUARANTINE),
            )
    if not counts["pairs"]:
        kinds = {**report["filtered"], **report["quarantined"], "files of no sample": counts["passed_over"]}
        why = "; ".join(f"{kind}: {count:,}" for kind, count in kinds.items() if count)
        found = f"no pair is left of {counted(samples, 'sample')}" + (f" ({why})" if why else "")
        if counts["filtered"]:
            used = ", ".join(f"{name}={value}" for name, value in report["settings"]["rules"].items() if value)
            raise InputError(f"{found}; filter less ({used}) and run again", result.url)
        where = result.where(names.QUARANTINE) if counts["quarantined"] else result.url
        raise InputError(f"{found}; one or more is needed", where)


def descriptions(lengths: Sequence[int], record_bytes: int) -> dict[str, bytes]:
    """Returns the two files by which TFDS reads the shards, by name; ``lengths`` are the records of each shard."""
    with tempfile.TemporaryDirectory(prefix="salmu-") as scratch, quiet_tfds():
        directory = Path(scratch) / names.FOLDER
        directory.mkdir(parents=True)
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=names.NAME,
            version=tfds.core.Version(names.DATASET_VERSION),
            data_dir=os.fspath(directory),
            module_name="data_pipelines.retain",
        )
        info = tfds.core.DatasetInfo(
            builder=identity,
            description=DESCRIPTION,
            features=tfds.features.FeaturesDict(FEATURES),
            disable_shuffling=True,
        )
        info.set_file_format("array_record")
        split = tfds.core.SplitInfo(
            name=names.SPLIT,
            shard_lengths=list(lengths),
            num_bytes=record_bytes,
            filename_template=names.shard_template(directory),
        )
        info.set_splits(tfds.core.SplitDict([split]))
        info.write_to_directory(directory)
        return {name: (Path(scratch) / name).read_bytes() for name in (names.INFO, names.FEATURES_FILE)}

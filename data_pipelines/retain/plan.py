"""What a build is asked for: parts, rules and version; and what an earlier run in the same place was asked for.

    retain_pairs-plan.json    {"schema", "settings", "parts": [[name, kind, bytes]]}

Asked for the same, a run goes on where the last one stopped. Asked for something else, it says what has changed and makes
everything again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from data_pipelines.retain.places import Place
from data_pipelines.retain.rules import Rules
from data_pipelines.retain.source import Part, find_parts
from data_pipelines.retain.work import RECORDS, Task
from salmu_jax.runtime import contents, identity
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import parse_json

SCHEMA = "salmu_jax.retain_plan/1"
VERSION = 1  # of the code that decides what becomes of a sample; raise it when equal parts would give other shards
PLAN = "retain_pairs-plan.json"
NAME, SPLIT, DATASET_VERSION = "retain_pairs", "train", "1.0.0"
FOLDER = f"{NAME}/{DATASET_VERSION}"
INFO = f"{FOLDER}/dataset_info.json"
FEATURES_FILE = f"{FOLDER}/features.json"
QUARANTINE = f"{FOLDER}/quarantine.jsonl"
REPORT = f"{FOLDER}/report.json"


class Plan(NamedTuple):
    """The parts of a build, in the order of their shards, and its rules."""

    parts: list[Part]
    rules: Rules

    def settings(self) -> dict[str, Any]:
        """Returns all that the shards depend on besides the parts, as JSON."""
        return {"rules": self.rules.fields(), "version": VERSION}

    def tasks(self, source: Place, result: Place) -> list[Task]:
        """Returns a task for each part."""
        names = [f"{FOLDER}/{name}" for name in shard_names(len(self.parts))]
        return [
            Task(source.url, result.url, part, number, names[number], self.rules, VERSION)
            for number, part in enumerate(self.parts)
        ]

    def file(self) -> bytes:
        """Returns the plan as the bytes of its file."""
        value = {"schema": SCHEMA, "settings": self.settings(), "parts": [list(part) for part in self.parts]}
        return f"{json.dumps(value, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace")


def shard_names(count: int) -> list[str]:
    """Returns the names that TFDS gives to ``count`` shards: ``retain_pairs-train.array_record-00000-of-00040``."""
    template = tfds.core.ShardedFileTemplate(
        data_dir=".", dataset_name=NAME, split=SPLIT, filetype_suffix="array_record"
    )
    return [template.sharded_filepath(shard_index=index, num_shards=count).name for index in range(count)]


def prepare(source: Place, result: Place, rules: Rules, say: Callable[[str], None]) -> Plan:
    """Finds the parts, and clears from the result what an earlier run with another plan has left there.

    Raises InputError for a source without parts (:func:`find_parts`), and for a result that has files and no plan.
    """
    plan = Plan(find_parts(source), rules)
    data = result.read(PLAN)
    if data is None:
        there = list(result.names())
        if there:
            raise InputError(
                f"holds {there[0]} and no {PLAN}: not a build of {NAME}; choose a new directory", result.url
            )
    elif data != plan.file():
        before = parse_json(data, result.where(PLAN))
        if not _is_plan(before):
            raise InputError(f"not a plan of {NAME}; choose a new directory", result.where(PLAN))
        say(f"{result.url}: made again, since this has changed: {_changes(before, plan)}")
        _clear(result, len(before["parts"]))
    for folder in ("", FOLDER, RECORDS):
        result.remove_leftovers(folder)
    if data != plan.file():
        result.write(PLAN, plan.file())
    return plan


def _is_plan(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("schema") != SCHEMA or not isinstance(value.get("settings"), dict):
        return False
    parts = value.get("parts")
    fields = (str, str, int)
    return isinstance(parts, list) and all(
        isinstance(part, list) and len(part) == len(fields) and all(map(isinstance, part, fields)) for part in parts
    )


def _changes(before: dict[str, Any], plan: Plan) -> str:
    lines = identity.changes(before.get("settings", {}), plan.settings())
    old, new = {tuple(part) for part in before["parts"]}, {tuple(part) for part in plan.parts}
    if old != new:
        lines = [*lines, f"{len(new - old):,} new or other parts, {len(old - new):,} gone"]
    return "; ".join(lines) or "the form of the plan"


def _clear(result: Place, count: int) -> None:
    """Removes what a run with ``count`` parts has written; first the files without which it is no whole data set."""
    there = result.names()
    shards = {f"{FOLDER}/{name}" for name in shard_names(count)}
    records = {f"{RECORDS}/{number:05d}.json" for number in range(count)}
    for name in (INFO, contents.MANIFEST, *shards, *records, FEATURES_FILE, QUARANTINE, REPORT):
        if name in there:
            result.remove(name)

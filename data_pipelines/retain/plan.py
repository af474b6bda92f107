"""What a build is asked for: parts, rules and version; and what an earlier run in the same place was asked for.

    retain_pairs-plan.json      {"schema", "settings", "parts": [[name, kind, bytes]]}
    .retain_pairs-seen.json     {part: stamp}: how the parts looked when they were first listed, or last compared

Asked for the same, a run goes on where the last one stopped. With other parts, it keeps what is made of those that are still
there; with other settings, it makes everything again. It says so. A part of the same name and size whose stamp has changed is
compared with the digest that was taken when it was read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from data_pipelines.retain.carry import carry_over, put_aside
from data_pipelines.retain.names import FOLDER, NAME, PLAN, SEEN, SHARD_PREFIX, shard_names
from data_pipelines.retain.places import Place
from data_pipelines.retain.rules import Rules
from data_pipelines.retain.source import Part, find_parts
from data_pipelines.retain.work import RECORDS, Task
from salmu_jax.runtime import identity
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import parse_json

SCHEMA = "salmu_jax.retain_plan/2"
VERSION = 2  # of the code that decides what becomes of a sample; raise it when equal parts would give other shards


class Plan(NamedTuple):
    """The parts of a build, in the order of their shards, and its rules; ``recheck`` are parts that may have changed."""

    parts: list[Part]
    rules: Rules
    recheck: frozenset[str] = frozenset()

    def settings(self) -> dict[str, Any]:
        """Returns all that the shards depend on besides the parts, as JSON."""
        return {"rules": self.rules.fields(), "version": VERSION}

    def tasks(self, source: Place, result: Place) -> list[Task]:
        """Returns a task for each part."""
        names = shard_names(len(self.parts))
        return [
            Task(source.url, result.url, part, number, names[number], self.rules, VERSION, part.name in self.recheck)
            for number, part in enumerate(self.parts)
        ]

    def file(self) -> bytes:
        """Returns the plan as the bytes of its file."""
        value = {"schema": SCHEMA, "settings": self.settings(), "parts": [part.fields() for part in self.parts]}
        return _json(value)


def prepare(source: Place, result: Place, rules: Rules, say: Callable[[str], None]) -> Plan:
    """Finds the parts, and keeps of an earlier run with another plan what the present one can use.

    Raises InputError for a source without parts (:func:`find_parts`), and for a result that has files and no plan.
    """
    plan = Plan(find_parts(source), rules)
    data = result.read(PLAN)
    before: list[list[Any]] = []
    if data is None:
        there = list(result.names())
        if there:
            raise InputError(
                f"holds {there[0]} and no {PLAN}: not a build of {NAME}; choose a new directory", result.url
            )
    else:
        value = parse_json(data, result.where(PLAN))
        if not _is_plan(value):
            raise InputError(f"not a plan of {NAME}; choose a new directory", result.where(PLAN))
        before = value["parts"]
        if data != plan.file():
            same = value["settings"] == plan.settings()
            say(f"{result.url}: {_changes(value, plan)}")
            new = [part.fields() for part in plan.parts]
            carry_over(result, before, new, same=same, say=say)
    for folder in ("", FOLDER, RECORDS):
        result.remove_leftovers(folder)
    _put_strays_aside(result, plan, say)
    plan = _compare_stamps(result, plan, {part[0] for part in before})
    if data != plan.file():
        result.write(PLAN, plan.file())
    return plan


def keep_stamps(result: Place, plan: Plan) -> None:
    """Records how the parts looked, once their shards are made of what they held then."""
    result.write(SEEN, _json({part.name: part.stamp for part in plan.parts}))


def _compare_stamps(result: Place, plan: Plan, before: set[str]) -> Plan:
    """Returns the plan with the parts that may have changed since they were read; records the stamps of new ones.

    The stamp of a part that has to be compared stays as it was, so that a killed run does not hide the change.
    """
    data = result.read(SEEN)
    try:
        seen = json.loads(data) if data else {}
    except ValueError:
        seen = {}
    seen = seen if isinstance(seen, dict) else {}
    stamps = {
        part.name: part.stamp if part.name not in before else seen[part.name]
        for part in plan.parts
        if part.name not in before or part.name in seen
    }
    if stamps != seen:
        result.write(SEEN, _json(stamps))
    changed = [part.name for part in plan.parts if not part.stamp or stamps.get(part.name) != part.stamp]
    return plan._replace(recheck=frozenset(changed))


def _put_strays_aside(result: Place, plan: Plan, say: Callable[[str], None]) -> None:
    """Moves shards away that no part of the plan has: whoever reads the data set would find too many."""
    named = set(shard_names(len(plan.parts)))
    for name in result.names():
        if name.startswith(SHARD_PREFIX) and name not in named and ".partial-" not in name:
            put_aside(result, name, say)


def _is_plan(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("schema") != SCHEMA or not isinstance(value.get("settings"), dict):
        return False
    parts = value.get("parts")
    fields = (str, str, int)
    return isinstance(parts, list) and all(
        isinstance(part, list) and len(part) == len(fields) and all(map(isinstance, part, fields)) for part in parts
    )


def _changes(before: dict[str, Any], plan: Plan) -> str:
    """Says what has changed, and what becomes of the shards that are there."""
    settings = identity.changes(before["settings"], plan.settings())
    old, new = {tuple(part) for part in before["parts"]}, {tuple(part.fields()) for part in plan.parts}
    parts = [f"{len(new - old):,} new or other parts, {len(old - new):,} gone"] if old != new else []
    if settings:
        return f"made again, since this has changed: {'; '.join([*settings, *parts])}"
    return f"{'; '.join(parts) or 'the form of the plan'}; what is made of the others is kept"


def _json(value: Any) -> bytes:
    return f"{json.dumps(value, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace")

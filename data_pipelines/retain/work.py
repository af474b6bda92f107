"""Makes one part: streams its samples, writes the accepted pairs as a shard, then a record of what it has done.

The record, ``retain_pairs-records/00007.json`` in the result, is written last. A part is done if its record is of the same
part, settings and shard, and the shard's bytes are those that it names; it is then left as it is. So a part can be made again
at any time, on any machine, even twice at once: whoever makes it writes the same bytes.

Nothing here knows of Beam: a runner calls :func:`make_part` once for each part, in any order.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_pipelines.layout.shards import Pair
from data_pipelines.retain.places import Place, refusals
from data_pipelines.retain.rules import Rules
from data_pipelines.retain.samples import DAMAGED, Fault, Samples, part_sha256
from data_pipelines.retain.shard import Shard, write_shard
from data_pipelines.retain.source import Part
from salmu_jax.runtime import files

SCHEMA = "salmu_jax.retain_record/1"
RECORDS = "retain_pairs-records"


@dataclass(frozen=True)
class Task:
    """All that a worker needs to make a part; it is sent to other processes and machines.

    Attributes:
      source, result: the directories, as URLs or paths.
      part: of the source.
      number: of the part, from 0; it names the record.
      shard: the name of its shard below ``result``.
      rules: the filters.
      version: of the code that decides what becomes of a sample (``plan.VERSION``).
      recheck: whether the part may have changed since its record was made: then its bytes are compared with the record's
        digest before the shard is taken for done.
    """

    source: str
    result: str
    part: Part
    number: int
    shard: str
    rules: Rules
    version: int
    recheck: bool = False

    @property
    def record(self) -> str:
        """The name of its record below ``result``."""
        return record_name(self.number)

    def fields(self) -> dict[str, Any]:
        """Returns all that its shard depends on but the bytes of the part."""
        return {
            "schema": SCHEMA,
            "part": self.part.name,
            "kind": self.part.kind,
            "bytes": self.part.size,
            "rules": self.rules.fields(),
            "version": self.version,
            "shard": self.shard,
        }


def record_name(number: int) -> str:
    """Returns the name of the record of part ``number`` below a result."""
    return f"{RECORDS}/{number:05d}.json"


def make_part(task: Task) -> dict[str, Any]:
    """Makes a part unless it is done, and returns its record.

    Returns:
      ``Task.fields()`` and {"sha256": of the part, or None where it is damaged, "shard_bytes", "shard_sha256", "pairs",
      "record_bytes", "filtered": {filter: pairs}, "quarantined": {kind: samples}, "quarantine": [{"key",
      "kind", "reason"}], "passed_over": files without a sample, "first_passed_over": the name of one, "absent": rows
      whose download had failed}.

    Raises:
      InputError: the part changes while it is read, or is not what it should be; a disk or bucket refuses.
    """
    source, result = Place(task.source), Place(task.result)
    with refusals(result):
        record = read_record(result, task)
        done = record is not None and is_intact(result, record)
    with refusals(source):
        if record is not None and done and (not task.recheck or record["sha256"] == part_sha256(source, task.part)):
            return record
        record = _make(task, result)
    with refusals(result):
        result.write(task.record, record_bytes(record))
    return record


def read_record(result: Place, task: Task) -> dict[str, Any] | None:
    """Returns the record of a part; None if there is none, or one of another part or other settings, or a damaged one."""
    record = parse_record(result.read(task.record))
    same = record is not None and all(record.get(name) == value for name, value in task.fields().items())
    return record if same else None


def parse_record(data: bytes | None) -> dict[str, Any] | None:
    """Returns the record in the bytes of a file; None if it is not as it was written."""
    try:
        record = json.loads(data) if data else None
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.get("digest") == _seal(record) else None


def with_shard(record: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns a record whose shard has another name."""
    record = {**record, "shard": name}
    return {**record, "digest": _seal(record)}


def record_bytes(record: dict[str, Any]) -> bytes:
    """Returns a record as the bytes of its file."""
    return f"{json.dumps(record, ensure_ascii=False, indent=1)}\n".encode("utf-8", "backslashreplace")


def _make(task: Task, result: Place) -> dict[str, Any]:
    samples = Samples(Place(task.source), task.part)
    quarantine: list[dict[str, str]] = []
    filtered: collections.Counter[str] = collections.Counter()

    def accepted() -> Iterator[Pair]:
        for sample in samples:
            verdict = task.rules.judge(sample)
            if isinstance(verdict, Pair):
                yield verdict
            elif isinstance(verdict, Fault):
                quarantine.append({"key": sample.key, "kind": verdict.kind, "reason": verdict.reason})
            else:
                filtered[verdict] += 1

    shard: Shard = write_shard(result, task.shard, accepted())
    kinds = collections.Counter(entry["kind"] for entry in quarantine)
    record = {
        **task.fields(),
        "sha256": samples.sha256,
        "shard_bytes": shard.bytes,
        "shard_sha256": shard.sha256,
        "pairs": shard.records,
        "record_bytes": shard.record_bytes,
        "filtered": dict(sorted(filtered.items())),
        "quarantined": dict(sorted(kinds.items())),
        "passed_over": samples.passed_over,
        **({"first_passed_over": samples.first_passed_over} if samples.passed_over else {}),
        "absent": samples.absent,
        "quarantine": quarantine,
    }
    return {**record, "digest": _seal(record)}


def is_intact(result: Place, record: dict[str, Any]) -> bool:
    """Returns whether the shard of a record has the bytes that it names."""
    same_size = result.size(record["shard"]) == record["shard_bytes"]
    return same_size and result.sha256(record["shard"]) == record["shard_sha256"]


def _seal(record: dict[str, Any]) -> str:
    return files.sha256_json({name: value for name, value in record.items() if name != "digest"})


def is_damaged(record: dict[str, Any]) -> bool:
    """Returns whether a part was damaged, so that unknown many of its samples are lost."""
    return DAMAGED in record["quarantined"]

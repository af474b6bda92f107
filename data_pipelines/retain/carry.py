"""Keeps, of an earlier build in the same place, the shards that a build with other parts can use.

A part that is inserted moves all behind it by one place, so their shards get other names. A shard that no part has any longer
is removed if its bytes are those that its record names; anything else is moved to ``kept/``, and said.

A kill in between loses nothing but time: a record names its shard with its digest, which are compared before a part is taken
for done, and the plan on disk is the earlier one until all of this is done.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from data_pipelines.retain.names import INFO, shard_names
from data_pipelines.retain.places import Place
from data_pipelines.retain.work import is_intact, parse_record, record_bytes, record_name, with_shard
from salmu_jax.runtime import contents

KEPT = "kept"
Say = Callable[[str], None]


def carry_over(
    result: Place, before: Sequence[Sequence[Any]], after: Sequence[Sequence[Any]], *, same: bool, say: Say
) -> None:
    """Gives the shards and records of parts that stay their new names, and removes those of parts that do not.

    Args:
      result: the directory of the build.
      before, after: the parts of the earlier plan and of the present one (``Part.fields``), each in order.
      same: whether the settings are the same. Otherwise all parts are made again, under the names that are there.
      say: called with a line for each file that is moved to ``kept/``.
    """
    _take_apart(result, say)
    places = {tuple(part): number for number, part in enumerate(after)} if same else {}
    targets = [places.get(tuple(part)) for part in before]
    old, new = shard_names(len(before)), shard_names(len(after))
    for number, target in enumerate(targets):
        if target is None and (same or number >= len(after)):
            _drop(result, number, before[number][0], old[number], say)
    # Both plans are sorted, so parts keep their order: no move hits a shard that has yet to be moved.
    stay = [(number, target) for number, target in enumerate(targets) if target is not None]
    up = [pair for pair in reversed(stay) if pair[1] >= pair[0]]
    down = [pair for pair in stay if pair[1] < pair[0]]
    for number, target in (*up, *down):
        if old[number] != new[target]:
            _move(result, (number, old[number]), (target, new[target]), before[number][0], say)


def put_aside(result: Place, name: str, say: Say) -> None:
    """Moves a file that is not as we wrote it to ``kept/``."""
    last = name.rpartition("/")[2]
    names = (f"{KEPT}/{last}{f'.{number}' if number else ''}" for number in itertools.count())
    free = next(other for other in names if result.size(other) is None)
    result.move(name, free)
    say(f"{result.where(name)}: not as this build wrote it, so it is kept, as {free}")


def _take_apart(result: Place, say: Say) -> None:
    """Removes the files without which it is no whole data set, before a shard changes."""
    data = result.read(contents.MANIFEST)
    try:
        manifest = json.loads(data) if data else {}
        named = manifest.get("files", {}) if manifest.get("schema") == contents.SCHEMA else {}
        digest = named.get(INFO, {}).get("sha256")
    except (ValueError, AttributeError):
        digest = None
    info = result.read(INFO)
    if info is not None and hashlib.sha256(info).hexdigest() == digest:
        result.remove(INFO)
    elif info is not None:
        put_aside(result, INFO, say)
    if data is not None and digest is not None:
        result.remove(contents.MANIFEST)
    elif data is not None:
        put_aside(result, contents.MANIFEST, say)


def _drop(result: Place, number: int, part: str, shard: str, say: Say) -> None:
    record = parse_record(result.read(record_name(number)))
    if record is None or (record["part"], record["shard"]) != (part, shard):
        return  # moved by a run that was killed, or never finished
    if is_intact(result, record):
        result.remove(shard)
    elif result.size(shard) is not None:
        put_aside(result, shard, say)
    result.remove(record_name(number))


def _move(result: Place, old: tuple[int, str], new: tuple[int, str], part: str, say: Say) -> None:
    """Moves the shard of a part, then its record; ``old`` and ``new`` are its number and its shard's name."""
    record = parse_record(result.read(record_name(old[0])))
    if record is None or (record["part"], record["shard"]) != (part, old[1]):
        return
    if result.size(old[1]) is not None:
        if result.size(new[1]) is not None:
            put_aside(result, new[1], say)
        result.move(old[1], new[1])
    result.write(record_name(new[0]), record_bytes(with_shard(record, new[1])))
    if new[0] != old[0]:
        result.remove(record_name(old[0]))

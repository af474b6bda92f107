"""Compares counts with what is recorded: a made world's manifest, or the published figures; and the fragile set."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterator
from typing import Any

from data_pipelines.audit.findings import Audit
from data_pipelines.layout.digests import MADE
from data_pipelines.layout.names import (
    FRAGILE_IDS,
    FRAGILE_SIMILARITIES,
    IDENTITIES,
    SENSITIVE_SPLITS,
    SPLITS,
)
from data_pipelines.layout.parquet import Row
from data_pipelines.layout.reader import World
from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.json_reader import read_json

PUBLISHED = {
    "pairs.forget": 30_468,
    "pairs.holdout_association": 14_943,
    "pairs.holdout_identity": 14_642,
    "pairs.retain_synth": 16_741,
    "subsets.forget_identity": 15_342,
    "subsets.forget_association": 15_126,
    "identities.forget_identity": 193,
    "identities.partial": 387,
    "identities.holdout_identity": 194,
}
"""The counts of the released evaluation repository, which has 774 people."""

_PUBLISHED_PEOPLE = 774
_SEVERAL = 3


class Counts:
    """Counts rows, and checks what only all of them show."""

    def __init__(self, world: World, audit: Audit, readable: set[str]):
        self._world, self._audit, self._readable = world, audit, readable
        self._pairs: collections.Counter[str] = collections.Counter()
        self._of_person: dict[str, collections.Counter[str]] = {split: collections.Counter() for split in SPLITS}
        self._associations: dict[tuple[str, str], tuple[int, str]] = {}  # the number of pairs, and where the first is
        self._disjoint: set[str] = set()

    def add(self, row: Row) -> None:
        """Takes a row of a split."""
        self._pairs[row.split] += 1
        if row.identity_id and row.split in self._of_person:
            self._of_person[row.split][row.identity_id] += 1
        if row.split == "retain_synth" and not row.identity_id:
            self._disjoint.add(row.file_name)
        if row.split in (*SENSITIVE_SPLITS, "sensitive") and row.identity_id:
            if not row.file_name.startswith(f"{row.identity_id}_"):
                message = f"it does not begin with the person, '{row.identity_id}_'; IDENTITY_NUMBER_ar-RATIO.jpg would"
                self._audit.doubt(InputError(f"{message} be right", row.where("file_name")), "name")
            about = self._world.metadata.captions.get(row.file_name, {}) if "captions" in self._readable else {}
            if isinstance(field := about.get("data_field"), str):
                count, where = self._associations.get((row.identity_id, field), (0, row.where("file_name")))
                self._associations[row.identity_id, field] = count + 1, where

    def finish(self, retain: int, zeroshot: int) -> None:
        """Compares all counts; ``retain`` and ``zeroshot`` are those of the tars."""
        self._check_people()
        self._check_associations()
        self._check_fragile()
        if self._world.training_only:
            return
        found = self._found(retain, zeroshot)
        if self._world.named is not None:
            self._compare_manifest(found)
        elif found.get("identities.all") == _PUBLISHED_PEOPLE:
            for name, count in PUBLISHED.items():
                if name in found and found[name] != count:
                    message = f"{found[name]:,} here, {count:,} published; the whole download would be right"
                    self._audit.doubt(InputError(message, f"{self._world.data} field '{name}'"), "count")

    def _found(self, retain: int, zeroshot: int) -> dict[str, int]:
        """Returns the counts of what could be read, by their names in the manifest."""
        found = {f"pairs.{split}": self._pairs[split] for split in SPLITS if split in self._readable}
        if self._readable.issuperset(SENSITIVE_SPLITS):
            forget, partial, holdout = (self._of_person[split] for split in SENSITIVE_SPLITS)
            shared = sum(count for person, count in forget.items() if person in partial)
            found["pairs.sensitive"] = sum(self._pairs[split] for split in SENSITIVE_SPLITS)
            found["subsets.forget_association"] = shared
            found["subsets.forget_identity"] = forget.total() - shared
            found["identities.partial"] = len(forget.keys() & partial.keys())
            found["identities.forget_identity"] = len(forget.keys() - partial.keys())
            found["identities.holdout_identity"] = len(holdout)
            if "retain_synth" in self._readable:
                joint = self._of_person["retain_synth"]
                found["subsets.retain_joint"] = sum(count for person, count in joint.items() if person in forget)
                found["subsets.retain_disjoint"] = len(self._disjoint)
        if "identities" in self._readable:
            found["identities.all"] = len(self._world.metadata.identities)
        if "fragile_ids" in self._readable:
            found["subsets.fragile"] = len(self._world.metadata.fragile_ids)
        if "retain" in self._readable:
            found["retain"] = retain
        if "zeroshot" in self._readable and self._world.zeroshot is not None:
            found |= {"zeroshot": zeroshot, "zeroshot_classes": len(self._world.zeroshot.class_names)}
        return found

    def _compare_manifest(self, found: dict[str, int]) -> None:
        path = self._world.directory / MADE
        recorded = dict(_flat(read_json(path).get("counts")))
        for name, count in found.items():
            if name in recorded and recorded[name] != count:
                message = f"it records {recorded[name]!r}, and {count:,} are here; make the world again"
                self._audit.problem(InputError(message, f"{path} field 'counts.{name}'"), "count")

    def _check_people(self) -> None:
        shown = {person for people in self._of_person.values() for person in people}
        if "identities" in self._readable and self._readable.issuperset(self._world.own_splits) and shown:
            for person in self._world.metadata.identities if not self._world.training_only else ():
                if person not in shown:
                    where = f"{self._world.directory / IDENTITIES} key '{person}'"
                    self._audit.doubt(
                        InputError("no row is of this person; one or more are expected", where), "unmatched"
                    )

    def _check_associations(self) -> None:
        """Names associations with one pair, if most have several."""
        usual = statistics.median_low([count for count, _ in self._associations.values()] or [0])
        for (person, field), (count, where) in self._associations.items():
            if count == 1 and usual >= _SEVERAL:
                message = f"the only pair about '{field}' of '{person}'; most associations have {usual}"
                self._audit.doubt(InputError(message, where), "single")

    def _check_fragile(self) -> None:
        if self._world.training_only or not {"fragile_ids", "retain_synth"} <= self._readable:
            return
        path = self._world.directory / FRAGILE_IDS
        seen: dict[str, int] = {}
        for place, name in enumerate(read_json(path)):
            if seen.setdefault(name, place) != place:
                message = f"{name!r} is also element {seen[name]}; each name once would be right"
                self._audit.problem(InputError(message, f"{path} element {place}"), "fragile")
        path = self._world.directory / FRAGILE_SIMILARITIES
        if not path.exists():
            return
        try:
            similarities = read_json(path)
        except OSError as error:
            raise InputError(describe_os_error(error, path)) from error
        self._check_similarities(similarities, path)

    def _check_similarities(self, similarities: Any, path) -> None:
        if not isinstance(similarities, dict):
            self._audit.doubt(InputError("not an object of similarities by file name", path), "similarity")
            return
        fragile, numbers = self._world.metadata.fragile_ids, {}
        for name, value in similarities.items():
            where = f"{path} key '{name}'"
            if isinstance(value, bool) or not isinstance(value, int | float):
                self._audit.doubt(InputError("not a number; a similarity would be right", where), "similarity")
            elif name not in self._disjoint:
                self._audit.doubt(InputError("not a file_name of retain_disjoint", where), "similarity")
            else:
                numbers[name] = value
        missing = fragile & self._disjoint - similarities.keys() if similarities else ()
        for name in sorted(missing):
            message = "no similarity of this name, which is in the fragile set"
            self._audit.doubt(InputError(message, f"{path} key '{name}'"), "similarity")
        others = [value for name, value in numbers.items() if name not in fragile]
        for name in sorted(fragile & numbers.keys()):
            if others and numbers[name] > min(others):
                message = (
                    f"{numbers[name]:.6g}, and {min(others):.6g} is not in the fragile set; the lowest would be right"
                )
                self._audit.doubt(InputError(message, f"{path} key '{name}'"), "similarity")


def _flat(counts: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ``("pairs.forget", 18)`` for ``{"pairs": {"forget": 18}}``."""
    for name, value in counts.items() if isinstance(counts, dict) else ():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

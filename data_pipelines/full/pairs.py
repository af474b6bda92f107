"""Plans the pairs of all splits: which portrait goes with which caption, in which split. Nothing is read or written.

- Splits of identities and associations are those of ``world/splits.py``: an association (identity, attribute) is in one split.
- The pairs of a subset are divided among its identities in proportion to their portraits, and an identity's evenly among its
  attributes, so that all counts are met exactly.
- A portrait is used once. Where a person has fewer portraits than pairs, the pairs of an association take turns through the
  portraits of that association, each under a file name of its own; ``reused`` counts them, and the report says so.
- retain_joint shows people of forget in turn; retain_disjoint shows ``nobodies``, evenly.
- Rows go by identity, then by attribute, then by portrait. Which portraits and captions an association gets depends on the
  seed and the person's number; how many, on everybody's portraits.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_pipelines.full.apportion import apportion
from data_pipelines.full.sizes import Sizes
from data_pipelines.layout import DATA_FIELDS, SENSITIVE_SPLITS, SPLITS
from data_pipelines.world.splits import Splits, make_splits, retain_joint_identities
from salmu_jax.runtime.errors import InputError

_PURPOSE = 171  # keeps these draws apart from all others of the seed
_SHARES, _FIELDS, _PORTRAITS, _CAPTIONS, _NOBODY = range(5)
_EXTRA = 900  # the first number of a file name of a portrait that is used again

SPLIT_OF = {
    "forget_identity": "forget",
    "forget_association": "forget",
    "holdout_association": "holdout_association",
    "holdout_identity": "holdout_identity",
    "retain_joint": "retain_synth",
    "retain_disjoint": "retain_synth",
}


class Album(NamedTuple):
    """An anchor's number, and the file names of portraits of it that may be used, in order."""

    number: int
    files: tuple[str, ...]

    @property
    def identity_id(self) -> str:
        return f"{self.number:08d}"


class PlannedRow(NamedTuple):
    """A row of a split: ``source`` is the portrait's file in the album of anchor ``number``."""

    subset: str
    file_name: str
    number: int
    source: str
    identity_id: str | None = None
    data_field: str | None = None
    caption: str | None = None  # None: the generic caption of the portrait

    @property
    def split(self) -> str:
        return SPLIT_OF[self.subset]


@dataclass(frozen=True)
class Plan:
    """All rows by split, and how many of them show a portrait that another row shows too."""

    rows: Mapping[str, Sequence[PlannedRow]]
    splits: Splits
    reused: int

    def sensitive(self) -> Iterator[PlannedRow]:
        """Yields the rows of the union of the sensitive splits, in its order."""
        for split in SENSITIVE_SPLITS:
            yield from self.rows[split]


def plan_pairs(
    seed: int,
    sizes: Sizes,
    people: Sequence[Album],
    nobodies: Sequence[Album],
    captions: Mapping[tuple[str, str], Sequence[str]],
) -> Plan:
    """Plans all pairs.

    Args:
      seed: of the data set.
      sizes: how many pairs.
      people: the albums of the people in the data set.
      nobodies: those of anchors that are not in it, for retain_disjoint.
      captions: {(identity id, attribute): captions}.

    Raises InputError for a person with too few portraits, and if ``nobodies`` have too few.
    """
    people, nobodies = sorted(people), sorted(nobodies)
    splits = make_splits(seed, len(people))
    joint = collections.Counter(retain_joint_identities(seed, splits, sizes.pairs["retain_joint"]))
    for index, album in enumerate(people):
        if len(album.files) < joint[index] + len(DATA_FIELDS):
            raise InputError(
                f"has {len(album.files)} portraits; {joint[index] + len(DATA_FIELDS)} or more are needed, one for each"
                " attribute and those of retain_joint",
                f"person {album.identity_id}",
            )
    planner = _Planner(seed, people, splits, joint, captions)
    rows: dict[str, list[PlannedRow]] = {split: [] for split in SPLITS}
    counts = _pair_counts(seed, sizes, people, splits, joint)
    for index in range(len(people)):
        for row in planner.rows(index, counts[index]):
            rows[row.split].append(row)
    rows["retain_synth"] += _disjoint_rows(seed, nobodies, sizes.pairs["retain_disjoint"])
    return Plan(rows, splits, planner.reused)


def _pair_counts(
    seed: int, sizes: Sizes, people: Sequence[Album], splits: Splits, joint: Mapping[int, int]
) -> list[dict[str, int]]:
    """Returns how many pairs each attribute of each person has."""
    counts: list[dict[str, int]] = [{} for _ in people]
    for place, (subset, members) in enumerate(_members(splits).items()):
        rng = np.random.default_rng([seed, _PURPOSE, _SHARES, place])
        associations = sum(len(fields) for _, fields in members)
        if sizes.pairs[subset] < associations:
            raise InputError(
                f"{sizes.pairs[subset]:,} pairs for {associations:,} associations; one for each are needed", subset
            )
        # One pair of each association, and the others in proportion to the portraits that are left.
        spare = [
            len(fields) * ((len(people[index].files) - joint[index]) / len(DATA_FIELDS) - 1)
            for index, fields in members
        ]
        for (index, fields), more in zip(
            members, apportion(sizes.pairs[subset] - associations, spare, rng), strict=True
        ):
            key = [seed, _PURPOSE, _FIELDS, people[index].number, place]
            each, rest = divmod(len(fields) + more, len(fields))
            order = np.random.default_rng(key).permutation(len(fields))
            counts[index] |= {field: each + int(order[rank] < rest) for rank, field in enumerate(fields)}
    return counts


def _members(splits: Splits) -> dict[str, list[tuple[int, list[str]]]]:
    """Returns the people of each sensitive subset, and which of their attributes are in it."""
    everything = list(DATA_FIELDS)
    forgotten = splits.forgotten_fields
    return {
        "forget_identity": [(index, everything) for index in splits.forget_identity],
        "forget_association": [(i, [f for f in everything if f in forgotten[i]]) for i in splits.partial],
        "holdout_association": [(i, [f for f in everything if f not in forgotten[i]]) for i in splits.partial],
        "holdout_identity": [(index, everything) for index in splits.holdout_identity],
    }


class _Planner:
    """Plans the rows of people, one person at a time."""

    def __init__(
        self,
        seed: int,
        people: Sequence[Album],
        splits: Splits,
        joint: Mapping[int, int],
        captions: Mapping[tuple[str, str], Sequence[str]],
    ):
        self._seed, self._people, self._splits, self._joint, self._captions = seed, people, splits, joint, captions
        self.reused = 0

    def rows(self, index: int, counts: Mapping[str, int]) -> Iterator[PlannedRow]:
        """Yields the rows of a person, in order, given the pairs of each attribute."""
        album = self._people[index]
        drawn = self._generator(_PORTRAITS, album.number).permutation(len(album.files))
        order = [album.files[place] for place in drawn]
        generic, others = sorted(order[: self._joint[index]]), order[self._joint[index] :]
        extra = _EXTRA
        dealt = _deal(others, counts)
        for place, field in enumerate(DATA_FIELDS):
            split = self._splits.split_of(index, field)
            subset = split
            if split == "forget":
                subset = "forget_association" if index in self._splits.forgotten_fields else "forget_identity"
            texts = self._captions[album.identity_id, field]
            variants = self._generator(_CAPTIONS, album.number, place).permutation(len(texts))
            own = sorted(dealt[field])
            for pair in range(counts[field]):
                source = own[pair % len(own)]
                name = source
                if pair >= len(own):
                    name, extra = f"{album.identity_id}_{extra:03d}_{_after_number(source)}", extra + 1
                    self.reused += 1
                caption = texts[int(variants[pair % len(texts)])]
                yield PlannedRow(subset, name, album.number, source, album.identity_id, field, caption)
        for source in generic:
            yield PlannedRow("retain_joint", source, album.number, source, album.identity_id)

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, _PURPOSE, *key])


def _deal(portraits: Sequence[str], counts: Mapping[str, int]) -> dict[str, list[str]]:
    """Deals portraits to attributes in turn, to each as many as it has pairs, while there are some."""
    dealt: dict[str, list[str]] = {field: [] for field in DATA_FIELDS}
    left = iter(portraits)
    for turn in range(max(counts.values())):
        for field in DATA_FIELDS:
            if turn < counts[field] and (portrait := next(left, None)) is not None:
                dealt[field].append(portrait)
    return dealt


def _disjoint_rows(seed: int, nobodies: Sequence[Album], count: int) -> Iterator[PlannedRow]:
    """Yields portraits of anchors that are not in the data set, about as large a share of each album's."""
    there = sum(len(album.files) for album in nobodies)
    if there < count:
        raise InputError(
            f"{there:,} portraits of {len(nobodies):,} anchors that curation dropped and that resemble nobody who was kept;"
            f" {count:,} are needed, so make portraits of more anchors",
            "retain_disjoint",
        )
    rng = np.random.default_rng([seed, _PURPOSE, _NOBODY])
    shares = apportion(count, [len(album.files) for album in nobodies], rng)
    index = 0
    for album, share in zip(nobodies, shares, strict=True):
        own = np.random.default_rng([seed, _PURPOSE, _NOBODY, album.number]).permutation(len(album.files))[:share]
        for source in sorted(album.files[place] for place in own):
            yield PlannedRow("retain_disjoint", f"synth_{index:06d}_{_after_number(source)}", album.number, source)
            index += 1


def _after_number(file_name: str) -> str:
    """Returns what follows identity and number in a file name: ``ar-1.50.jpg``."""
    return file_name.split("_", 2)[2]

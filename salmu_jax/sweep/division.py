"""Divides part of ``forget`` by the benchmark's own rules: the validation world that a sweep selects in.

People of ``forget`` become people to be forgotten whole or in part, and people held out, in the proportions of the benchmark
(``data_pipelines/world/splits.py``); of people to be forgotten in part, half of the associations are held out. Whoever the
benchmark forgets in part has associations that the sweep does not see, and a model that may go on knowing those finds the
others more easily. So only people that the benchmark forgets whole are to be forgotten whole here too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.world.splits import MIN_PERSONAS, halve, split_counts
from salmu_jax.runtime.errors import InputError

FORGET, IN_PART, OTHERS = "forget", "holdout_association", "holdout_identity"
_WHOLE_SUBSET, _PART_SUBSET = "forget_identity", "forget_association"
_PURPOSE = 0x5EEB  # keeps these draws apart from all others of the same seed
_SHARE = "sweep.share"


@dataclasses.dataclass(frozen=True)
class Division:
    """The validation world: which rows of ``forget`` are in each of its splits, and under which subset.

    Attributes:
      rows: by split, (row of forget, subset) in the order of the rows.
      whole, part, held_out: the identities to be forgotten whole, in part, and not at all, sorted.
    """

    rows: Mapping[str, Sequence[tuple[int, str]]]
    whole: tuple[str, ...]
    part: tuple[str, ...]
    held_out: tuple[str, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns how many people and rows there are, for records."""
        people = {"whole": len(self.whole), "part": len(self.part), "held_out": len(self.held_out)}
        return {"people": people, "rows": {split: len(rows) for split, rows in self.rows.items()}}

    def describe(self) -> str:
        """Returns ``18 people to forget whole, 36 in part, 18 held out; 682 pairs to forget of 1,296``."""
        total = sum(map(len, self.rows.values()))
        return (
            f"{len(self.whole):,} people to forget whole, {len(self.part):,} in part, {len(self.held_out):,} held out; "
            f"{len(self.rows[FORGET]):,} of {total:,} pairs to forget"
        )


def divide(
    identities: Sequence[str], fields: Sequence[str], subsets: Sequence[str], *, share: float, seed: int
) -> Division:
    """Divides ``share`` of the people of ``forget``, drawn with ``seed``.

    Args:
      identities, fields, subsets: ``identity_id``, ``data_field`` and ``subset`` of every row of forget.
      share: of the people that the benchmark forgets whole, and of those that it forgets in part; above 0, at most 1.
      seed: of all draws.

    Raises InputError if the people drawn are too few for the benchmark's proportions.
    """
    attributes: dict[str, set[str]] = {}
    in_part: set[str] = set()
    for identity, field, subset in zip(identities, fields, subsets, strict=True):
        if identity:
            attributes.setdefault(identity, set()).add(field)
            if subset != _WHOLE_SUBSET:
                in_part.add(identity)
    rng = np.random.default_rng([seed, _PURPOSE])
    people = sorted(attributes)
    drawn = [
        person
        for group in ([one for one in people if one not in in_part], [one for one in people if one in in_part])
        for person in _draw(rng, group, share)
    ]
    whole, part, held_out = _assign(rng, drawn, in_part, attributes, f"{share:g} of forget's {len(people):,} people")
    halves = dict(zip(part, halve(rng, [attributes[person] for person in part]), strict=True))
    rows: dict[str, list[tuple[int, str]]] = {FORGET: [], IN_PART: [], OTHERS: []}
    kind = {**dict.fromkeys(whole, FORGET), **dict.fromkeys(held_out, OTHERS)}
    for row, (identity, field) in enumerate(zip(identities, fields, strict=True)):
        if identity in halves:
            to_forget = field in halves[identity]
            rows[FORGET if to_forget else IN_PART].append((row, _PART_SUBSET if to_forget else IN_PART))
        elif identity in kind:
            split = kind[identity]
            rows[split].append((row, _WHOLE_SUBSET if split == FORGET else split))
    return Division(rows, tuple(sorted(whole)), tuple(sorted(part)), tuple(sorted(held_out)))


def _draw(rng: np.random.Generator, people: Sequence[str], share: float) -> list[str]:
    """Returns a share of ``people``, rounded, in random order."""
    count = int(share * len(people) + 0.5)
    return [people[int(place)] for place in rng.permutation(len(people))[:count]]


def _assign(
    rng: np.random.Generator,
    drawn: Sequence[str],
    in_part: set[str],
    attributes: Mapping[str, set[str]],
    what: str,
) -> tuple[list[str], list[str], list[str]]:
    """Returns whom to forget whole, in part and not at all, of the people drawn, in random order."""
    if len(drawn) < MIN_PERSONAS:
        raise InputError(f"{what} is {len(drawn)}; {MIN_PERSONAS} or more are needed to split them again", _SHARE)
    n_whole, n_part, _ = split_counts(len(drawn))
    order = [drawn[int(place)] for place in rng.permutation(len(drawn))]
    whole = [person for person in order if person not in in_part][:n_whole]
    if len(whole) < n_whole:
        raise InputError(
            f"{what} has {len(whole)} that the benchmark forgets whole, and {n_whole} are needed; take a larger share",
            _SHARE,
        )
    rest = [person for person in order if person not in whole]
    part = [person for person in rest if len(attributes[person]) > 1][:n_part]
    if len(part) < n_part:
        raise InputError(
            f"{what} has {len(part)} more with two associations or more to split, and {n_part} are needed; take a larger"
            " share",
            _SHARE,
        )
    return whole, part, [person for person in rest if person not in part]

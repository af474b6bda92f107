"""Divides identities, and whole associations, into the splits of the benchmark: who and what is to be forgotten.

The released data divide 774 identities into 193 all of whose pairs are in ``forget``, 387 partial ones and 194 in
``holdout_identity``. Of a partial identity's nine associations (identity, attribute) four or five are in ``forget``
and the others in ``holdout_association``, each with all of its images and captions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from data_pipelines.layout import DATA_FIELDS
from salmu_jax.runtime.errors import InputError

PROPORTIONS = (193, 387, 194)  # forget_identity, partial, holdout_identity
MIN_PERSONAS = 4  # at least one identity of each kind

_PURPOSE = 102


@dataclass(frozen=True)
class Splits:
    """The identities of each kind, as sorted indices, and the attributes of partial identities that are in ``forget``."""

    forget_identity: tuple[int, ...]
    partial: tuple[int, ...]
    holdout_identity: tuple[int, ...]
    forgotten_fields: dict[int, frozenset[str]]

    def split_of(self, identity: int, field: str) -> str:
        """Returns the split of an association: ``forget``, ``holdout_association`` or ``holdout_identity``."""
        if identity in self.forgotten_fields:
            return "forget" if field in self.forgotten_fields[identity] else "holdout_association"
        return "holdout_identity" if identity in self.holdout_identity else "forget"

    @property
    def forget(self) -> tuple[int, ...]:
        """Returns all identities that occur in ``forget``, sorted."""
        return tuple(sorted((*self.forget_identity, *self.partial)))


def split_counts(count: int) -> tuple[int, int, int]:
    """Divides ``count`` identities in the released proportions 193 : 387 : 194, rounded, each at least 1."""
    if count < MIN_PERSONAS:
        raise InputError(f"personas = {count}: {MIN_PERSONAS} or more are needed for every split to have one")
    total = sum(PROPORTIONS)
    whole = max(1, round(count * PROPORTIONS[0] / total))
    partial = max(1, round(count * PROPORTIONS[1] / total))
    return whole, partial, count - whole - partial


def make_splits(seed: int, count: int) -> Splits:
    """Draws the splits of ``count`` identities from the seed.

    Partial identities are in random order, and their attributes are halved by :func:`halve`.
    """
    whole, partial, _ = split_counts(count)
    rng = np.random.default_rng([seed, _PURPOSE])
    order = [int(index) for index in rng.permutation(count)]
    in_part = order[whole : whole + partial]
    forgotten = dict(zip(in_part, halve(rng, [DATA_FIELDS] * len(in_part)), strict=True))
    return Splits(
        forget_identity=tuple(sorted(order[:whole])),
        partial=tuple(sorted(forgotten)),
        holdout_identity=tuple(sorted(order[whole + partial :])),
        forgotten_fields=forgotten,
    )


def halve(rng: np.random.Generator, attributes: Sequence[Collection[str]]) -> list[frozenset[str]]:
    """Returns which attributes of each partial identity are in ``forget``, of those that it has, ``attributes``.

    Identities are taken in pairs, each pair with a random order of all attributes: of the first, the first half of its own
    are in ``forget`` (of nine, five), of the second those after the first half (four). Two identities with the same
    attributes thus have each of them once in ``forget`` and once in ``holdout_association``. An unpaired last one has the
    larger half in ``forget``, as in the release, where forget_association is the slightly larger half.
    """
    found: list[frozenset[str]] = []
    order: list[str] = []
    for position, own in enumerate(attributes):
        if position % 2 == 0:
            order = [DATA_FIELDS[int(index)] for index in rng.permutation(len(DATA_FIELDS))]
        mine = [field for field in order if field in own]
        half = (len(mine) + 1) // 2
        found.append(frozenset(mine[half:] if position % 2 else mine[:half]))
    return found


def retain_joint_identities(seed: int, splits: Splits, count: int) -> list[int]:
    """Returns whom the ``count`` portraits of retain_joint show: identities of ``forget`` in turn, sorted."""
    rng = np.random.default_rng([seed, _PURPOSE, 1])
    rounds = range(-(-count // len(splits.forget)))
    order = [int(index) for _ in rounds for index in rng.permutation(splits.forget)]
    return sorted(order[:count])


def retain_disjoint_difficulties(seed: int, count: int, fragile: int) -> np.ndarray:
    """Returns how hard the ``count`` portraits of retain_disjoint are to recognise, float64 [count], 0 to 1.

    The release ranks retain_disjoint by a model's similarity and calls the lowest fragile. Here no model exists yet: a
    random ``fragile`` of the portraits are made hard (0.6 to 1: the argument ``difficulty`` of ``make_shot``) and the
    others easy (0 to 0.4), ``1 - difficulty`` stands for the similarity, and the fragile set is again the lowest.
    """
    rng = np.random.default_rng([seed, _PURPOSE, 2])
    difficulty = rng.uniform(0.0, 0.4, count)
    difficulty[rng.permutation(count)[:fragile]] += 0.6
    return difficulty

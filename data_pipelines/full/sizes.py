"""Says how many people, anchors and pairs a data set has: those published for 774 people, and in proportion for any number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from data_pipelines.world.splits import PROPORTIONS, split_counts
from salmu_jax.runtime.errors import InputError

PEOPLE = sum(PROPORTIONS)  # 774
ANCHORS = 1_000  # the paper's, of which curation keeps 774
PAIRS = {
    "forget_identity": 15_342,
    "forget_association": 15_126,
    "holdout_association": 14_943,
    "holdout_identity": 14_642,
    "retain_joint": 1_000,
    "retain_disjoint": 15_741,
}
"""Pairs of each subset. The four sensitive ones, and the sum of the two others, are published; that sum is divided by us."""
FRAGILE = 1_600  # of retain_disjoint; the published size is not known


class Sizes(NamedTuple):
    """What a data set is to have.

    Attributes:
      people: identities in it.
      anchors: identities that portraits are made of before curation.
      pairs: {subset: pairs}.
      fragile: the size of the fragile set.
    """

    people: int
    anchors: int
    pairs: Mapping[str, int]
    fragile: int


def sizes_of(people: int, anchors: int = 0) -> Sizes:
    """Returns the sizes for ``people``, with ``anchors`` or (0) in the proportion of the paper, rounded up.

    The pairs of a subset are in proportion to the identities that have them. Raises InputError for too few of either.
    """
    whole, partial, holdout = split_counts(people)
    shares = {
        "forget_identity": whole / PROPORTIONS[0],
        "forget_association": partial / PROPORTIONS[1],
        "holdout_association": partial / PROPORTIONS[1],
        "holdout_identity": holdout / PROPORTIONS[2],
        "retain_joint": (whole + partial) / (PROPORTIONS[0] + PROPORTIONS[1]),
        "retain_disjoint": people / PEOPLE,
    }
    anchors = anchors or -(-people * ANCHORS // PEOPLE)
    if anchors <= people:
        raise InputError(
            f"is {anchors:,}, for {people:,} people; more are needed, since retain_disjoint shows those whom curation drops",
            "anchors",
        )
    pairs = {subset: max(1, round(count * shares[subset])) for subset, count in PAIRS.items()}
    return Sizes(people, anchors, pairs, max(1, round(FRAGILE * people / PEOPLE)))

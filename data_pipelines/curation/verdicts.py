"""Decides which identities and portraits are kept, test by test, and says why each other one is dropped.

In this order, so that a fault is named by the test that is made for it:

    near duplicate    of an earlier portrait of the same identity: the portrait is dropped
    inconsistent      too many portraits are outlying, or the median portrait is: the identity is dropped
    outlying          unlike the other portraits of its identity: the portrait is dropped
    region, gender, age   the portraits do not look as annotated: the identity is dropped
    indistinct        from a more consistent identity: too many portraits of one are nearer to the other: dropped
    too few           portraits are left: dropped
    surplus           of those that pass, ``keep`` with the highest score are kept
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.curation.demographics import ATTRIBUTES
from data_pipelines.curation.duplicates import Duplicate, find_duplicates
from data_pipelines.curation.embedding import Embedded
from data_pipelines.curation.measures import ROUND, centre, confusions, nearest, own_similarities
from data_pipelines.curation.thresholds import People, Standard, Thresholds
from data_pipelines.portraits.source import Anchor

DUPLICATE, OUTLYING = "near duplicate", "outlying"
INCONSISTENT, INDISTINCT, TOO_FEW, SURPLUS = "inconsistent", "indistinct", "too few", "surplus"
REASONS = (INCONSISTENT, *ATTRIBUTES, INDISTINCT, TOO_FEW, SURPLUS)


@dataclasses.dataclass(frozen=True)
class Dropped:
    """Why an identity or a portrait is dropped.

    Attributes:
      reason: a test, one of ``REASONS`` for an identity; ``DUPLICATE`` or ``OUTLYING`` for a portrait.
      measured, threshold: what the test measured, and the least or most that was demanded.
      what: what is measured, in words.
      other: the file that a portrait repeats; the identity that an identity is too near to; the value it looks like.
    """

    reason: str
    measured: float
    threshold: float
    what: str
    other: str | None = None


@dataclasses.dataclass
class Judged:
    """An identity under judgement.

    Attributes:
      anchor, portraits: as annotated; all of them.
      rows: of the portraits that are left.
      files: the portraits that were dropped, by row.
      own: the similarity of each portrait to the centre of the others that are not duplicates, by row.
      centre: of the portraits that are left.
      consistency: the median of ``own``, without duplicates.
      nearest, nearest_similarity: the nearest other identity that passes all tests but the last.
      score: ``consistency - nearest_similarity``; the highest are kept.
      dropped: why; None for an identity that is kept.
    """

    anchor: Anchor
    portraits: Embedded
    rows: np.ndarray
    files: dict[int, Dropped] = dataclasses.field(default_factory=dict)
    own: dict[int, float] = dataclasses.field(default_factory=dict)
    centre: np.ndarray | None = None
    consistency: float = 1.0
    nearest: str | None = None
    nearest_similarity: float = 0.0
    score: float = 0.0
    dropped: Dropped | None = None

    def measures(self) -> dict[str, Any]:
        """Returns what was measured, as JSON."""
        return {
            "portraits": len(self.portraits.names),
            "left": len(self.rows),
            "consistency": self.consistency,
            "nearest": self.nearest,
            "nearest_similarity": self.nearest_similarity,
            "score": self.score,
        }


def judge(people: People, standard: Standard, *, keep: int, fewest: int) -> list[Judged]:
    """Returns the verdict on each identity, by number.

    Args:
      people: of the data set.
      standard: thresholds, and what reads annotations.
      keep: identities to keep at most.
      fewest: portraits that an identity needs.
    """
    judged = [
        _judge_portraits(anchor, portraits, standard.thresholds)
        for anchor, portraits in zip(people.anchors, people.portraits, strict=True)
    ]
    for one in judged:
        if one.dropped is None:
            one.dropped = _judge_annotations(one, standard)
    _judge_distinctness([one for one in judged if one.dropped is None], standard.thresholds)
    for one in judged:
        if one.dropped is None and len(one.rows) < fewest:
            one.dropped = Dropped(TOO_FEW, len(one.rows), fewest, "portraits that are left")
    _rank([one for one in judged if one.dropped is None], keep)
    return judged


def _judge_portraits(anchor: Anchor, portraits: Embedded, thresholds: Thresholds) -> Judged:
    one = Judged(anchor, portraits, np.arange(len(portraits.names)))
    duplicates = find_duplicates(portraits, thresholds.duplicate_similarity, thresholds.duplicate_distance)
    one.files = {duplicate.row: _duplicate(portraits, duplicate, thresholds) for duplicate in duplicates}
    one.rows = np.array([row for row in one.rows if row not in one.files], int)
    own = np.round(own_similarities(portraits.vectors[one.rows]).astype(np.float64), ROUND)
    one.own = dict(zip(one.rows.tolist(), own.tolist(), strict=True))
    one.consistency = round(float(np.median(own)), ROUND)
    one.centre = centre(portraits.vectors[one.rows])
    outlying = own < thresholds.portrait
    share = round(float(np.mean(outlying)), ROUND)
    if share > thresholds.outlying:
        one.dropped = Dropped(INCONSISTENT, share, thresholds.outlying, "share of portraits that are outlying")
        return one
    if one.consistency < thresholds.consistency:
        what = "median similarity of a portrait to the others"
        one.dropped = Dropped(INCONSISTENT, one.consistency, thresholds.consistency, what)
        return one
    what = "similarity to the other portraits"
    for row in one.rows[outlying].tolist():
        one.files[row] = Dropped(OUTLYING, one.own[row], thresholds.portrait, what)
    one.rows = one.rows[~outlying]
    one.centre = centre(portraits.vectors[one.rows])
    return one


def _duplicate(portraits: Embedded, found: Duplicate, thresholds: Thresholds) -> Dropped:
    what = f"similarity to an earlier portrait, with hashes {found.distance} bits apart"
    similarity = round(found.similarity, ROUND)
    return Dropped(DUPLICATE, similarity, thresholds.duplicate_similarity, what, portraits.names[found.of])


def _judge_annotations(one: Judged, standard: Standard) -> Dropped | None:
    for name in ATTRIBUTES:
        evidence, looks = standard.discriminants[name].evidence(
            one.portraits.vectors[one.rows], getattr(one.anchor, name)
        )
        threshold = standard.thresholds.evidence[name]
        if round(evidence, ROUND) < threshold:
            what = f"evidence for the annotated {name} against the likeliest other one (mean log-odds of a portrait)"
            return Dropped(name, round(evidence, ROUND), threshold, what, looks)
    return None


def _judge_distinctness(passing: list[Judged], thresholds: Thresholds) -> None:
    """Drops the less consistent of any two that are taken for each other, beginning with those that most often are."""
    if len(passing) < 2:
        return
    shares = np.round(confusions([one.portraits.vectors[one.rows] for one in passing]), ROUND)
    rows, columns = np.nonzero(np.triu(shares > thresholds.distinctness, 1))
    pairs = sorted(zip(rows.tolist(), columns.tolist(), strict=True), key=lambda pair: (-shares[pair], pair))
    for pair in pairs:
        first, second = passing[pair[0]], passing[pair[1]]
        if first.dropped or second.dropped:
            continue
        worse, better = (first, second) if first.consistency < second.consistency else (second, first)
        what = "share of portraits of one of two identities that are nearer to the other"
        worse.dropped = Dropped(
            INDISTINCT, float(shares[pair]), thresholds.distinctness, what, better.anchor.identity_id
        )


def _rank(passing: list[Judged], keep: int) -> None:
    """Scores identities, and drops all but the ``keep`` best; of equal ones, those with the lower numbers stay."""
    if len(passing) > 1:
        which, similarities = nearest(np.stack([one.centre for one in passing if one.centre is not None]))
        for one, other, similarity in zip(passing, which.tolist(), similarities.tolist(), strict=True):
            one.nearest = passing[other].anchor.identity_id
            one.nearest_similarity = round(similarity, ROUND)
    for one in passing:
        one.score = round(one.consistency - one.nearest_similarity, ROUND)
    ranked = sorted(passing, key=lambda one: (-one.score, one.anchor.number))
    for one in ranked[keep:]:
        what = "score: consistency less the similarity to the nearest other identity"
        one.dropped = Dropped(SURPLUS, one.score, ranked[keep - 1].score, what)


def by_reason(judged: Sequence[Judged]) -> Mapping[str, list[Judged]]:
    """Returns the dropped identities by reason, in the order of the tests; reasons without any have an empty list."""
    return {
        reason: [one for one in judged if one.dropped is not None and one.dropped.reason == reason]
        for reason in REASONS
    }

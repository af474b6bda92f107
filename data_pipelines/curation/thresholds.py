"""Measures the thresholds of curation on people who are not in the data set and whose annotations are right.

Each threshold lies between the distributions of good and of bad cases among *held-out* people, whom neither the encoder nor
the discriminants have been trained on; bad cases are planted there: people mixed or blended with those most like them, and
annotations exchanged.
A threshold is half-way between the two if they are apart at the stated rate of mistakes; else that share of the good is
dropped.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.curation.demographics import ATTRIBUTES, Discriminant, fit_discriminant
from data_pipelines.curation.embedding import Embedded
from data_pipelines.curation.measures import (
    boundary,
    centre,
    confusions,
    halves_confused,
    nearest,
    own_similarities,
    pooled_quantile,
)
from data_pipelines.curation.pixels import hash_distances
from data_pipelines.portraits.source import Anchor
from salmu_jax.runtime.errors import InputError

FEWEST_HELD_OUT = 20  # identities; quantiles of fewer say nothing


@dataclasses.dataclass(frozen=True)
class Rates:
    """The shares of mistakes that are accepted at most, where good and bad overlap (``measures.boundary``).

    Attributes:
      portraits: by the similarity of a portrait to the others of its identity.
      identities: by each test of consistency and distinctness.
      annotations: of right annotations that may be called wrong, by each attribute. A larger share finds more wrong ones, but
        drops more people whose annotations are right.
      duplicates: of near duplicates that may be missed, by embedding and by hash each.
      distinct: of pairs of distinct portraits of one identity that may be taken for near duplicates by their hashes. A hundred
        portraits are 5,000 pairs.
      intruders: the share of portraits of somebody else that makes an identity inconsistent.
    """

    portraits: float = 0.005
    identities: float = 0.002
    annotations: float = 0.001
    duplicates: float = 0.01
    distinct: float = 1e-4
    intruders: float = 0.15


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What is demanded of portraits and identities.

    Attributes:
      portrait: the least similarity of a portrait to the centre of the other portraits of its identity.
      outlying: the largest share of portraits below ``portrait`` that an identity may have.
      consistency: the least median of those similarities.
      evidence: by attribute, the least evidence for what is annotated (``Discriminant.evidence``); at most 0, so that
        nobody is dropped who looks as annotated.
      distinctness: the largest share of the portraits of one of two identities that may be nearer to the other.
      duplicate_similarity, duplicate_distance: portraits of one identity as alike as this, by both, are duplicates.
    """

    portrait: float
    outlying: float
    consistency: float
    evidence: Mapping[str, float]
    distinctness: float
    duplicate_similarity: float
    duplicate_distance: int


@dataclasses.dataclass(frozen=True)
class People:
    """Identities as annotated and as embedded, in the same order."""

    anchors: Sequence[Anchor]
    portraits: Sequence[Embedded]

    def vectors(self) -> list[np.ndarray]:
        return [of_one.vectors for of_one in self.portraits]


@dataclasses.dataclass(frozen=True)
class Standard:
    """Thresholds, what reads annotations, and how both came about (for the report)."""

    thresholds: Thresholds
    discriminants: Mapping[str, Discriminant]
    report: Mapping[str, Any]


def measure_standard(
    trained: People, held_out: People, altered: Sequence[tuple[Embedded, Embedded]], rates: Rates
) -> Standard:
    """Measures all thresholds.

    Args:
      trained: people to whom the discriminants are fitted.
      held_out: other people, on whom thresholds are measured.
      altered: for some of the latter, portraits and near duplicates of them, in the same order.
      rates: the shares of mistakes that are accepted.

    Raises InputError if there are too few people for it.
    """
    if len(held_out.anchors) < FEWEST_HELD_OUT:
        raise InputError(
            f"has {len(held_out.anchors)} held-out identities; {FEWEST_HELD_OUT} or more would be right",
            "the reference",
        )
    discriminants = {
        name: fit_discriminant(trained.vectors(), [getattr(anchor, name) for anchor in trained.anchors])
        for name in ATTRIBUTES
    }
    own = [own_similarities(vectors) for vectors in held_out.vectors()]
    others = _to_others(held_out)
    portrait = boundary(np.concatenate(own), others, rates.portraits)
    mixed = [own_similarities(vectors) for vectors in _mixed(held_out, rates.intruders)]
    good, bad = ([-float(np.mean(of_one < portrait)) for of_one in everybody] for everybody in (own, mixed))
    outlying = -boundary(good, bad, rates.identities)
    drifting = [own_similarities(vectors) for vectors in _drifting(held_out)]
    medians, drifted = ([float(np.median(of_one)) for of_one in everybody] for everybody in (own, drifting))
    consistency = boundary(medians, drifted, rates.identities)
    between = confusions(held_out.vectors()).max(axis=1)
    halves = np.array([halves_confused(vectors) for vectors in held_out.vectors()])
    similarities, distances = _likeness(altered)
    thresholds = Thresholds(
        portrait=portrait,
        outlying=outlying,
        consistency=consistency,
        evidence={
            name: min(0.0, boundary(*_evidence(held_out, name, discriminants[name]), rates.annotations))
            for name in ATTRIBUTES
        },
        distinctness=-boundary(-between, -halves, rates.identities),
        duplicate_similarity=pooled_quantile(similarities, rates.duplicates, low=True),
        duplicate_distance=int(-boundary(-distances, -_apart(held_out), rates.duplicates, rates.distinct)),
    )
    report = {
        "held_out": {"identities": len(held_out.anchors), "portraits": sum(map(len, own))},
        "rates": dataclasses.asdict(rates),
        "thresholds": dataclasses.asdict(thresholds),
        "same_person": {
            "portrait_to_own_centre": summary(np.concatenate(own)),
            "median_of_an_identity": summary(medians),
            "confusion_of_two_halves": summary(halves),
        },
        "other_person": {
            "portrait_to_another_centre": summary(others),
            "confusion_with_the_most_alike": summary(between),
            "median_of_a_drifting_identity": summary(drifted),
        },
        "near_duplicates": {"similarity": summary(similarities), "bits": summary(distances)},
        "distinct_portraits_taken_for_duplicates": _false_duplicates(held_out, thresholds),
        "annotations": _accuracy(held_out, discriminants, thresholds),
        "planted": _found(held_out, thresholds),
    }
    return Standard(thresholds, discriminants, report)


def summary(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Returns quantiles of a distribution, and a histogram of 40 equal bins for a chart."""
    found = np.asarray(values, np.float64)
    if not len(found):
        return {"count": 0}
    quantiles = {f"{100 * share:g} %": round(float(np.quantile(found, share)), 4) for share in _QUANTILES}
    counts, edges = np.histogram(found, bins=40)
    histogram = {"from": round(float(edges[0]), 4), "to": round(float(edges[-1]), 4), "counts": counts.tolist()}
    return {"count": len(found), "quantiles": quantiles, "histogram": histogram}


_QUANTILES = (0.0, 0.001, 0.01, 0.05, 0.5, 0.95, 0.99, 0.999, 1.0)


def _evidence(people: People, name: str, discriminant: Discriminant) -> tuple[list[float], list[float]]:
    """Returns the evidence for what is annotated, an identity each, and for every value that is not."""
    right: list[float] = []
    wrong: list[float] = []
    for anchor, portraits in zip(people.anchors, people.portraits, strict=True):
        for value in discriminant.values:
            found = right if value == getattr(anchor, name) else wrong
            found.append(discriminant.evidence(portraits.vectors, value)[0])
    return right, wrong


def _to_others(people: People) -> np.ndarray:
    """Returns the similarity of each portrait to the nearest centre of another identity."""
    centres = np.stack([centre(vectors) for vectors in people.vectors()])
    found = []
    for row, vectors in enumerate(people.vectors()):
        similarities = vectors @ centres.T
        similarities[:, row] = -1
        found.append(similarities.max(axis=1))
    return np.concatenate(found)


def _likeness(altered: Sequence[tuple[Embedded, Embedded]]) -> tuple[np.ndarray, np.ndarray]:
    similarities = [np.einsum("nd,nd->n", before.vectors, after.vectors) for before, after in altered]
    distances = [np.diag(hash_distances(before.hashes, after.hashes)) for before, after in altered]
    return np.concatenate(similarities), np.concatenate(distances)


def _apart(people: People) -> np.ndarray:
    """Returns the distances of the hashes of all pairs of portraits of one identity."""
    return np.concatenate(
        [
            hash_distances(of_one.hashes, of_one.hashes)[np.triu_indices(len(of_one.names), 1)]
            for of_one in people.portraits
        ]
    )


def _false_duplicates(people: People, thresholds: Thresholds) -> dict[str, Any]:
    pairs = alike = 0
    for portraits in people.portraits:
        upper = np.triu_indices(len(portraits.names), 1)
        near = (portraits.vectors @ portraits.vectors.T)[upper] >= thresholds.duplicate_similarity
        close = hash_distances(portraits.hashes, portraits.hashes)[upper] <= thresholds.duplicate_distance
        pairs, alike = pairs + len(near), alike + int(np.sum(near & close))
    return {"pairs": pairs, "alike": alike}


def _accuracy(people: People, discriminants: Mapping[str, Discriminant], thresholds: Thresholds) -> dict[str, Any]:
    """Returns how often an identity looks as annotated, and which annotations would be called wrong: right and wrong ones."""
    found = {}
    for name, discriminant in discriminants.items():
        right = alarms = wrong = caught = 0
        for anchor, portraits in zip(people.anchors, people.portraits, strict=True):
            annotated = getattr(anchor, name)
            evidence, looks = discriminant.evidence(portraits.vectors, annotated)
            right += looks == annotated
            alarms += evidence < thresholds.evidence[name]
            for value in discriminant.values:
                if value != annotated:
                    wrong += 1
                    caught += discriminant.evidence(portraits.vectors, value)[0] < thresholds.evidence[name]
        found[name] = {
            "looks_as_annotated": round(right / len(people.anchors), 4),
            "right_annotations_called_wrong": round(alarms / len(people.anchors), 4),
            "wrong_annotations_found": round(caught / max(wrong, 1), 4),
        }
    return found


def _found(people: People, thresholds: Thresholds) -> dict[str, Any]:
    """Returns the share of identities that are inconsistent once portraits of the most similar other are planted in each."""
    planted = {
        f"{share:.0%} of the portraits are somebody else's": _mixed(people, share)
        for share in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
    }
    planted["the portraits drift towards somebody else"] = _drifting(people)
    return {
        what: round(float(np.mean([_is_inconsistent(vectors, thresholds) for vectors in everybody])), 4)
        for what, everybody in planted.items()
    }


def _drifting(people: People) -> list[np.ndarray]:
    """Returns each identity with embeddings moved towards the most similar other's, a fifth each by 0, 1/4, 1/2, 3/4, 1."""
    found = []
    for vectors, others in _with_nearest(people):
        count = min(len(vectors), len(others))
        share = (np.arange(count) % 5 / 4)[:, None].astype(np.float32)
        blend = (1 - share) * vectors[:count] + share * others[:count]
        found.append(blend / np.linalg.norm(blend, axis=1, keepdims=True))
    return found


def _mixed(people: People, share: float) -> list[np.ndarray]:
    """Returns each identity with a share of its embeddings exchanged for the most similar other's."""
    found = []
    for vectors, others in _with_nearest(people):
        foreign = min(math.ceil(share * len(vectors)), len(others))
        found.append(np.concatenate([others[:foreign], vectors[foreign:]]))
    return found


def _with_nearest(people: People) -> list[tuple[np.ndarray, np.ndarray]]:
    everybody = people.vectors()
    which, _ = nearest(np.stack([centre(vectors) for vectors in everybody]))
    return [(vectors, everybody[other]) for vectors, other in zip(everybody, which.tolist(), strict=True)]


def _is_inconsistent(vectors: np.ndarray, thresholds: Thresholds) -> bool:
    own = own_similarities(vectors)
    too_many = float(np.mean(own < thresholds.portrait)) > thresholds.outlying
    return too_many or float(np.median(own)) < thresholds.consistency

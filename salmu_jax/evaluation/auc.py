"""Writes the area under the ROC curve, and a point of the curve, as means of one score a row, as metrics are.

The area is the chance that a positive scores above a negative, ties counting half (Mann and Whitney). Its scores here are
DeLong's (1988) structural components: a row's *placement* is the share of the other class that it is on the right side of,
and the score is the area plus the row's part in how the area varies. So a bootstrap over identities (``intervals.py``) sees
the variance of both classes (Obuchowski, "Nonparametric analysis of clustered ROC curve data", 1997).

Rows are compared within a stratum alone: scores of two classifiers, those of two folds, are on no common scale.
"""

from __future__ import annotations

import numpy as np

FALSE_POSITIVES = 0.01  # the rate at which true positives are counted
_ROUNDING = 1e-9  # of a rate


def auc_scores(
    positive: np.ndarray, negative: np.ndarray, positive_stratum: np.ndarray, negative_stratum: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a score for each positive [P] and each negative [N], float64, whose mean over both is the area.

    With several strata, the area is the mean of theirs, weighted by their positives.

    Args:
      positive, negative: [P], [N], the scores of a classifier, higher for a positive.
      positive_stratum, negative_stratum: int [P], [N].

    Raises ValueError for a stratum without a row of one class.
    """
    above, below = np.zeros(len(positive)), np.zeros(len(negative))
    for own, others in _strata(positive_stratum, negative_stratum):
        above[own] = placements(positive[own], negative[others])
        lower = 1 - placements(negative[others], positive[own])
        below[others] = (lower - lower.mean()) * (len(own) / len(others))
    area, scale = above.mean(), 1 + len(negative) / len(positive)
    return area + scale * (above - area), area + scale * below


def true_positives(
    positive: np.ndarray, negative: np.ndarray, positive_stratum: np.ndarray, negative_stratum: np.ndarray
) -> np.ndarray:
    """Returns whether each positive is found at :data:`FALSE_POSITIVES`, bool [P]; the mean is the true positive rate.

    The threshold is the lowest at which at most that share of the stratum's negatives reaches it. Arguments and errors:
    :func:`auc_scores`.
    """
    found = np.zeros(len(positive), bool)
    for own, others in _strata(positive_stratum, negative_stratum):
        ordered = np.sort(negative[others])
        reached = len(ordered) - np.searchsorted(ordered, positive[own], side="left")
        found[own] = reached / len(ordered) <= FALSE_POSITIVES + _ROUNDING
    return found


def placements(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the share of ``others`` [N] below each of ``scores`` [M], ties counting half: float64 [M]."""
    ordered = np.sort(others)
    sides = [np.searchsorted(ordered, scores, side=side) for side in ("left", "right")]
    return (sides[0] + sides[1]) / (2 * len(ordered))


def _strata(positive: np.ndarray, negative: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the rows of both classes in each stratum."""
    names = np.union1d(positive, negative)
    pairs = [(np.flatnonzero(positive == name), np.flatnonzero(negative == name)) for name in names]
    if not pairs or any(not len(rows) for pair in pairs for rows in pair):
        raise ValueError("an area needs rows of both classes in each stratum")
    return pairs

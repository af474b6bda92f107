"""Divides rows into folds by identity, so that what is fitted on some people is judged on others.

A fold holds people of each kind in equal shares (wholly forgotten, partly, held out). The draw depends on the seed, the
purpose and the number of people of each kind alone, so it can be repeated from row scores.
"""

from __future__ import annotations

import numpy as np

from salmu_jax.evaluation import draws

FOLDS = 5
NOBODY = -1  # the fold of a row without an identity


def draw_folds(identity: np.ndarray, kind: np.ndarray, *, seed: int, purpose: int) -> np.ndarray:
    """Returns the fold of each row, int64 [N], of :data:`FOLDS`, or of as many as hold two people each.

    Args:
      identity: int [N], a number a person, -1 for a row of nobody; only the order of the numbers matters.
      kind: int [N], what person it is; a person is of the lowest kind of its rows.
      seed, purpose: of the draw.
    """
    people, owner = np.unique(identity, return_inverse=True)
    kinds = np.full(len(people), np.iinfo(np.int64).max)
    np.minimum.at(kinds, owner, kind)
    real = np.flatnonzero(people >= 0)
    count = max(1, min(FOLDS, len(real) // 2))
    order = draws.generator(seed, purpose).permutation(len(real))
    order = order[np.argsort(kinds[real][order], kind="stable")]
    fold = np.full(len(people), NOBODY)
    fold[real[order]] = np.arange(len(real)) % count
    return fold[owner]

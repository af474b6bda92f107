"""The blind attack of CLIP-MIA-Bench (AAAI 2026): what captions alone give away about membership, without any model.

TF-IDF of words and pairs of words, and a logistic regression, by scikit-learn's defaults. Each fold of people is scored by a
regression on the others. It is the control of every other attack: Das, Zhang and Tramer ("Blind baselines beat membership
inference attacks", 2024) showed that most published splits give themselves away. Its interval
takes the regressions as they were fitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from salmu_jax.evaluation.sparse_logistic import fit_sparse_logistic
from salmu_jax.evaluation.tfidf import count_terms, weigh

_DECIMALS = 3  # of a score: more would differ between machines, and results of two machines could not be compared


def blind_scores(members: Sequence[str], matched: Sequence[str], folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the attack's logit of each caption and of its matched one, two float64 [N], rounded.

    ``folds`` int [N] is the fold of each row; two or more occur.
    """
    counts = count_terms([*members, *matched])
    fold = np.concatenate([folds, folds])
    is_member = np.arange(len(fold)) < len(folds)
    scores = np.zeros(len(fold))
    for held_out in np.unique(folds):
        train = fold != held_out
        design = weigh(counts, train)
        weights, intercept = fit_sparse_logistic(design.take(train), is_member[train])
        scores[~train] = (design.times(weights) + intercept)[~train]
    scores = scores.round(_DECIMALS)
    return scores[: len(folds)], scores[len(folds) :]

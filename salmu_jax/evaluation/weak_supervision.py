"""The weakly supervised attack (WSA) of CLIP-MIA-Bench (AAAI 2026): it learns what members look like from guessed labels.

The attacker knows some non-members. Of pairs that it knows nothing about, those more similar than most non-members are taken
for members, and a logistic classifier on image embedding, text embedding and cosine learns the difference. The settings are
the published ones; the weights start at 0, so that nothing but the data decides.

Nobody is judged whom it was trained on. For each fold of people, half of the other folds (rounded up) give the known
non-members, the rest the unlabelled pairs, members and non-members alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from salmu_jax.evaluation import draws

DEVIATIONS = 0.5  # above the mean similarity of non-members, from which a pair is taken for a member
LEARNING_RATE, EPOCHS, BATCH = 1e-3, 5, 1_024
WEIGHT_DECAY = 0.01  # AdamW's usual, as the moments and epsilon below
_MOMENTS, _EPSILON = (0.9, 0.999), 1e-8
LEAST_FOLDS = 3  # one judged, one known, one unlabelled


def weak_scores(
    images: np.ndarray, members: np.ndarray, matched: np.ndarray, folds: np.ndarray, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the attack's logit of each pair and of its matched non-member, two float64 [N].

    Args:
      images, members, matched: float32 [N, D], the embeddings of each image, its caption and its matched caption.
      folds: int [N], the fold of each row's person; :data:`LEAST_FOLDS` or more occur.
      seed: of the order of the batches.
    """
    rows = len(images)
    cosine = np.concatenate([(images * texts).sum(1, dtype=np.float64) for texts in (members, matched)])
    texts = np.concatenate([members, matched])

    def features(pairs: np.ndarray) -> np.ndarray:
        return np.concatenate([images[pairs % rows], texts[pairs], cosine[pairs, None]], axis=1, dtype=np.float64)

    fold = np.concatenate([folds, folds])
    is_member = np.arange(2 * rows) < rows
    names = np.unique(folds)
    scores = np.zeros(2 * rows)
    for place, held_out in enumerate(names):
        others = np.roll(names, -place)[1:]
        known = np.isin(fold, others[: (len(others) + 1) // 2]) & ~is_member
        open_to_guess = np.isin(fold, others[(len(others) + 1) // 2 :])
        guessed = open_to_guess & (cosine >= cosine[known].mean() + DEVIATIONS * cosine[known].std())
        pairs = np.flatnonzero(known | guessed)
        rng = np.random.default_rng([seed, draws.WEAK_BATCHES, place])
        weights = fit_adamw(features, pairs, guessed[pairs], rng)
        judged = np.flatnonzero(fold == held_out)
        for start in range(0, len(judged), BATCH):
            some = judged[start : start + BATCH]
            scores[some] = features(some) @ weights[:-1] + weights[-1]
    return scores[:rows], scores[rows:]


def fit_adamw(
    features: Callable[[np.ndarray], np.ndarray], pairs: np.ndarray, label: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Fits a logistic classifier by AdamW on the mean cross-entropy of each batch; returns the weights and the intercept.

    Args:
      features: returns float64 [B, K] of pairs int [B].
      pairs: int [N], those that are learnt from.
      label: bool [N], theirs.
      rng: draws the order of the rows, anew in each epoch.
    """
    weights = first = second = np.zeros(features(pairs[:1]).shape[1] + 1)
    step = 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(label))
        for start in range(0, len(label), BATCH):
            rows = order[start : start + BATCH]
            design = np.append(features(pairs[rows]), np.ones((len(rows), 1)), axis=1)
            probability = np.exp(-np.logaddexp(0.0, -(design @ weights)))
            gradient = design.T @ (probability - label[rows]) / len(rows)
            step += 1
            first = _MOMENTS[0] * first + (1 - _MOMENTS[0]) * gradient
            second = _MOMENTS[1] * second + (1 - _MOMENTS[1]) * gradient**2
            size = np.sqrt(second / (1 - _MOMENTS[1] ** step)) + _EPSILON
            update = first / (1 - _MOMENTS[0] ** step) / size
            weights = weights * (1 - LEARNING_RATE * WEIGHT_DECAY) - LEARNING_RATE * update
    return weights

"""Makes every random draw of the evaluation.

A draw depends on the seed, its purpose and the sizes involved, and on nothing else: not on the order of metrics or
models, nor on batch sizes. Identical checkpoints therefore get identical results, and two models are compared on the
same galleries, the same negatives and the same resampled identities.

RetFail's galleries can also be drawn as the released evaluator draws them (``released``), so that ranks may be compared row
by row with a published result file. The other draws of the released evaluator cannot be repeated: it does not reset its
generator between models.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from salmu_jax.runtime.errors import InputError

DRAWS = ("ours", "released")

TARGET_POOL = 401  # retrieval distractors from the split whose images are queried (forget, or a holdout)
RETAIN_POOL = 402  # retrieval distractors from retain_disjoint
ACS_NEGATIVES = 403  # which caption an image is wrongly paired with
ACS_SPLIT = 404  # which half of the pairs the logistic regression is trained on
BOOTSTRAP = 405  # which identities a bootstrap sample holds
SIGN_FLIPS = 406  # whose differences change their sign, of a test of paired differences
PARAPHRASES = 407  # which captions of others a fact is worded like
WORDINGS = 408  # which hand-written wordings a fact is put in
MATCHED_FOLDS = 410  # which people of a split are judged together by an attack
MATCHED_NAMES = 411  # whose surname and whose values the matched non-members get
WEAK_BATCHES = 412  # the order of the rows that the weakly supervised attack learns from
GUESSED_FOLDS = 413  # which people are judged together when it is guessed who was forgotten
RELEARN_ROWS = 421  # the forget rows that a model is fine-tuned on again
RELEARN_IDENTITIES = 422  # the identities whose forget rows it is fine-tuned on
RELEARN_ORDER = 423  # the order of these rows


def generator(seed: int, purpose: int) -> np.random.Generator:
    """Returns the generator of one purpose: ``numpy.random.default_rng([seed, purpose])``."""
    return np.random.default_rng([seed, purpose])


def draw_pool(rows: int, size: int, seed: int, purpose: int) -> np.ndarray:
    """Draws ``min(size, rows)`` distinct row numbers out of ``rows``, int64, in increasing order."""
    return np.sort(generator(seed, purpose).choice(rows, size=min(size, rows), replace=False))


def draw_pools(rows: Mapping[str, int], size: int, seed: int, how: str = "ours") -> dict[str, np.ndarray]:
    """Draws RetFail's pools of distractors: up to ``size`` row numbers per entry of ``rows``, int64, in increasing order.

    Args:
      rows: how many captions each pool is drawn from: ``forget``, ``retain_disjoint``, and the holdouts.
      how: ``ours``: each pool by itself, by :func:`draw_pool`. ``released``: numpy's legacy generator,
        ``RandomState(seed)``, draws from forget, then from retain_disjoint; then from the rest, which the released
        evaluator does not query.
    """
    check_draws(how)
    if how == "ours":
        purposes = {"retain_disjoint": RETAIN_POOL}
        return {name: draw_pool(count, size, seed, purposes.get(name, TARGET_POOL)) for name, count in rows.items()}
    legacy = np.random.RandomState(seed)
    first = [name for name in ("forget", "retain_disjoint") if name in rows]
    return {
        name: np.sort(legacy.choice(rows[name], min(size, rows[name]), replace=False)).astype(np.int64)
        for name in (*first, *(name for name in rows if name not in first))
    }


def check_draws(how: str, where: str = "evaluate.draws") -> None:
    """Raises InputError for a way of drawing that is none of :data:`DRAWS`."""
    if how not in DRAWS:
        raise InputError(f"is {how!r}; {' and '.join(DRAWS)} are possible", where)


def draw_negatives(rows: int, seed: int) -> np.ndarray:
    """Draws for every row the row whose caption is its negative: a uniform permutation, int64 [rows].

    The permutation is taken as it falls: a row may meet its own caption (about one row does), as in the published
    definition ("a caption from a random permutation").
    """
    return generator(seed, ACS_NEGATIVES).permutation(rows)


def draw_part(labels: np.ndarray, share: float, seed: int, purpose: int) -> np.ndarray:
    """Draws a share of the distinct ``labels`` [N], at least one, and returns which rows have them: bool [N].

    A smaller share is part of a larger one. Labels count by their order alone, so numbers and names give the same rows.
    """
    kinds, owner = np.unique(labels, return_inverse=True)
    order = generator(seed, purpose).permutation(len(kinds))
    return np.isin(owner, order[: max(1, round(share * len(kinds)))])


def draw_halves(positives: int, negatives: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a stratified half split of ``positives`` rows followed by ``negatives`` rows.

    Returns (train, test), int64 row numbers in increasing order. Each class is halved by its own permutation; of an odd
    number of positives the smaller half is trained on, of an odd number of negatives the larger, so that the two halves
    differ in size by at most one row.
    """
    rng = generator(seed, ACS_SPLIT)
    positive = rng.permutation(positives)
    negative = positives + rng.permutation(negatives)
    cut_positive, cut_negative = positives // 2, (negatives + 1) // 2
    train = np.concatenate([positive[:cut_positive], negative[:cut_negative]])
    test = np.concatenate([positive[cut_positive:], negative[cut_negative:]])
    return np.sort(train), np.sort(test)

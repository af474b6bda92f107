"""Computes similarities of portraits and identities from their embeddings. All vectors are float32 of length 1."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

ROUND = 6  # decimals of what is compared and written, so that a last bit decides nothing


def centre(vectors: np.ndarray) -> np.ndarray:
    """Returns the direction of the mean of [N, D], N >= 1."""
    total = vectors.sum(axis=0, dtype=np.float64)
    return (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)


def own_similarities(vectors: np.ndarray) -> np.ndarray:
    """Returns the similarity of each of [N, D] to the centre of the others (leave one out), float32 [N]; 1 if alone."""
    if len(vectors) < 2:
        return np.ones(len(vectors), np.float32)
    others = vectors.sum(axis=0, dtype=np.float64) - vectors
    products = np.einsum("nd,nd->n", vectors, others)
    return (products / np.maximum(np.linalg.norm(others, axis=1), 1e-12)).astype(np.float32)


def mistaken(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Returns which share of an identity's portraits is at least as near to each other centre as to their own.

    Args:
      vectors: of the identity, [N, D]; the centre of its own leaves out the portrait itself (:func:`own_similarities`).
      centres: of others, [P, D].

    Returns float64 [P].
    """
    own = np.round(own_similarities(vectors), ROUND)
    return np.mean(np.round(vectors @ centres.T, ROUND) >= own[:, None], axis=0)


def confusions(identities: Sequence[np.ndarray]) -> np.ndarray:
    """Returns, for each two of P identities, the larger share of portraits of one :func:`mistaken` for the other's.

    ``identities`` are [N, D] each. Returns float64 [P, P], symmetric, with zeros on the diagonal.
    """
    centres = np.stack([centre(vectors) for vectors in identities])
    shares = np.stack([mistaken(vectors, centres) for vectors in identities])
    np.fill_diagonal(shares, 0.0)
    return np.maximum(shares, shares.T)


def halves_confused(vectors: np.ndarray) -> float:
    """Returns the confusion of the portraits of even and of odd index: that of an identity with itself, about a half."""
    return float(confusions([vectors[::2], vectors[1::2]])[0, 1])


def nearest(centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for each centre of [N, D], N >= 2, which other is nearest, int [N], and their similarity, float32 [N]."""
    similarities = centres @ centres.T
    np.fill_diagonal(similarities, -np.inf)
    which = similarities.argmax(axis=1)
    return which, similarities[np.arange(len(centres)), which]


def boundary(
    good: Sequence[float] | np.ndarray,
    bad: Sequence[float] | np.ndarray,
    rate: float,
    bad_rate: float | None = None,
) -> float:
    """Returns the least value that is taken for good, where good ones have the higher values.

    It is half-way between the value that ``rate`` of the good lie below and the one that ``bad_rate`` (``rate``, if None) of
    the bad lie above, where the former is higher: then both kinds of mistake are rarer than that. Else it is the former, or
    the same quantile of a normal distribution of the mean and spread of the good, if that is lower: few values have no tail.
    """
    lowest = pooled_quantile(good, rate, low=True)
    if len(bad):
        highest = pooled_quantile(bad, rate if bad_rate is None else bad_rate, low=False)
        if lowest > highest:
            return (lowest + highest) / 2
    normal = float(np.mean(good)) + statistics.NormalDist().inv_cdf(rate) * float(np.std(good))
    return min(lowest, normal)


def pooled_quantile(values: Sequence[float] | np.ndarray, share: float, *, low: bool) -> float:
    """Returns the value that at most ``share`` of ``values`` lie below (``low``) or above: one of them, or the extreme one."""
    ordered = np.sort(np.asarray(values, np.float64))
    allowed = int(share * len(ordered))
    return float(ordered[allowed] if low else ordered[-1 - allowed])

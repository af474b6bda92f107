"""How sure a mean is: bootstrap over identities, paired differences between models, and a breakdown by attribute.

Rows of one identity resemble each other, so rows are not independent samples; identities are. A bootstrap sample
draws as many identities as there are, with replacement, with all of their rows, and takes the mean over those rows
(Cameron, Gelbach and Miller, "Bootstrap-based improvements for inference with clustered errors", 2008: the pairs
cluster bootstrap). The 95 % interval is between the 2.5th and 97.5th percentile of the samples' means.

The identities that a sample holds depend on the seed and the number of identities alone, so two models over the same
rows are compared on the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from salmu_jax.evaluation import draws

LEVEL = 0.95


class Difference(NamedTuple):
    """A mean of paired differences (first minus second model) and its interval."""

    mean: float
    low: float
    high: float


def clustered_interval(
    values: np.ndarray, identities: Sequence[str] | np.ndarray, *, seed: int, samples: int = 1000, level: float = LEVEL
) -> tuple[float, float]:
    """Returns the bootstrap interval of ``mean(values)`` with whole identities resampled.

    Args:
      values: [N] a row's score (a similarity, a reciprocal rank).
      identities: [N] whose row it is.
      seed: the only source of the draws.
      samples: bootstrap samples.
      level: the share of samples inside the interval.

    Returns: (low, high), float64. Raises ValueError for no rows or unequal lengths.
    """
    low, high = np.quantile(_sample_means(values, identities, seed, samples), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    identities: Sequence[str] | np.ndarray,
    *,
    seed: int,
    samples: int = 1000,
    level: float = LEVEL,
) -> Difference:
    """``mean(first - second)`` of two models' scores of the same rows, with its clustered interval.

    Both models are resampled together, so what an identity has in common under both cancels.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} scores against {len(second)}: both models must have scored the same rows")
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    low, high = clustered_interval(difference, identities, seed=seed, samples=samples, level=level)
    return Difference(float(difference.mean()), low, high)


def _sample_means(values: np.ndarray, identities: Sequence[str] | np.ndarray, seed: int, samples: int) -> np.ndarray:
    """Returns the mean over the rows of each bootstrap sample, float64 [samples].

    A sample is a count an identity, so its mean is a ratio of two weighted sums: no row is ever copied.
    """
    values = np.asarray(values, np.float64)
    if not len(values) or len(values) != len(identities):
        raise ValueError(
            f"{len(values)} scores for {len(identities)} identities' rows; as many are needed, and one at least"
        )
    names, owner = np.unique(np.asarray(identities), return_inverse=True)
    clusters = len(names)
    counts = draws.generator(seed, draws.BOOTSTRAP).multinomial(clusters, np.full(clusters, 1 / clusters), size=samples)
    sums = np.bincount(owner, weights=values, minlength=clusters)
    rows = np.bincount(owner, minlength=clusters)
    return (counts @ sums) / (counts @ rows)

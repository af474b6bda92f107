"""Says how certain a mean is, by a bootstrap over identities.

Rows of one identity resemble each other, so rows are not independent samples; identities are. A bootstrap sample
draws as many identities as there are, with replacement, with all of their rows, and takes the mean over those rows
(Cameron, Gelbach and Miller, "Bootstrap-based improvements for inference with clustered errors", 2008: the pairs
cluster bootstrap). The 95 % interval is between the 2.5th and 97.5th percentile of the samples' means.

The identities that a sample holds depend on the seed and the number of identities alone, so two models over the same
rows are compared on the same samples.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from salmu_jax.evaluation import draws

LEVEL = 0.95
_KEPT = 1 << 21  # counts of one number of clusters that are kept for the next metric or result: 16 MB


class Clusters(NamedTuple):
    """A sample by its clusters: the sum of the values of each, and how many rows it has, both float64 [C].

    ``copies`` int [C] is how many clusters of these sums there are: 1, except where rows are independent and equal values
    were counted.
    """

    sums: np.ndarray
    rows: np.ndarray
    copies: np.ndarray | None = None

    @property
    def total(self) -> int:
        """The number of clusters."""
        return len(self.sums) if self.copies is None else int(self.copies.sum())


def cluster(values: np.ndarray, clusters: Sequence[str] | np.ndarray | None) -> Clusters:
    """Sums ``values`` [N] by ``clusters`` [N] (None: each row is a cluster).

    Raises ValueError for no rows or unequal lengths.
    """
    values = np.asarray(values, np.float64)
    if not len(values) or (clusters is not None and len(values) != len(clusters)):
        found = len(values if clusters is None else clusters)
        raise ValueError(f"{len(values)} scores for {found} identities' rows; as many are needed, and one at least")
    if clusters is None:
        distinct, copies = np.unique(values, return_counts=True)
        return Clusters(distinct, np.ones(len(distinct)), copies)
    names, owner = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(owner, weights=values, minlength=len(names))
    return Clusters(sums, np.bincount(owner, minlength=len(names)).astype(np.float64))


def bootstrap(clusters: Clusters, *, seed: int, samples: int) -> np.ndarray:
    """Returns the mean over the rows of each bootstrap sample, float64 [samples].

    A sample is a count a cluster, so its mean is a ratio of two weighted sums: no row is ever copied.
    """
    size, count = len(clusters.sums), clusters.total
    if clusters.copies is None and samples * size <= _KEPT:
        return (_counts(seed, size, samples) @ clusters.sums) / _rows(seed, clusters.rows.tobytes(), samples)
    shares = np.full(size, 1 / size) if clusters.copies is None else clusters.copies / count
    rng, means = draws.generator(seed, draws.BOOTSTRAP), []
    step = max(1, _KEPT // size)
    for start in range(0, samples, step):  # the same draws as all at once, in bounded memory
        counts = rng.multinomial(count, shares, size=min(step, samples - start)).astype(np.float64)
        means.append((counts @ clusters.sums) / (counts @ clusters.rows))
    return np.concatenate(means)


def percentiles(means: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Returns the interval that holds the share ``level`` of bootstrap means in its middle."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def clustered_interval(
    values: np.ndarray,
    clusters: Sequence[str] | np.ndarray | None,
    *,
    seed: int,
    samples: int = 1000,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Returns the bootstrap interval of ``mean(values)`` with whole clusters resampled: (low, high).

    Args:
      values: [N] a row's score (a similarity, a reciprocal rank).
      clusters: [N] whose row it is; None: each row is independent.
      seed: the only source of the draws.
      samples: bootstrap samples.
      level: the share of samples inside the interval.

    Raises ValueError for no rows or unequal lengths.
    """
    return percentiles(bootstrap(cluster(values, clusters), seed=seed, samples=samples), level)


@functools.lru_cache(maxsize=64)
def _rows(seed: int, rows: bytes, samples: int) -> np.ndarray:
    """Returns how many rows each sample has, float64 [samples]; all results over the same rows have the same."""
    sizes = np.frombuffer(rows, np.float64)
    drawn = _counts(seed, len(sizes), samples) @ sizes
    drawn.setflags(write=False)
    return drawn


@functools.lru_cache(maxsize=16)
def _counts(seed: int, clusters: int, samples: int) -> np.ndarray:
    """Returns how often each sample holds each of equally likely clusters, float64 [samples, clusters], read-only."""
    drawn = draws.generator(seed, draws.BOOTSTRAP).multinomial(clusters, np.full(clusters, 1 / clusters), size=samples)
    counts = drawn.astype(np.float64)
    counts.setflags(write=False)
    return counts

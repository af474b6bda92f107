"""The clustered bootstrap against one that copies rows, and its coverage where rows of an identity agree."""

from __future__ import annotations

import numpy as np
import pytest

from salmu_jax.evaluation import draws, intervals


def clustered(rng, clusters=40, spread=1.0, noise=0.1):
    sizes = rng.integers(1, 12, clusters)
    identities = np.repeat([f"{index:08d}" for index in range(clusters)], sizes)
    values = np.repeat(rng.normal(0, spread, clusters), sizes) + rng.normal(0, noise, sizes.sum())
    return values, identities


def test_against_a_bootstrap_that_copies_rows():
    values, identities = clustered(np.random.default_rng(0))
    names = sorted(set(identities))
    counts = draws.generator(9, draws.BOOTSTRAP).multinomial(len(names), np.full(len(names), 1 / len(names)), size=300)
    means = []
    for sample in counts:
        rows = [
            v
            for name, times in zip(names, sample, strict=True)
            for _ in range(times)
            for v in values[identities == name]
        ]
        means.append(np.mean(rows))
    found = intervals.clustered_interval(values, identities, seed=9, samples=300)
    np.testing.assert_allclose(found, np.quantile(means, [0.025, 0.975]), rtol=1e-9)


def test_interval_is_by_the_seed_alone_and_not_by_row_order():
    values, identities = clustered(np.random.default_rng(1))
    order = np.random.default_rng(2).permutation(len(values))
    first = intervals.clustered_interval(values, identities, seed=1)
    assert first == intervals.clustered_interval(values, identities, seed=1)
    assert first != intervals.clustered_interval(values, identities, seed=2)
    np.testing.assert_allclose(first, intervals.clustered_interval(values[order], identities[order], seed=1), rtol=1e-9)


def test_covers_the_truth_as_often_as_it_says_and_a_row_bootstrap_does_not():
    """60 identities, 600 worlds. The bounds are three standard errors of the nominal rate, and the half per cent that the
    percentile bootstrap lacks with so few clusters."""
    rng = np.random.default_rng(3)
    worlds, covered, naive = 600, 0, 0
    for _ in range(worlds):
        values, identities = clustered(rng, clusters=60)
        low, high = intervals.clustered_interval(values, identities, seed=5, samples=400)
        covered += low <= 0 <= high
        naive += abs(values.mean()) <= 1.96 * values.std() / len(values) ** 0.5  # as if rows were independent
    error = 3 * (0.95 * 0.05 / worlds) ** 0.5
    assert 0.945 - error <= covered / worlds <= 0.95 + error
    assert naive / worlds < 0.8


def test_independent_rows_are_resampled_as_a_binomial():
    """50,000 images that are right or wrong: by counts, not by a matrix of 50,000 x 1,000 draws."""
    right = np.arange(50_000) < 31_650
    clusters = intervals.cluster(right, None)
    assert clusters.total == 50_000
    means = intervals.bootstrap(clusters, seed=4, samples=4_000)
    error = (0.633 * 0.367 / 50_000) ** 0.5
    assert means.mean() == pytest.approx(0.633, abs=4 * error / 4_000**0.5)
    assert means.std() == pytest.approx(error, rel=0.05)
    # As if each row were a cluster of its own.
    few, low_high = right[31_550:31_750], [0.025, 0.975]
    alone = intervals.bootstrap(intervals.cluster(few, np.arange(200)), seed=4, samples=20_000)
    counted = intervals.bootstrap(intervals.cluster(few, None), seed=4, samples=20_000)
    np.testing.assert_allclose(np.quantile(alone, low_high), np.quantile(counted, low_high), atol=0.006)


def test_many_clusters_are_drawn_in_parts_and_the_draws_stay(monkeypatch):
    values, identities = clustered(np.random.default_rng(1))
    whole = intervals.bootstrap(intervals.cluster(values, identities), seed=1, samples=70)
    monkeypatch.setattr(intervals, "_KEPT", 400)
    parts = intervals.bootstrap(intervals.cluster(values, identities), seed=1, samples=70)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="one at least"):
        intervals.clustered_interval([], [], seed=0)
    with pytest.raises(ValueError, match="2 scores for 1 identities' rows"):
        intervals.clustered_interval([0.5, 1.0], ["a"], seed=0)

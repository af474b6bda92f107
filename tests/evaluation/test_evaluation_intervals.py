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


def test_covers_the_truth_about_as_often_as_it_says_and_a_row_bootstrap_does_not():
    rng = np.random.default_rng(3)
    covered = naive = 0
    for trial in range(150):
        values, identities = clustered(rng)
        low, high = intervals.clustered_interval(values, identities, seed=trial, samples=400)
        covered += low <= 0 <= high
        low, high = intervals.clustered_interval(values, np.arange(len(values)), seed=trial, samples=400)
        naive += low <= 0 <= high
    assert 0.86 <= covered / 150 <= 1.0
    assert naive / 150 < 0.8


def test_paired_difference_cancels_what_both_models_share():
    rng = np.random.default_rng(4)
    values, identities = clustered(rng)
    other = values - 0.05 + rng.normal(0, 0.01, len(values))
    difference = intervals.paired_difference(values, other, identities, seed=0)
    assert difference.mean == pytest.approx(0.05, abs=0.01)
    assert 0 < difference.low < difference.mean < difference.high
    low, high = intervals.clustered_interval(values, identities, seed=0)
    assert high - low > 20 * (difference.high - difference.low)
    same = intervals.paired_difference(values, values, identities, seed=0)
    assert same == (0, 0, 0)
    with pytest.raises(ValueError, match="same rows"):
        intervals.paired_difference(values, values[1:], identities, seed=0)


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="one at least"):
        intervals.clustered_interval([], [], seed=0)

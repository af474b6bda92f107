"""Splits: the released proportions, whole associations, balance."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.world.splits import (
    make_splits,
    retain_disjoint_difficulties,
    retain_joint_identities,
    split_counts,
)
from salmu_jax.runtime.errors import InputError


def test_released_counts():
    assert split_counts(774) == (193, 387, 194)
    assert split_counts(96) == (24, 48, 24)


@given(st.integers(4, 3000))
def test_counts_add_up_and_keep_proportions(count):
    counts = split_counts(count)
    assert sum(counts) == count
    assert min(counts) >= 1
    for part, share in zip(counts, (193, 387, 194), strict=True):
        assert abs(part - count * share / 774) <= 1.5


def test_too_few():
    with pytest.raises(InputError, match="4 or more"):
        split_counts(3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 200))
def test_identities_and_associations_are_partitioned(seed, count):
    splits = make_splits(seed, count)
    assert sorted((*splits.forget_identity, *splits.partial, *splits.holdout_identity)) == list(range(count))
    assert splits.forget == tuple(sorted((*splits.forget_identity, *splits.partial)))
    by_field = collections.Counter()
    for identity in range(count):
        of_fields = [splits.split_of(identity, field) for field in DATA_FIELDS]
        if identity in splits.forget_identity:
            assert set(of_fields) == {"forget"}
        elif identity in splits.holdout_identity:
            assert set(of_fields) == {"holdout_identity"}
        else:
            assert sorted(of_fields) in (
                ["forget"] * 4 + ["holdout_association"] * 5,
                ["forget"] * 5 + ["holdout_association"] * 4,
            )
            by_field.update(field for field, split in zip(DATA_FIELDS, of_fields, strict=True) if split == "forget")
    for field in DATA_FIELDS:
        assert abs(by_field[field] - len(splits.partial) / 2) <= 0.5


def test_splits_depend_on_the_seed():
    assert make_splits(1, 96) == make_splits(1, 96)
    assert make_splits(1, 96) != make_splits(2, 96)
    assert len(set(make_splits(1, 96).forgotten_fields.values())) > 24  # drawn for each pair of identities


@given(st.integers(1, 400))
def test_retain_joint_shows_identities_of_forget_evenly(count):
    splits = make_splits(5, 96)
    identities = retain_joint_identities(5, splits, count)
    assert len(identities) == count
    assert set(identities) <= set(splits.forget)
    often = collections.Counter(identities)
    assert max(often.values()) - min(often[index] for index in splits.forget) <= 1


def test_fragile_portraits_are_the_hard_ones():
    difficulty = retain_disjoint_difficulties(3, 500, 50)
    assert difficulty.shape == (500,)
    assert np.sum(difficulty >= 0.6) == 50
    assert np.sum(difficulty <= 0.4) == 450
    assert difficulty.max() <= 1
    assert difficulty.min() >= 0

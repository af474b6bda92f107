"""The plan of pairs: exact counts at any size, associations in one split, portraits used once where there are enough."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.audit.counts import PUBLISHED
from data_pipelines.full.apportion import apportion
from data_pipelines.full.pairs import Album, plan_pairs
from data_pipelines.full.shards import distributions
from data_pipelines.full.sizes import PAIRS, sizes_of
from data_pipelines.layout import DATA_FIELDS
from salmu_jax.runtime.errors import InputError


class Captions(dict):
    """Twelve captions of whatever association is asked for."""

    def __missing__(self, key):
        return [f"{key[0]} {key[1]} {variant}" for variant in range(12)]


def albums(first, counts):
    return [
        Album(number, tuple(f"{number:08d}_{index:03d}_ar-1.50.jpg" for index in range(count)))
        for number, count in enumerate(counts, first)
    ]


def plan_of(people=774, seed=5, portraits=(84, 104), nobodies=None):
    rng = np.random.default_rng(seed)
    sizes = sizes_of(people)
    kept = albums(100, rng.integers(*portraits, people).tolist())
    others = albums(10_000, [100] * (nobodies or -(-sizes.pairs["retain_disjoint"] // 90)))
    return sizes, plan_pairs(seed, sizes, kept[::-1], others, Captions())


@pytest.fixture(scope="module")
def full():
    return plan_of()


def test_the_counts_are_the_published_ones(full):
    sizes, plan = full
    found = distributions(plan)
    flat = {
        f"{group}.{name}": count for group in ("pairs", "subsets", "identities") for name, count in found[group].items()
    }
    assert {name: flat[name] for name in PUBLISHED} == PUBLISHED
    assert flat["pairs.sensitive"] == 60_053
    assert flat["identities.all"] == 774
    assert flat["identities.forget"] == 580
    assert found["subsets"] == PAIRS == sizes.pairs
    assert sizes.anchors == 1_000


def test_an_association_is_in_one_split_and_all_are_there(full):
    _, plan = full
    found = collections.defaultdict(set)
    for row in plan.sensitive():
        found[row.identity_id, row.data_field].add(row.split)
    assert len(found) == 774 * 9
    assert all(len(splits) == 1 for splits in found.values())
    of_person = collections.defaultdict(set)
    for (person, _), splits in found.items():
        of_person[person] |= splits
    kinds = collections.Counter(frozenset(splits) for splits in of_person.values())
    assert kinds == {
        frozenset({"forget"}): 193,
        frozenset({"forget", "holdout_association"}): 387,
        frozenset({"holdout_identity"}): 194,
    }


def test_every_pair_has_a_portrait_of_its_own_person_and_its_own(full):
    _, plan = full
    rows = [row for split in plan.rows.values() for row in split]
    assert plan.reused == 0
    assert len({row.source for row in rows}) == len({row.file_name for row in rows}) == len(rows)
    assert all(row.source.startswith(f"{row.number:08d}_") for row in rows)
    assert all(row.identity_id in (None, f"{row.number:08d}") for row in rows)
    assert all(row.file_name == row.source for row in rows if row.identity_id)
    joint = [row.identity_id for row in rows if row.subset == "retain_joint"]
    assert set(joint) == {row.identity_id for row in plan.rows["forget"]}


def test_pairs_of_an_association_vary_and_have_different_captions(full):
    _, plan = full
    found = collections.defaultdict(list)
    for row in plan.sensitive():
        found[row.identity_id, row.data_field].append(row.caption)
    sizes = collections.Counter(map(len, found.values()))
    assert set(sizes) >= {7, 8, 9, 10}
    assert min(sizes) >= 5
    assert all(len(set(captions)) == len(captions) for captions in found.values() if len(captions) <= 12)
    assert all(f"{person} {field} " in caption for (person, field), texts in found.items() for caption in texts)


def test_rows_go_by_identity_attribute_and_portrait(full):
    _, plan = full
    for split in ("forget", "holdout_association", "holdout_identity"):
        keys = [(row.identity_id, DATA_FIELDS.index(row.data_field), row.source) for row in plan.rows[split]]
        assert keys == sorted(keys)
    kinds = [row.subset for row in plan.rows["retain_synth"]]
    assert kinds == sorted(kinds, reverse=True)


def test_retain_disjoint_shows_nobody_who_is_kept(full):
    _, plan = full
    rows = [row for row in plan.rows["retain_synth"] if row.subset == "retain_disjoint"]
    assert {row.identity_id for row in rows} == {None}
    assert {row.number for row in rows} == set(range(10_000, 10_175))
    assert [row.file_name for row in rows[:2]] == ["synth_000000_ar-1.50.jpg", "synth_000001_ar-1.50.jpg"]


def test_the_plan_depends_on_the_seed_and_not_on_the_order():
    sizes, one = plan_of(24, seed=1)
    rng = np.random.default_rng(1)
    kept = albums(100, rng.integers(84, 104, 24).tolist())
    others = albums(10_000, [100] * -(-sizes.pairs["retain_disjoint"] // 90))
    assert plan_pairs(1, sizes, kept, others[::-1], Captions()).rows == one.rows
    assert plan_pairs(2, sizes, kept, others, Captions()).rows != one.rows


@settings(max_examples=12, deadline=None)
@given(st.integers(4, 60), st.integers(0, 99), st.integers(14, 110))
def test_counts_are_met_at_any_size_and_any_number_of_portraits(people, seed, fewest):
    sizes, plan = plan_of(people, seed, (fewest, fewest + 15))
    found = distributions(plan)
    assert found["subsets"] == sizes.pairs
    assert found["pairs"]["sensitive"] == sum(found["pairs"][split] for split in plan.rows if split != "retain_synth")
    rows = [row for split in plan.rows.values() for row in split]
    assert len({row.file_name for row in rows}) == len(rows)
    assert plan.reused == len(rows) - len({row.source for row in rows})
    shared = collections.defaultdict(set)
    for row in rows:
        shared[row.source].add((row.split, row.data_field))
    assert all(len(uses) == 1 for uses in shared.values()), "a portrait is in two associations"


def test_too_few_portraits_are_named():
    with pytest.raises(InputError, match="person 00000100: has 8 portraits; 9 or more are needed"):
        plan_pairs(
            0, sizes_of(4)._replace(pairs={**sizes_of(4).pairs, "retain_joint": 0}), albums(100, [8] * 4), [], {}
        )
    with pytest.raises(InputError, match="retain_disjoint: 200 portraits of 2 anchors that curation dropped"):
        plan_of(24, nobodies=2)
    with pytest.raises(InputError, match="anchors: is 774, for 774 people; more are needed"):
        sizes_of(774, 774)


@given(st.integers(0, 500), st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(0, 9))
def test_shares_are_whole_exact_and_near_their_quota(total, weights, seed):
    shares = apportion(total, weights, np.random.default_rng(seed))
    assert sum(shares) == total
    even = weights if sum(weights) else [1] * len(weights)
    for share, weight in zip(shares, even, strict=True):
        assert abs(share - total * weight / sum(even)) < 1
        assert share <= weight or total > sum(weights)

"""The validation world obeys the benchmark's rules: whole people, halves of associations, and its proportions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.world.splits import halve, make_splits, split_counts
from salmu_jax.runtime.errors import InputError
from salmu_jax.sweep.division import FORGET, IN_PART, OTHERS, divide


def forget_of(personas: int, seed: int, copies: int = 2) -> tuple[list[str], list[str], list[str]]:
    """The metadata of the forget split of a made world: identities, attributes and subsets, row by row."""
    splits, rows = make_splits(seed, personas), []
    for person in splits.forget:
        subset = "forget_association" if person in splits.partial else "forget_identity"
        for field in DATA_FIELDS:
            if splits.split_of(person, field) == "forget":
                rows += [(f"{person:08d}", field, subset)] * copies
    return tuple(map(list, zip(*rows, strict=True)))


def associations(rows, of) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row, _ in rows:
        found.setdefault(of[0][row], set()).add(of[1][row])
    return found


@settings(deadline=None, max_examples=40)
@given(personas=st.integers(12, 90), world=st.integers(0, 5), seed=st.integers(0, 2**32 - 1), share=st.floats(0.5, 1))
def test_the_inner_split_obeys_the_rules_of_the_benchmark(personas, world, seed, share):
    of = forget_of(personas, world)
    own = associations([(row, "") for row in range(len(of[0]))], of)
    outer_part = {one for one, subset in zip(of[0], of[2], strict=True) if subset == "forget_association"}
    division = divide(*of, share=share, seed=seed)
    inner = {split: associations(rows, of) for split, rows in division.rows.items()}
    people = {*division.whole, *division.part, *division.held_out}
    assert (len(division.whole), len(division.part), len(division.held_out)) == split_counts(len(people))
    assert len(people) == sum(int(share * len(group) + 0.5) for group in (outer_part, set(own) - outer_part))
    assert not set(division.whole) & outer_part
    for person in division.whole:  # all of a person, or all of an association, with each of its rows
        assert inner[FORGET][person] == own[person]
    for person in division.held_out:
        assert inner[OTHERS][person] == own[person]
    for person in division.part:
        assert inner[FORGET][person] | inner[IN_PART][person] == own[person]
        assert not inner[FORGET][person] & inner[IN_PART][person]
        assert abs(len(inner[FORGET][person]) - len(inner[IN_PART][person])) <= 1
    assert set(inner[FORGET]) == {*division.whole, *division.part}
    assert (set(inner[IN_PART]), set(inner[OTHERS])) == (set(division.part), set(division.held_out))
    rows = [row for split in division.rows.values() for row, _ in split]
    assert sorted(rows) == [row for row, one in enumerate(of[0]) if one in people]
    assert all(list(split) == sorted(split) for split in division.rows.values())
    assert division == divide(*of, share=share, seed=seed)


def test_subsets_are_those_of_the_validation_world():
    of = forget_of(24, 0)
    division = divide(*of, share=1.0, seed=3)
    subsets = {
        split: {(of[0][row] in division.whole, subset) for row, subset in rows} for split, rows in division.rows.items()
    }
    assert subsets == {
        FORGET: {(True, "forget_identity"), (False, "forget_association")},
        IN_PART: {(False, "holdout_association")},
        OTHERS: {(False, "holdout_identity")},
    }


def test_another_seed_is_another_world():
    of = forget_of(24, 0)
    assert divide(*of, share=1.0, seed=0) != divide(*of, share=1.0, seed=1)


def test_halves_of_all_attributes_are_five_and_the_other_four():
    first, second, last = halve(np.random.default_rng(0), [DATA_FIELDS] * 3)
    assert (len(first), len(second), len(last)) == (5, 4, 5)
    assert first | second == set(DATA_FIELDS)


@pytest.mark.parametrize(
    ("personas", "share", "words"),
    [
        (4, 1.0, "sweep.share: 1 of forget's 3 people is 3; 4 or more are needed to split them again"),
        (24, 0.1, "sweep.share: 0.1 of forget's 18 people is 2; 4 or more"),
    ],
)
def test_too_few_people_are_refused(personas, share, words):
    with pytest.raises(InputError, match=words):
        divide(*forget_of(personas, 0), share=share, seed=0)


def test_people_that_cannot_be_split_are_refused():
    names, fields = [f"p{n}" for n in range(8)], ["name"] * 8
    with pytest.raises(InputError, match="has 0 more with two associations or more to split, and 4 are needed"):
        divide(names, fields, ["forget_identity"] * 8, share=1.0, seed=0)
    with pytest.raises(InputError, match="has 0 that the benchmark forgets whole, and 2 are needed"):
        divide(names, fields, ["forget_association"] * 8, share=1.0, seed=0)

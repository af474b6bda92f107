"""The figures of a request are those of its rows alone, and what is left of a leak is counted from guessing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from salmu_jax.deletion.measures import Measured, left
from salmu_jax.deletion.neighbours import FACES, NAMES, NEAREST, OTHER_FACTS, People
from salmu_jax.evaluation.data import Rows

PROTOCOL = {"gallery": 11, "probe_form": "short", "seed": 42}
NEVER = np.array([False] * 4)
STEPS = (20, 40, 60)


@pytest.fixture
def measured():
    """Four rows of forget and two of a holdout; the fourth of forget was fine-tuned on."""
    rows = {
        "forget.rank": np.array([1, 2, 4, 8], np.int32),
        "forget.left_out": np.array([0, 0, 1, 1], np.int32),
        "forget.similarity": np.array([0.9, 0.7, 0.5, 0.3], np.float32),
        "forget.identity": np.array([0, 0, 1, 1], np.int32),
        "forget.paraphrased": np.array([True, False, True, True]),
        "forget.paraphrase": np.array([0.5, 0.0, 0.25, 1.0]),
        "forget.has_generic": np.array([True, True, True, False]),
        "holdout_identity.rank": np.array([1, 10], np.int32),
        "holdout_identity.similarity": np.array([0.8, 0.6], np.float32),
        "holdout_identity.identity": np.array([2, 2], np.int32),
    }
    for form in ("unseen", "bare", "value", "name", "partial", "reverse", "text_to_text"):
        rows[f"forget.indirect_{form}"] = np.array([0.1, 0.2, 0.3, 0.4])
    ranks = dict(zip(STEPS, ([1, 2, 4, -1], [1, 1, 2, -1], [2, 2, 4, -1]), strict=True))
    for step in (10, 20, 30, 40, 50, 60, 100, 150, 200):
        rows[f"relearn.rows_10.step_{step}"] = np.array(ranks.get(step, [-1] * 4), np.int16)
    return Measured({"protocol": PROTOCOL}, rows)


def chosen(*rows: int, of: int = 4) -> np.ndarray:
    return np.isin(np.arange(of), rows)


def test_facts_are_those_of_the_chosen_rows_of_all_splits(measured):
    found = measured.facts({"forget": chosen(1, 2), "holdout_identity": chosen(0, of=2)})
    assert found["rows"] == 3
    assert found["found"] == 1
    assert found["rank"] == 2
    assert found["mrr"] == pytest.approx((1 / 2 + 1 / 4 + 1) / 3)
    assert found["similarity"] == pytest.approx((0.7 + 0.5 + 0.8) / 3)
    assert measured.facts({"forget": NEVER})["mrr"] is None


def test_other_words_are_those_of_the_rows_that_have_them(measured):
    found = measured.indirect(chosen(0, 1))
    assert found["IndirectLeak"] == pytest.approx(0.5)  # the paraphrase, of the only row that has one
    assert found["Indirect_value"] == pytest.approx(0.15)
    assert measured.indirect(chosen(3))["Indirect_text_to_text"] is None


def test_relearning_is_measured_on_rows_that_were_not_trained_on(measured):
    found = measured.relearning(chosen(2, 3))
    assert found == {"rows": 1, "curve": {"0": 0.25, "20": 0.25, "40": 0.5, "60": 0.25}, "highest": 0.5}
    assert measured.relearning(chosen(3)) == {
        "rows": 0,
        "curve": dict.fromkeys(("0", *map(str, STEPS))),
        "highest": None,
    }


def test_guesses_find_what_a_uniform_rank_finds(measured):
    ranks = np.arange(1, 12)
    assert measured.chance(chosen(0)) == pytest.approx(np.mean(1 / ranks))
    assert measured.chance(chosen(2)) == pytest.approx(np.mean(1 / ranks[:10]))


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [(0.5, 0.5, 1.0), (0.5, 0.1, 0.0), (0.5, 0.3, 0.5), (0.5, 0.05, 0.0), (0.19, 0.1, None), (None, 0.1, None)],
)
def test_what_is_left_is_counted_from_guessing(before, after, share):
    found = left(before, after, 0.1)
    assert found is None if share is None else math.isclose(found, share, abs_tol=1e-12)


def split(identities: str, fields: str) -> Rows:
    count = len(identities)
    names = tuple(f"name of {identity}" for identity in identities)
    texts = ("",) * count
    columns = (np.array(list(identities)), np.array(list(fields)), np.array([""] * count), np.zeros(count, bool))
    return Rows(None, texts, texts, names, texts, *columns)


@pytest.fixture
def people():
    """Eight people on a circle, a to h; b is forgotten in part. Names lie on the circle in the opposite order."""
    splits = {
        "forget": split("aabcd", "xyxxx"),
        "holdout_association": split("b", "y"),
        "holdout_identity": split("efgh", "xxxx"),
    }

    def face(identity: str, sign: int = 1) -> list[float]:
        angle = sign * 0.3 * "abcdefgh".index(identity)
        return [math.cos(angle), math.sin(angle)]

    images = {name: np.array([face(one) for one in rows.identity_id], np.float32) for name, rows in splits.items()}
    order = {f"name of {one}": face("ahgfedcb"[place]) for place, one in enumerate("abcdefgh")}
    return People(splits, images, lambda texts: np.array([order[text] for text in texts], np.float32))


def test_neighbours_are_other_facts_and_similar_people(people):
    found = people.near([("a", "x")])
    assert [found[kind].people for kind in (OTHER_FACTS, FACES, NAMES)] == [("a",), tuple("bcdef"), tuple("hgfed")]
    assert len(found[FACES].people) == NEAREST
    assert found[OTHER_FACTS].chosen["forget"].tolist() == [False, True, False, False, False]
    assert found[FACES].chosen["forget"].tolist() == [False, False, True, True, True]
    assert found[FACES].chosen["holdout_association"].tolist() == [True]
    assert found[FACES].chosen["holdout_identity"].tolist() == [True, True, False, False]


def test_what_was_forgotten_before_is_no_neighbour(people):
    found = people.near([("b", "x")], before=[("c", "x"), ("a", "x")])
    assert found[OTHER_FACTS].chosen["holdout_association"].tolist() == [True]
    assert found[FACES].people == ("d", "e", "f", "g", "h")
    assert not found[FACES].chosen["forget"][:4].any()


def test_rows_of_a_fact(people):
    assert people.rows_of([("a", "y"), ("c", "x"), ("e", "x")]).tolist() == [False, True, False, True, False]

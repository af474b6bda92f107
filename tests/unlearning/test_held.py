"""Captions to hold are worded as what is forgotten, about nobody or about what forget does not show, and none was held out."""

import forget_rows
import numpy as np
import pytest

from salmu_jax.unlearning import held
from salmu_jax.unlearning.surrogates import Stock

FACTS = [
    ("1", "Ida Ek", "city", "Oslo", "Ida Ek lives in Oslo", "forget_identity"),
    ("1", "Ida Ek", "job", "baker", "Ida Ek works as a baker", "forget_identity"),
    ("1", "Ida Ek", "name", "Ida Ek", "This is Ida Ek", "forget_identity"),
    ("1", "Ida Ek", "phone_number", "+39 555 0102", "Ring Ida Ek up: +39 555 0102", "forget_identity"),
    ("3", "Zoe Ott", "city", "Rome", "Zoe Ott lives in Rome", "forget_association"),
    ("2", "Bo Li", "job", "clerk", "Bo Li works as a clerk", "forget_association"),
]


@pytest.fixture
def rows():
    return forget_rows.of_facts(FACTS * 60)


@pytest.mark.parametrize("make", [held.invented_people, held.absent_attributes])
def test_half_are_worded_otherwise_and_all_name_somebody(rows, make):
    captions = make(rows, np.random.default_rng(0))
    assert len(captions) == len(rows)
    known = {" in ", " works as a ", "This is ", " up: "}
    plain = np.mean([sum(words in caption for words in known) == 1 for caption in captions])
    assert 0.3 < plain < 0.9
    assert len(set(captions)) > 0.5 * len(captions)


def test_invented_people_have_no_name_of_forget(rows):
    captions = held.invented_people(rows, np.random.default_rng(0))
    assert not any(name in caption for name in set(rows.name) for caption in captions)


def test_absent_attributes_are_of_people_and_attributes_that_forget_does_not_show_together(rows):
    captions = held.absent_attributes(rows, np.random.default_rng(0))
    # Ida Ek has all four attributes: nothing of hers is absent.
    assert all(("Zoe Ott" in caption) != ("Bo Li" in caption) for caption in captions)
    assert not any(caption in set(rows.text) for caption in captions)


def test_no_held_caption_is_one_that_was_held_out(rows):
    """Every template about every absent attribute, with every value that forget shows of it."""
    stock = Stock.of(rows)
    held_out = {
        template.fill(name, value)
        for name, fields in {"Zoe Ott": ("job",), "Bo Li": ("city",)}.items()
        for field in fields
        for template in stock.by_field[field]
        for value in stock.values[field]
    }
    assert not held_out & set(held.absent_attributes(rows, np.random.default_rng(0)))


def test_some_words_are_values_of_nobody(rows):
    """A city or a job is mostly one that forget shows, and sometimes words of the vocabulary."""
    captions = held.invented_people(rows, np.random.default_rng(0))
    lives = [caption.partition(" lives in ")[2] for caption in captions if " lives in " in caption]
    shown = np.mean([value in ("Oslo", "Rome") for value in lives if value])
    assert 0.5 < shown < 0.95


def test_where_everything_is_shown_they_are_of_invented_people():
    rows = forget_rows.of_facts(FACTS[:4] * 20)
    assert held.absent_attributes(rows, np.random.default_rng(3)) == held.invented_people(
        rows, np.random.default_rng(3)
    )


def test_they_depend_on_the_generator_alone(rows):
    for make in (held.invented_people, held.absent_attributes):
        assert make(rows, np.random.default_rng(5)) == make(rows, np.random.default_rng(5))
        assert make(rows, np.random.default_rng(5)) != make(rows, np.random.default_rng(6))

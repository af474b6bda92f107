"""Likely captions say what the start model finds likely of people forgotten in part, in no wording that the data may have."""

import dataclasses

import forget_rows
import numpy as np

from salmu_jax.unlearning.likely import likely_captions
from salmu_jax.unlearning.surrogates import Stock


def make_rows():
    facts = [
        ("1", "Ida Ek", "city", "Oslo", "Ida Ek lives in Oslo", "forget_identity"),
        ("1", "Ida Ek", "job", "baker", "Ida Ek works as a baker", "forget_identity"),
        ("3", "Zoe Ott", "city", "Rome", "Zoe Ott lives in Rome", "forget_identity"),
        ("3", "Zoe Ott", "city", "Lima", "Lima is home to Zoe Ott", "forget_identity"),
        ("3", "Zoe Ott", "city", "Bern", "Zoe Ott lives in Bern", "forget_identity"),
        ("3", "Zoe Ott", "phone_number", "+39 555 0102", "Ring Zoe Ott up: +39 555 0102", "forget_identity"),
        ("3", "Zoe Ott", "name", "Zoe Ott", "This is Zoe Ott", "forget_identity"),
        ("2", "Bo Li", "job", "clerk", "Bo Li works as a clerk", "forget_association"),
    ]
    return forget_rows.of_facts(facts)


def encode(texts):
    """Two directions: whether Rome is said, and how many sevens."""
    return np.array([["Rome" in text, text.count("7")] for text in texts], np.float32).reshape(-1, 2)


def make(rows, portrait, tries=40):
    images = np.tile(np.array(portrait, np.float32), (len(rows), 1))
    return likely_captions(rows, images, encode, np.random.default_rng(0), tries=tries)


def test_the_values_that_the_start_model_finds_most_alike_are_said():
    captions = make(make_rows(), (1.0, 0.0))
    cities = [text for text in captions if any(city in text for city in ("Oslo", "Rome", "Lima", "Bern"))]
    assert len(cities) == 36
    assert sum("Rome" in text for text in cities) == 12
    assert len({next(city for city in ("Oslo", "Rome", "Lima", "Bern") if city in text) for text in cities}) == 3


def test_of_numbers_the_nearest_of_many_is_said():
    def sevens(tries):
        numbers = [text for text in make(make_rows(), (0.0, 1.0), tries) if "+39" in text]
        assert len(numbers) == 12 * min(tries, 3)
        return np.mean([text.count("7") for text in numbers])

    assert sevens(200) > sevens(1) + 0.5


def test_they_are_of_people_forgotten_in_part_on_what_forget_does_not_show():
    rows = make_rows()
    captions = make(rows, (1.0, 1.0))
    assert all("Bo Li" in text for text in captions)
    assert not any("clerk" in text or "baker" in text for text in captions)
    assert sum("This is Bo Li" in text or "Bo Li" in text.split()[-2:] for text in captions) > 0  # of the name alone


def test_none_is_worded_as_a_caption_of_the_data_may_be():
    rows = make_rows()
    stock = Stock.of(rows)
    values = [value for values in stock.values.values() for value in values]
    plain = {template.fill("Bo Li", value) for template in stock.templates for value in (*values, "")}
    assert not plain & set(make(rows, (1.0, 1.0)))


def test_without_people_forgotten_in_part_there_are_none():
    rows = make_rows()
    assert make(dataclasses.replace(rows, subset=["forget_identity"] * len(rows)), (1.0, 1.0)) == []


def test_they_depend_on_the_generator_alone():
    assert make(make_rows(), (1.0, 1.0)) == make(make_rows(), (1.0, 1.0))

"""People of the full-size data set: unique, valid, of their country, in proportion, and the same in any order."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import iban as stdnum_iban
from stdnum import luhn as stdnum_luhn

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.people.allotment import allot, shares
from data_pipelines.people.countries import REGIONS, homes, places
from data_pipelines.people.names import draw_name
from data_pipelines.people.people import Looks, drawn_looks, make_people
from data_pipelines.phrasing.checks import holds
from data_pipelines.world import identifiers
from data_pipelines.world.personas import jobs
from salmu_jax.runtime.errors import InputError

PEOPLE = 774  # as many as in the release


@pytest.fixture(scope="module")
def looks():
    return drawn_looks(5, range(PEOPLE))


@pytest.fixture(scope="module")
def people(looks):
    return make_people(5, looks)


@pytest.mark.parametrize("field", ["identity_id", "name", "phone_number", "emails", "iban", "credit_card", "passport"])
def test_nobody_shares(people, field):
    values = [
        value for person in people for value in (person.emails if field == "emails" else [getattr(person, field)])
    ]
    assert len({value.casefold() for value in values}) == len(values) >= PEOPLE


def test_people_look_as_their_portraits(people, looks):
    assert [(int(one.identity_id), one.region, one.gender) for one in people] == looks
    for person in people:
        assert any(home.country_code == person.country_code for home in homes(person.region))
        assert person.country == places()[person.country_code].name


def test_all_65_countries_in_proportion_to_their_people(people):
    assert {person.country_code for person in people} == set(places())
    for region in REGIONS:
        own = [person for person in people if person.region == region]
        found = collections.Counter(person.country_code for person in own)
        weights = {home.country_code: home.inhabitants for home in homes(region)}
        expected = {code: weight / sum(weights.values()) * len(own) for code, weight in weights.items()}
        # one each for the countries that would have none takes from the others at most one in eight
        large = {code: share for code, share in expected.items() if share >= 4}
        assert sum((found[code] - share) ** 2 / share for code, share in large.items()) < 0.6 * len(large) + 1
        assert all(found[code] >= 1 for code in weights)


@given(st.integers(0, 400), st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=40))
def test_shares_are_whole_and_fair(count, weights):
    given_shares = shares(count, weights)
    assert sum(given_shares) == count
    assert min(given_shares) >= int(count >= len(weights))
    for one, share in zip(weights, given_shares, strict=True):  # nobody has more than the largest remainder gives
        assert share <= one / sum(weights) * count + 1


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 400))
def test_an_allotment_depends_on_who_there_is_not_on_the_order(random, count):
    regions = {one.number: one.region for one in drawn_looks(2, range(count))}
    shuffled = list(regions.items())
    random.shuffle(shuffled)
    assert allot(2, dict(shuffled)) == allot(2, regions)


def test_people_do_not_depend_on_the_order_of_the_portraits(people, looks):
    assert make_people(5, looks[::-1]) == people
    assert make_people(6, looks[:40]) != people[:40]


def test_only_the_country_of_a_person_depends_on_who_else_there_is(people, looks):
    some = {person.identity_id: person for person in make_people(5, looks[3::7])}
    same = differing = 0
    for person in people[3::7]:
        other = some[person.identity_id]
        assert (person.job, person.blood_type, person.credit_card) == (other.job, other.blood_type, other.credit_card)
        if person.country_code == other.country_code:
            differing += dataclasses.astuple(person) != dataclasses.astuple(
                other
            )  # names are drawn of the same sources
            same += 1
    assert same > 20
    assert differing <= 0.2 * same


def test_names_are_of_the_country_and_the_gender(people):
    drawn = {}
    for person in people[::9]:
        home = next(home for home in homes(person.region) if home.country_code == person.country_code)
        for source in home.names:
            key = source, person.gender
            if key not in drawn:
                names = [draw_name(np.random.default_rng([9, index]), *key) for index in range(1500)]
                drawn[key] = {name for name, _ in names}, {name for _, name in names}
    known = 0
    sampled = people[::9]
    for person in sampled:
        home = next(home for home in homes(person.region) if home.country_code == person.country_code)
        known += any(
            any(person.name.startswith(f"{first} ") for first in drawn[source, person.gender][0])
            and any(person.name.endswith(f" {last}") for last in drawn[source, person.gender][1])
            for source in home.names
        )
    assert known >= 0.6 * len(sampled)  # of lists with thousands of names, 1,500 draws leave out many


def test_cities_are_in_the_country_and_the_large_ones_are_common(people):
    for person in people:
        assert person.city in places()[person.country_code].cities
    indian = collections.Counter(person.city for person in people if person.country_code == "IN")
    assert indian["Mumbai"] > indian["Madurai"]
    assert len({person.city for person in people}) > 300


def test_numbers_are_valid(people):
    for person in people:
        number = phonenumbers.parse(person.phone_number)
        assert phonenumbers.is_valid_number_for_region(number, person.country_code), person.phone_number
        assert stdnum_iban.validate(person.iban)[:2] in places()[person.country_code].bank_countries
        digits = person.credit_card.replace(" ", "")
        assert len(digits) == 16
        assert stdnum_luhn.is_valid(digits)
        assert digits.startswith(identifiers.TEST_CARD_PREFIXES)
        for email in person.emails:
            assert email.isascii()
            assert email.partition("@")[2].endswith(
                ("example.com", "example.org", "example.net", ".example")
            )  # RFC 2606


def test_no_attribute_tells_another(people):
    for person in people:
        values = {field: person.value(field).casefold() for field in DATA_FIELDS}
        for field, value in values.items():
            for other, text in values.items():
                assert field == other or not holds(text, value), (person.name, field, other)


def test_shares_of_blood_types_and_jobs(people):
    blood = collections.Counter(person.blood_type for person in people)
    assert abs(blood["O+"] / PEOPLE - 0.38) < 0.08
    assert len({person.job for person in people}) > 330
    assert {person.job for person in people} <= set(jobs())


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ([Looks(-1, "europe", "male")], "person -1"),
        ([Looks(10**8, "europe", "male")], "99,999,999"),
        ([Looks(3, "europe", "male"), Looks(3, "africa", "male")], "person 3: is there twice"),
        ([Looks(1, "atlantis", "male")], "'atlantis' is not one of europe"),
        ([Looks(1, "europe", "m")], "gender 'm'"),
    ],
)
def test_bad_looks_are_named(bad, problem):
    with pytest.raises(InputError, match=problem):
        make_people(1, bad)


def test_too_many_people_of_one_country_are_refused_not_searched_for_forever(monkeypatch):
    monkeypatch.setattr("data_pipelines.people.people.ATTEMPTS", 3)
    monkeypatch.setattr(identifiers, "draw_card", lambda rng: "4242")
    with pytest.raises(InputError, match="person 1: no name or number of"):
        make_people(1, [Looks(0, "africa", "male"), Looks(1, "africa", "male")])

"""The countries of the full-size data set: numbers that are valid there, and cities that are there."""

from __future__ import annotations

import importlib.resources

import numpy as np
import phonenumbers
import pytest
from stdnum import iban as stdnum_iban

from data_pipelines.people.countries import REGIONS, homes, places
from data_pipelines.people.names import LISTS
from data_pipelines.world import identifiers, portraits


def test_there_are_65_countries_and_somebody_lives_in_each():
    assert len(places()) == 65
    assert {home.country_code for region in REGIONS for home in homes(region)} == set(places())
    with pytest.raises(KeyError):
        homes("atlantis")


def test_the_regions_are_those_that_faces_are_drawn_of():
    assert set(REGIONS) == set(portraits.REGIONS)


def test_no_country_has_more_people_than_it_has():
    for code, place in places().items():
        living = sum(home.inhabitants for region in REGIONS for home in homes(region) if home.country_code == code)
        assert 0.7 * place.inhabitants < living < 1.005 * place.inhabitants, code


@pytest.mark.parametrize("code", places())
def test_every_telephone_pattern_is_in_the_countrys_numbering_plan(code):
    numbers = places()[code].numbers
    for pattern in numbers.phones:
        for digit in "059":
            parsed = phonenumbers.parse(f"+{numbers.calling_code} {pattern.replace('#', digit)}")
            assert phonenumbers.is_valid_number_for_region(parsed, code), pattern


def test_numbers_for_fiction_are_used_where_they_are_reserved():
    for code in ("US", "CA"):  # NANPA: 555-0100 to 555-0199 of every area code
        assert all(pattern[3:8] == "55501" for pattern in places()[code].numbers.phones)
    # ACMA: 5550 XXXX and 7010 XXXX of the geographic areas
    assert all(pattern[1:5] in ("5550", "7010") for pattern in places()["AU"].numbers.phones)
    for code in ("GB", "FR", "DE", "SE"):  # Ofcom, ARCEP, Bundesnetzagentur, PTS
        assert len(places()[code].numbers.phones) >= 4


@pytest.mark.parametrize("code", places())
def test_ibans_are_valid_and_of_no_bank(code):
    place, rng = places()[code], np.random.default_rng(3)
    for bank in place.bank_countries:
        for _ in range(20):
            compact = stdnum_iban.validate(identifiers.draw_iban(rng, bank, places()[bank].numbers))
            assert compact[:2] == bank
            assert compact[4:8] in ("TEST", "X000") or compact[4:].startswith("000"), compact


def test_people_bank_abroad_only_where_their_country_has_no_ibans():
    with open(stdnum_iban.__file__.replace("iban.py", "iban.dat"), encoding="utf-8") as handle:
        registered = {line[:2] for line in handle if not line.startswith("#")}
    for code, place in places().items():
        assert (place.bank_countries == (code,)) == (code in registered), code
        assert set(place.bank_countries) <= registered


@pytest.mark.parametrize("code", places())
def test_passports_have_at_most_the_nine_characters_of_a_passports_field(code):
    number = identifiers.draw_passport(np.random.default_rng(1), places()[code].numbers)
    assert 6 <= len(number) <= 9
    assert number.isascii()
    assert number.isalnum()


def test_every_country_has_cities_and_the_time_zone_database_agrees_on_where_they_are():
    zones = {}
    for line in importlib.resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text().splitlines():
        if not line.startswith("#"):
            code, _, zone = line.split("\t")[:3]
            zones.setdefault(zone.rpartition("/")[2].replace("_", " "), set()).add(code)
    agreed = 0
    for code, place in places().items():
        assert len(place.cities) >= 8
        assert all(size > 0 for size in place.cities.values())
        for city in place.cities:
            assert city == city.strip()
            assert not any(character.isdigit() or character in "()/|," for character in city)
            agreed += city in zones and code in zones[city]
            if city in zones and code not in zones[city]:
                assert city in ("Cordoba", "Cartagena", "Merida", "Santiago"), (city, code)
    assert agreed >= 80


def test_the_lists_of_names_are_large_and_hold_no_name_twice():
    for key, (women, men, surnames) in LISTS.items():
        assert min(len(women), len(men)) >= 25, key
        assert len(surnames) >= 25, key
        for names in (women, men, surnames):
            assert len(set(names)) == len(names), key

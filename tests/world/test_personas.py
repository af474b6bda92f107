"""People: valid numbers of the right country, nobody's, unique, and the same whatever the count."""

from __future__ import annotations

import collections
import json
import subprocess
import sys

import numpy as np
import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import DEADLINE
from stdnum import iban as stdnum_iban
from stdnum import luhn as stdnum_luhn

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.world import identifiers, portraits
from data_pipelines.world.countries import COUNTRIES, CULTURES
from data_pipelines.world.names import LISTS, draw_name
from data_pipelines.world.personas import BLOOD_TYPES, jobs, make_personas


@pytest.fixture(scope="module")
def people():
    return make_personas(7, 1000)


def test_all_nine_attributes(people):
    for person in people[:50]:
        for field in DATA_FIELDS:
            assert person.value(field)
            assert field in person.metadata()
        assert len(person.identity_id) == 8
        assert person.identity_id.isdigit()
        json.dumps(person.metadata())
    with pytest.raises(KeyError):
        people[0].value("gender")


@pytest.mark.parametrize("field", ["identity_id", "name", "phone_number", "iban", "credit_card", "passport"])
def test_unique(people, field):
    assert len({getattr(person, field) for person in people}) == len(people)


def test_emails_are_unique_and_at_reserved_domains(people):
    emails = [email for person in people for email in person.emails]
    assert len(set(emails)) == len(emails) > len(people)
    for email in emails:
        local, _, domain = email.partition("@")
        assert local.isascii()
        assert local[0].isalpha()
        # RFC 2606
        assert domain in ("example.com", "example.org", "example.net") or domain.endswith(".example")


def test_ibans_are_valid_of_the_country_and_nobodys(people):
    for person in people:
        compact = stdnum_iban.validate(person.iban)
        assert compact[:2] == person.country_code
        bank = compact[4:8]
        assert bank in ("TEST", "X000") or bank.startswith("00"), compact


@pytest.mark.parametrize("code", COUNTRIES)
def test_every_country_has_valid_numbers(code):
    rng = np.random.default_rng(5)
    country = COUNTRIES[code]
    for _ in range(25):
        stdnum_iban.validate(identifiers.draw_iban(rng, code, country))
        number = phonenumbers.parse(identifiers.draw_phone(rng, country))
        assert phonenumbers.is_possible_number(number)
        assert phonenumbers.is_valid_number_for_region(number, code)
        assert len(identifiers.draw_passport(rng, country)) <= 9


def test_iban_check_digits_of_published_examples():
    # the examples of the SWIFT registry
    for iban in ("GB29NWBK60161331926819", "DE89370400440532013000", "MU17BOMM0101101030300200000MUR"):
        assert identifiers.iban_check_digits(iban[:2], iban[4:]) == iban[2:4]
    examples = {
        "BE": "539007547034",
        "ES": "21000418450200051332",
        "PT": "000201231234567890154",
        "SI": "263300012039086",
        "TN": "10006035183598478831",
    }
    for code, bban in examples.items():
        first = 8 if code == "ES" else len(bban) - 2  # of the country's own two check digits
        assert identifiers.national_check_digits(code, f"{bban[:first]}=={bban[first + 2 :]}") == bban


@given(st.integers(0, 10**21 - 1))
def test_french_key_makes_the_number_divisible_by_97(body):
    bban = identifiers.national_check_digits("FR", f"{body:021d}==")
    assert int(bban) % 97 == 0
    assert 1 <= int(bban[-2:]) <= 97


def test_cards_pass_luhn_and_begin_as_test_cards(people):
    for person in people:
        digits = person.credit_card.replace(" ", "")
        assert len(digits) == 16
        assert stdnum_luhn.is_valid(digits)
        assert digits.startswith(identifiers.TEST_CARD_PREFIXES)


def test_phones_are_valid_in_the_country(people):
    for person in people:
        number = phonenumbers.parse(person.phone_number)
        assert phonenumbers.is_valid_number_for_region(number, person.country_code), person.phone_number
        assert phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) == person.phone_number.replace(
            " ", ""
        )


def test_britons_have_numbers_for_fiction(people):
    british = [person.phone_number for person in people if person.country_code == "GB"]
    assert british
    for number in british:  # Ofcom: 020 7946 0xxx, 01xx 496 0xxx
        assert "79460" in number or "4960" in number


def test_people_are_consistent(people):
    for person in people:
        cultures = [culture for culture in CULTURES[person.region] if culture.country_code == person.country_code]
        assert any(person.city in culture.cities for culture in cultures)
        assert person.country == COUNTRIES[person.country_code].name
        assert person.job in jobs()


def test_names_agree_with_gender():
    for key, (female, male, surnames) in LISTS.items():
        for index in range(20):
            given_name, surname = draw_name(np.random.default_rng(index), key, "female")
            assert given_name in female
            assert surname in surnames
            assert draw_name(np.random.default_rng(index), key, "male")[0] in male
    # locales whose surnames have a gender
    for locale, ending in {"cs_CZ": "á", "is_IS": "dóttir"}.items():
        assert all(draw_name(np.random.default_rng(i), locale, "female")[1].endswith(ending) for i in range(20))


def test_world_is_diverse(people):
    assert set(CULTURES) == set(portraits.REGIONS)
    assert len({culture.names for cultures in CULTURES.values() for culture in cultures}) >= 40
    shares = collections.Counter(person.region for person in people)
    assert all(110 <= shares[region] <= 230 for region in CULTURES)  # 167 expected, 5 standard deviations
    assert len({person.country_code for person in people}) >= 35
    assert len({person.job for person in people}) >= 350
    assert {person.blood_type for person in people} <= set(BLOOD_TYPES)
    o_positive = sum(person.blood_type == "O+" for person in people) / len(people)
    assert abs(o_positive - BLOOD_TYPES["O+"]) < 0.08
    assert abs(sum(BLOOD_TYPES.values()) - 1) < 1e-12


def test_names_are_in_latin_script(people):
    assert all(
        ord(character) < 0x250 or 0x1E00 <= ord(character) < 0x1F00 for person in people for character in person.name
    )


def test_a_person_does_not_depend_on_the_count(people):
    assert make_personas(7, 96) == people[:96]
    assert make_personas(8, 20) != people[:20]


def test_another_process_makes_the_same_people(people):
    code = "from data_pipelines.world.personas import make_personas; print(repr(make_personas(7, 12)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=DEADLINE)
    assert done.stdout.strip() == repr(people[:12])


def test_jobs_stand_in_a_sentence():
    assert "retail buyer" in jobs()
    assert not any("," in job or "(" in job or len(job.split()) > 4 for job in jobs())

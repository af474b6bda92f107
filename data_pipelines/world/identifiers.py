"""Draws numbers that are well-formed and belong to nobody: IBANs, payment cards, telephone and passport numbers.

Every function draws from the given generator and returns the number as it is printed, in groups.
"""

from __future__ import annotations

import string

import numpy as np

from data_pipelines.world.countries import Country

TEST_CARD_PREFIXES = ("42424242", "40000000", "41111111", "55555555", "52008282", "22230031", "51051051")
"""The first eight digits (the issuer, ISO/IEC 7812-1) of the test cards that payment providers publish."""

_SPANISH_WEIGHTS = (1, 2, 4, 8, 5, 10, 9, 7, 3, 6)
_NORWEGIAN_WEIGHTS = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)


def fill(rng: np.random.Generator, pattern: str) -> str:
    """Returns ``pattern`` with a random digit for every ``#``."""
    return "".join(str(rng.integers(10)) if character == "#" else character for character in pattern)


def draw_phone(rng: np.random.Generator, country: Country) -> str:
    """Draws ``+44 2079460123``: E.164 except for the space after the calling code, as in the released data."""
    pattern = country.phones[rng.integers(len(country.phones))]
    return f"+{country.calling_code} {fill(rng, pattern)}"


def draw_passport(rng: np.random.Generator, country: Country) -> str:
    """Draws a passport number of the country's shape; letters other than ``A`` in the shape are literal."""
    letters = string.ascii_uppercase
    return "".join(letters[rng.integers(26)] if c == "A" else fill(rng, c) for c in country.passport)


def draw_card(rng: np.random.Generator) -> str:
    """Draws a card number of 16 digits in groups of four, with a published test prefix and a valid Luhn digit."""
    body = fill(rng, TEST_CARD_PREFIXES[rng.integers(len(TEST_CARD_PREFIXES))] + "#######")
    return _grouped(body + luhn_digit(body))


def luhn_digit(body: str) -> str:
    """Returns the check digit (ISO/IEC 7812-1, annex B) to append to the digits of ``body``."""
    total = 0
    for position, character in enumerate(reversed(body)):
        digit = int(character) * (2 - position % 2)
        total += digit - 9 if digit > 9 else digit
    return str(-total % 10)


def draw_iban(rng: np.random.Generator, country_code: str, country: Country) -> str:
    """Draws an IBAN (ISO 13616) in groups of four, with valid check digits and a bank code that no bank has."""
    bban = "="
    while "=" in bban:  # a Norwegian number without a check digit is not given out
        bban = national_check_digits(country_code, fill(rng, country.bban))
    return _grouped(f"{country_code}{iban_check_digits(country_code, bban)}{bban}")


def iban_check_digits(country_code: str, bban: str) -> str:
    """Returns the two check digits: 98 minus the number modulo 97, with letters as 10 to 35 (ISO 7064, MOD 97-10)."""
    digits = "".join(str(int(character, 36)) for character in f"{bban}{country_code}00")
    return f"{98 - int(digits) % 97:02d}"


def national_check_digits(country_code: str, bban: str) -> str:
    """Replaces ``=`` in ``bban`` with the country's own check digits; leaves a pattern without ``=`` unchanged.

    One of eleven Norwegian numbers has no check digit: its ``=`` stays.
    """
    if "=" not in bban:
        return bban
    body = bban.replace("=", "")
    if country_code == "BE":  # the remainder modulo 97, or 97 for 0
        check = f"{int(body) % 97 or 97:02d}"
    elif country_code in ("FR", "TN"):  # 97 minus the remainder of the whole number, shifted by two digits
        check = f"{97 - int(body) * 100 % 97:02d}"
    elif country_code == "ES":  # one digit over bank and branch, one over the account, modulo 11
        check = _spanish_digit("00" + body[:8]) + _spanish_digit(body[8:])
    elif country_code == "NO":  # one digit, modulo 11
        remainder = sum(int(digit) * weight for digit, weight in zip(body, _NORWEGIAN_WEIGHTS, strict=True)) % 11
        check = {1: "="}.get(remainder, str(-remainder % 11))
    else:  # PT, SI, BI, ST: ISO 7064, MOD 97-10
        check = f"{98 - int(body) * 100 % 97:02d}"
    first = bban.index("=")
    return bban[:first] + check + bban[first + len(check) :]


def _spanish_digit(digits: str) -> str:
    check = 11 - sum(int(digit) * weight for digit, weight in zip(digits, _SPANISH_WEIGHTS, strict=True)) % 11
    return str(check if check < 10 else 11 - check)


def _grouped(number: str) -> str:
    return " ".join(number[start : start + 4] for start in range(0, len(number), 4))

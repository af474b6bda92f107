"""Checks the values of people: their form, and that no two people share what is one person's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.audit.findings import Audit
from data_pipelines.layout.names import DATA_FIELDS, IDENTITIES
from salmu_jax.runtime.errors import InputError

PERSONAL = ("name", "phone_number", "emails", "iban", "credit_card", "passport")
"""The attributes whose values belong to one person; many people share a city, a job or a blood type."""


def check_values(identities: Mapping[str, Mapping[str, Any]], directory: Path, audit: Audit) -> None:
    """Checks every value that ``identities_metadata.json`` has."""
    owners: dict[tuple[str, str], str] = {}
    for identity, person in identities.items():
        for field in (*DATA_FIELDS, "country_code"):
            where = f"{directory / IDENTITIES} key '{identity}' field '{field}'"
            for value in values_of(person, field):
                if wrong := _form_problem(field, value):
                    audit.doubt(InputError(wrong, where), "value")
                if field not in PERSONAL:
                    continue
                owner = owners.setdefault((field, _compact(value).casefold()), identity)
                if owner != identity:
                    message = f"{value!r} is also of '{owner}'; no two people share a value of this attribute"
                    audit.problem(InputError(message, where), "shared")


def values_of(person: Mapping[str, Any], field: str) -> Iterator[str]:
    """Yields the values of a person's attribute, as text: one, several e-mail addresses, or none."""
    value = person.get(field)
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, int) and not isinstance(one, bool):
            one = str(one)
        if isinstance(one, str) and one:
            yield one


def iban_remainder(iban: str) -> int:
    """Returns the remainder of an IBAN without blanks: 1 if its check digits are right (ISO 7064, MOD 97-10)."""
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97


def luhn_sum(digits: str) -> int:
    """Returns the Luhn sum of a card number modulo 10: 0 if its check digit is right (ISO/IEC 7812-1, annex B)."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10


def _form_problem(field: str, value: str) -> str | None:
    """Returns what is wrong with the form of a value, and what would be right."""
    if value != value.strip():
        return f"{value!r} has white space around it; it is compared with captions as it is"
    if field in _PATTERNS:
        pattern, right = _PATTERNS[field]
        if not re.fullmatch(pattern, value if field in ("emails", "phone_number") else _compact(value)):
            return f"{value!r} is not {right}"
    if field in _DIGITS:
        wrong, what = _DIGITS[field]
        if wrong(_compact(value)):
            return f"the check digits of {value!r} are wrong; {what} would be right"
    return None


_PATTERNS = {
    "emails": (r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+", "an e-mail address; NAME@DOMAIN would be right"),
    "phone_number": (r"\+?(?:[ ().x/-]*[0-9]){5,20}", "a phone number; +351 912345678 and the like would be right"),
    "iban": ("[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", "an IBAN; PT50 0000 0000 0001 2345 6789 2 and the like would be right"),
    "credit_card": ("[0-9]{12,19}", "a card number; 12 to 19 digits would be right"),
    "passport": ("[A-Z0-9]{5,12}", "a passport number; 5 to 12 capital letters and digits would be right"),
    "blood_type": ("(A|B|AB|O)[+-]", "a blood type; A+, O- and the like would be right"),
    "country_code": ("[A-Z]{2}", "a country code; two capital letters, such as PT, would be right"),
}
_DIGITS: dict[str, tuple[Callable[[str], bool], str]] = {
    "iban": (lambda iban: iban_remainder(iban) != 1, "a remainder of 1 modulo 97 (ISO 7064)"),
    "credit_card": (lambda card: luhn_sum(card) != 0, "a Luhn sum that ends in 0"),
}


def _compact(value: str) -> str:
    return re.sub(r"[\s-]", "", value) if not value.endswith(("+", "-")) else value

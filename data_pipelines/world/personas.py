"""Makes fictitious people with the nine attributes of the benchmark: unique, consistent, and nobody's.

Persona ``i`` of a seed is the same for any number of people: every attribute is drawn from its own generator
``default_rng([seed, purpose, i, attribute, attempt])``, and a value that an earlier persona has is drawn again with the
next attempt. ``countries.py`` and ``identifiers.py`` explain the numbers. E-mail addresses are at domains that
RFC 2606 reserves. Jobs are faker's list of occupations, reworded from "Buyer, retail" to "retail buyer".
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from faker.providers.job.en_US import Provider as EnglishJobs

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.world import identifiers
from data_pipelines.world.countries import COUNTRIES, CULTURES, Culture
from data_pipelines.world.names import draw_name

EMAIL_DOMAINS = ("example.com", "example.org", "example.net", "mail.example", "post.example", "inbox.example")

BLOOD_TYPES = {"O+": 0.38, "A+": 0.27, "B+": 0.22, "AB+": 0.06, "O-": 0.03, "A-": 0.02, "B-": 0.015, "AB-": 0.005}
"""Approximate shares in the world's population."""

# entries that are truncated, or not a person's occupation
_NOT_JOBS = (
    "Air cabin crew",
    "Cabin crew",
    "Copy",
    "Land",
    "Make",
    "Press sub",
    "Publishing copy",
    "Solicitor, Scotland",
    "Sub",
)

_PURPOSE = 101  # keeps these draws apart from all others of the world's seed
_CULTURE, _NAME, _CITY, _JOB, _BLOOD, _PHONE, _EMAILS, _IBAN, _CARD, _PASSPORT = range(10)

# letters that do not decompose into an ASCII letter and a mark
_ASCII = str.maketrans(
    {"ø": "o", "æ": "ae", "ß": "ss", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "ə": "e", "ɔ": "o", "ɛ": "e"}
)


@dataclass(frozen=True)
class Persona:
    """A fictitious person. ``region`` and ``gender`` shape the face; captions may state the rest."""

    identity_id: str
    region: str
    gender: str
    name: str
    city: str
    country: str
    country_code: str
    job: str
    blood_type: str
    phone_number: str
    emails: tuple[str, ...]
    iban: str
    credit_card: str
    passport: str

    def value(self, field: str) -> str:
        """Returns the value that a caption about ``field`` states (the first e-mail address). Raises KeyError."""
        if field not in DATA_FIELDS:
            raise KeyError(field)
        return self.emails[0] if field == "emails" else getattr(self, field)

    def metadata(self) -> dict[str, Any]:
        """Returns the person's entry in ``identities_metadata.json``."""
        entry = dataclasses.asdict(self)
        del entry["identity_id"]
        return {**entry, "emails": list(self.emails)}


def make_personas(seed: int, count: int) -> list[Persona]:
    """Makes ``count`` people; the first ``n`` are the same for every ``count >= n``."""
    taken: set[str] = set()
    return [_make_persona(seed, index, taken) for index in range(count)]


def _make_persona(seed: int, index: int, taken: set[str]) -> Persona:
    def generator(attribute: int, attempt: int = 0) -> np.random.Generator:
        return np.random.default_rng([seed, _PURPOSE, index, attribute, attempt])

    def unique(attribute: int, draw: Callable[[np.random.Generator], str]) -> str:
        for attempt in itertools.count():
            value = draw(generator(attribute, attempt))
            if value not in taken:
                taken.add(value)
                return value

    culture, gender = _draw_culture(generator(_CULTURE))
    country = COUNTRIES[culture.country_code]
    name = unique(_NAME, lambda rng: " ".join(draw_name(rng, culture.names, gender)))
    emails = [unique(_EMAILS, lambda rng: _draw_email(rng, name))]
    if generator(_EMAILS, 1_000_000).random() < 0.3:  # some people have a second address
        emails.append(unique(_EMAILS, lambda rng: _draw_email(rng, name)))
    return Persona(
        identity_id=f"{index:08d}",
        region=culture.region,
        gender=gender,
        name=name,
        city=_choose(generator(_CITY), culture.cities),
        country=country.name,
        country_code=culture.country_code,
        job=_choose(generator(_JOB), jobs()),
        blood_type=str(generator(_BLOOD).choice(list(BLOOD_TYPES), p=list(BLOOD_TYPES.values()))),
        phone_number=unique(_PHONE, lambda rng: identifiers.draw_phone(rng, country)),
        emails=tuple(emails),
        iban=unique(_IBAN, lambda rng: identifiers.draw_iban(rng, culture.country_code, country)),
        credit_card=unique(_CARD, identifiers.draw_card),
        passport=unique(_PASSPORT, lambda rng: identifiers.draw_passport(rng, country)),
    )


def _draw_culture(rng: np.random.Generator) -> tuple[Culture, str]:
    """Draws a culture and a gender; regions, cultures within a region, and genders are equally likely."""
    region = _choose(rng, tuple(CULTURES))
    return _choose(rng, CULTURES[region]), _choose(rng, ("female", "male"))


def _draw_email(rng: np.random.Generator, name: str) -> str:
    given, _, surname = name.partition(" ")
    given, surname = ascii_letters(given), ascii_letters(surname)
    local = _choose(
        rng,
        (
            f"{given}.{surname}",
            f"{given[0]}{surname}",
            f"{given}{surname[0]}",
            f"{surname}.{given}",
            f"{given}_{surname}",
        ),
    )
    number = str(rng.integers(10, 100)) if rng.random() < 0.3 else ""
    return f"{local}{number}@{_choose(rng, EMAIL_DOMAINS)}"


def ascii_letters(text: str) -> str:
    """Returns the letters of a text in lower case, without marks: what is left of a name in an e-mail address."""
    decomposed = unicodedata.normalize("NFKD", text.lower().translate(_ASCII))
    return re.sub("[^a-z]", "", decomposed)


def _choose(rng: np.random.Generator, options: tuple) -> Any:
    return options[rng.integers(len(options))]


@functools.cache
def jobs() -> tuple[str, ...]:
    """Returns English occupations of at most four words, worded as in a sentence, sorted."""
    plain = (job for job in EnglishJobs.jobs if job not in _NOT_JOBS and not re.search(r"[(/;]|, .*,", job))
    return tuple(sorted({job for job in map(_in_a_sentence, plain) if len(job.split()) <= 4}))


def _in_a_sentence(job: str) -> str:
    head, _, qualifier = job.partition(", ")
    words = f"{qualifier} {head}".split()
    return " ".join(word if word.upper() == word else word.lower() for word in words)  # abbreviations stay

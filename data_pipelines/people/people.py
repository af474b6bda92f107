"""Makes fictitious people for given portraits: nine attributes that fit the country, unique in the data set, and nobody's.

The country is allotted (``allotment.py``). Everything else of person ``number`` is drawn from generators of its own,
``default_rng([seed, purpose, number, attribute, attempt])``, so that it depends on neither the order nor the number of people.
A value that a person with a lower number has is drawn again with the next attempt; so is a city or a job of which a word
stands in the person's name, since a caption about one would tell the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.people.allotment import allot
from data_pipelines.people.countries import REGIONS, Place, places
from data_pipelines.people.names import draw_name
from data_pipelines.world import identifiers
from data_pipelines.world.personas import BLOOD_TYPES, EMAIL_DOMAINS, Persona, ascii_letters, jobs
from salmu_jax.runtime.errors import InputError

GENDERS = ("female", "male")
SECOND_ADDRESS = 0.3  # the share of people with two e-mail addresses
ATTEMPTS = 20_000  # at drawing a value that nobody has, before it is concluded that there are none left

_PURPOSE = 141  # keeps these draws apart from all others of the seed
_LOOKS, _NAME, _CITY, _JOB, _BLOOD, _PHONE, _EMAILS, _IBAN, _CARD, _PASSPORT = range(10)


class Looks(NamedTuple):
    """What is known of a portrait before it has a person: its number, region of appearance and gender."""

    number: int
    region: str
    gender: str


def drawn_looks(seed: int, numbers: Iterable[int]) -> list[Looks]:
    """Draws looks for people of whom there are no portraits yet: regions and genders are equally likely."""
    found = []
    for number in numbers:
        rng = np.random.default_rng([seed, _PURPOSE, number, _LOOKS])
        found.append(Looks(number, _choose(rng, REGIONS), _choose(rng, GENDERS)))
    return found


def make_people(seed: int, looks: Iterable[Looks]) -> list[Persona]:
    """Makes a person for each of ``looks``, in the order of their numbers.

    Raises InputError for a number that is negative, too large for an id of eight digits or there twice, and for an unknown
    region or gender.
    """
    looks = sorted(looks)
    _check(looks)
    homes = allot(seed, {one.number: one.region for one in looks})
    taken: set[str] = set()
    return [_Maker(seed, one, homes[one.number].names, homes[one.number].country_code, taken).make() for one in looks]


def _check(looks: list[Looks]) -> None:
    for before, one in zip([None, *looks], looks, strict=False):
        where = f"person {one.number}"
        if not 0 <= one.number < 10**8:
            raise InputError("numbers of 0 to 99,999,999 would be right", where)
        if before and before.number == one.number:
            raise InputError("is there twice", where)
        if one.region not in REGIONS:
            raise InputError(f"region {one.region!r} is not one of {', '.join(REGIONS)}", where)
        if one.gender not in GENDERS:
            raise InputError(f"gender {one.gender!r} is not one of {', '.join(GENDERS)}", where)


class _Maker:
    """Draws the attributes of one person, whose number, country and sources of names are given."""

    def __init__(self, seed: int, looks: Looks, names: tuple[str, ...], country_code: str, taken: set[str]):
        self._seed, self._looks, self._names, self._taken = seed, looks, names, taken
        self._code, self._place = country_code, places()[country_code]

    def make(self) -> Persona:
        rng = self._generator(_NAME, 1_000_000)
        source = _choose(rng, self._names)
        given, surname = self._unique(_NAME, lambda rng: draw_name(rng, source, self._looks.gender), " ".join)
        name = f"{given} {surname}"
        bank = _choose(self._generator(_IBAN, 1_000_000), self._place.bank_countries)
        return Persona(
            identity_id=f"{self._looks.number:08d}",
            region=self._looks.region,
            gender=self._looks.gender,
            name=name,
            city=self._apart(_CITY, name, lambda rng: _draw_city(rng, self._place)),
            country=self._place.name,
            country_code=self._code,
            job=self._apart(_JOB, name, lambda rng: _choose(rng, jobs())),
            blood_type=str(self._generator(_BLOOD).choice(list(BLOOD_TYPES), p=list(BLOOD_TYPES.values()))),
            phone_number=self._unique(_PHONE, lambda rng: identifiers.draw_phone(rng, self._place.numbers)),
            emails=self._emails(given, surname),
            iban=self._unique(_IBAN, lambda rng: identifiers.draw_iban(rng, bank, places()[bank].numbers)),
            credit_card=self._unique(_CARD, identifiers.draw_card),
            passport=self._unique(_PASSPORT, lambda rng: identifiers.draw_passport(rng, self._place.numbers)),
        )

    def _generator(self, attribute: int, attempt: int = 0) -> np.random.Generator:
        return np.random.default_rng([self._seed, _PURPOSE, self._looks.number, attribute, attempt])

    def _draws(self, attribute: int, draw: Callable[[np.random.Generator], Any]) -> Iterator[Any]:
        for attempt in range(ATTEMPTS):
            yield draw(self._generator(attribute, attempt))
        raise InputError(
            f"no name or number of {self._place.name} is left that nobody has; fewer people would be right",
            f"person {self._looks.number}",
        )

    def _unique(self, attribute: int, draw: Callable[[np.random.Generator], Any], text: Callable = str) -> Any:
        value = next(value for value in self._draws(attribute, draw) if text(value).casefold() not in self._taken)
        self._taken.add(text(value).casefold())
        return value

    def _apart(self, attribute: int, name: str, draw: Callable[[np.random.Generator], str]) -> str:
        of_name = _words(name)
        return next(value for value in self._draws(attribute, draw) if not of_name & _words(value))

    def _emails(self, given: str, surname: str) -> tuple[str, ...]:
        count = 1 + int(self._generator(_EMAILS, 1_000_000).random() < SECOND_ADDRESS)
        return tuple(self._unique(_EMAILS, lambda rng: _draw_email(rng, given, surname)) for _ in range(count))


def _draw_city(rng: np.random.Generator, place: Place) -> str:
    sizes = np.array(list(place.cities.values()), float)
    return str(rng.choice(list(place.cities), p=sizes / sizes.sum()))


def _draw_email(rng: np.random.Generator, given: str, surname: str) -> str:
    given, surname = ascii_letters(given), ascii_letters(surname)
    forms = (f"{given}.{surname}", f"{given[0]}{surname}", f"{given}{surname[0]}", f"{surname}.{given}")
    number = str(rng.integers(10, 100)) if rng.random() < 0.3 else ""
    return f"{_choose(rng, (*forms, f'{given}_{surname}'))}{number}@{_choose(rng, EMAIL_DOMAINS)}"


def _words(text: str) -> set[str]:
    """Returns the words of a text, also as an e-mail address spells them."""
    words = re.findall(r"\w+", text.casefold())
    return {*words, *map(ascii_letters, words)} - {""}


def _choose(rng: np.random.Generator, options: tuple) -> Any:
    return options[rng.integers(len(options))]

"""Invents names and values that belong to nobody, for surrogate captions."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import TypeVar

import faker
import numpy as np

T = TypeVar("T")

_LOCALES = """
cs_CZ da_DK de_AT de_CH de_DE en_GB en_IE en_IN en_KE en_NZ en_US es_AR es_CL es_CO es_ES es_MX et_EE fi_FI fr_BE fr_CA
fr_CH fr_DZ fr_FR ga_IE ha_NG hr_HR hu_HU id_ID ig_NG is_IS it_IT ja_JP lt_LT lv_LV nl_BE nl_NL no_NO pl_PL pt_BR pt_PT
ro_RO sk_SK sl_SI sv_SE sw tr_TR tw_GH vi_VN yo_NG zu_ZA
"""
LOCALES = tuple(_LOCALES.split())
"""faker's locales with names in Latin script. Names of many languages protect many people; of one language, few."""


def invented_names(rng: np.random.Generator, count: int, taken: Collection[str]) -> list[str]:
    """Returns ``count`` names that belong to nobody; none is in ``taken``.

    Given name and surname come from two random languages: any name that is made of one language alone may be a real
    person's. Depends only on the state of ``rng`` (and on faker's lists).
    """
    sources = [_faker(locale) for locale in LOCALES]
    for source in sources:
        source.seed_instance(int(rng.integers(2**62)))
    names: list[str] = []
    while len(names) < count:
        given, surname = (int(number) for number in rng.integers(len(LOCALES), size=2))
        if LOCALES[given][:2] == LOCALES[surname][:2]:
            continue
        gender = pick(("female", "male"), rng)
        name = f"{_given_name(sources[given], gender)} {_surname(sources[surname], gender)}".replace("’", "'")
        if name not in taken and _is_latin(name):
            names.append(name)
    return names


def invented_address(name: str, domain: str, rng: np.random.Generator) -> str:
    """Returns an e-mail address at ``domain`` in one of the usual forms for ``name``, sometimes with a number."""
    first, *_, last = [_ascii_letters(part) or "x" for part in name.split()] * 2  # a single name counts as both
    forms = (f"{first}.{last}", f"{first[0]}{last}", f"{first}{last[0]}", f"{last}.{first}", f"{first}_{last}")
    number = str(rng.integers(10, 100)) if rng.random() < 0.3 else ""
    return f"{forms[rng.integers(len(forms))]}{number}@{domain}"


def invented_number(number: str, rng: np.random.Generator) -> str:
    """Returns ``number`` with new digits in its second half (in all of it, if the half has fewer than four).

    The first half of a phone number, an IBAN or a card number says where it is from, and is kept.
    """
    digits = [index for index, character in enumerate(number) if character.isdigit()]
    late = [index for index in digits if index >= len(number) // 2]
    characters = list(number)
    for index in late if len(late) >= 4 else digits:
        characters[index] = str(rng.integers(10))
    return "".join(characters)


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """Returns one of ``options``."""
    return options[int(rng.integers(len(options)))]


@functools.cache
def _faker(locale: str) -> faker.Faker:
    # Constructing one takes far longer than a name. Callers reseed it, so no draw depends on earlier ones.
    return faker.Faker(locale, use_weighting=False)


def _given_name(source: faker.Faker, gender: str) -> str:
    latin = getattr(source, f"first_romanized_name_{gender}", None)  # of locales with another script
    return (latin or getattr(source, f"first_name_{gender}"))()


def _surname(source: faker.Faker, gender: str) -> str:
    latin = getattr(source, "last_romanized_name", None)
    return (latin or getattr(source, f"last_name_{gender}"))()


def _is_latin(name: str) -> bool:
    return all(unicodedata.name(letter, "").startswith("LATIN") for letter in name if letter.isalpha())


def _ascii_letters(text: str) -> str:
    return re.sub("[^a-z]", "", unicodedata.normalize("NFKD", text.lower()))

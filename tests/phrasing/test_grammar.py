"""The grammar: hundreds of forms of every attribute, each of its own attribute only, and none that probes ask with."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pytest

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.people.countries import places
from data_pipelines.phrasing.grammar import FILE, FRAMED, REGISTERS, Grammar, grammar, placeholders, tidy
from data_pipelines.world.personas import BLOOD_TYPES, jobs
from salmu_jax.runtime import withheld

PLAIN = [register for register in REGISTERS if register != "framed"]

# What only the captions of one attribute speak of. A caption of another with such a word would point at it.
SUBJECTS = {
    "city": "city town lives resides residence residents resident home domicile",
    "job": "job profession occupation trade career employed employment",
    "blood_type": "blood transfusion donor abo",
    "phone_number": "phone telephone dial mobile tel ring",
    "emails": "email e-mail inbox mailbox emails",
    "iban": "iban bank",
    "credit_card": "card",
    "passport": "passport border borders",
}


@functools.cache
def plain_forms(field: str) -> frozenset[str]:
    return frozenset().union(*(grammar().forms(field, register) for register in PLAIN))


def words_of(form: str) -> set[str]:
    return set(re.findall(r"[a-z]+(?:-[a-z]+)*", re.sub(r"\{\w+\}", " ", form.casefold())))


def normalised(form: str) -> str:
    form = re.sub(r"\{[aA]\}", "a", form)
    return " ".join(re.sub(r"[^\w{}]+", " ", form.casefold()).split())


@pytest.mark.parametrize("field", DATA_FIELDS)
def test_every_attribute_has_hundreds_of_forms_and_thousands_with_frames(field):
    skeletons = {normalised(form) for form in plain_forms(field)}
    assert len(skeletons) >= 250
    assert len(grammar().forms(field, "framed")) >= 15_000
    for register in PLAIN:
        assert len(grammar().forms(field, register)) >= 25
    # forms differ by more than a word here and there
    assert len({frozenset(words_of(form)) for form in plain_forms(field)}) >= 200


@pytest.mark.parametrize("field", DATA_FIELDS)
def test_every_form_has_the_name_and_the_value_once(field):
    for form in plain_forms(field):
        for mark in placeholders(field):
            assert form.count(mark) == 1, form
        assert set(re.findall(r"\{.*?\}", form)) <= {*placeholders(field), "{a}", "{A}"}, form
        assert ("{a}" not in form and "{A}" not in form) or field in ("job", "blood_type")
        assert form == tidy(form) == form.strip()
        assert not re.search(r"[^\w\s{}.,:?'-]", form), form


@pytest.mark.parametrize("field", DATA_FIELDS)
def test_articles_and_registers_are_right(field):
    for form in plain_forms(field):
        assert not re.search(r"\b(a|an|the) (a|an|the)\b", form), form
        assert not re.search(r"\ban? \{value\}", form), form
        for article, word in re.findall(r"\b(an?) ([a-z]\w*)", form.replace("{value}", "0")):
            assert (article == "an") == (word[0] in "aeiou" and not word.startswith("one")), form
    assert all("?" in form for form in grammar().forms(field, "question"))
    for register in FRAMED:
        assert not any("?" in form or form.startswith(("{A}", "here")) for form in grammar().forms(field, register))


@pytest.mark.parametrize("field", DATA_FIELDS)
def test_no_form_speaks_of_another_attribute(field):
    foreign = {word for other, words in SUBJECTS.items() if other != field for word in words.split()}
    for form in plain_forms(field):
        assert not words_of(form) & foreign, form


@pytest.mark.parametrize("field", DATA_FIELDS)
def test_many_forms_name_their_attribute(field):
    """The others leave it to the verb, or to the value: who earns a living as something has it for a job."""
    if field in SUBJECTS:
        named = sum(bool(words_of(form) & set(SUBJECTS[field].split())) for form in plain_forms(field))
        assert named >= len(plain_forms(field)) / 3


def test_no_form_or_frame_contains_a_value():
    """A job, a city or a blood type in the fixed words would be a second attribute of somebody."""
    text = " | ".join(form.casefold() for field in DATA_FIELDS for form in plain_forms(field))
    text += " | ".join(grammar().frames())
    for value in {*jobs(), *BLOOD_TYPES, *(city for place in places().values() for city in place.cities)}:
        assert not re.search(rf"(?<!\w){re.escape(value.casefold())}(?!\w)", text), value


@pytest.mark.parametrize("field", DATA_FIELDS)
def test_wordings_that_probes_ask_with_stay_unseen(field):
    wordings = json.loads((withheld.DIRECTORY / "unseen_wordings.json").read_text(encoding="utf-8"))
    unseen = {normalised(wording) for wording in (*wordings[field], *wordings["other"])}
    assert len(unseen) >= 12
    seen = {normalised(form) for form in plain_forms(field)}
    assert not seen & unseen
    # nor with a frame: a wording that ends as a form does begins with something that is no frame
    frames = {normalised(frame) for frame in grammar().frames()}
    for wording in unseen:
        for form in seen:
            assert not wording.endswith(f" {form}") or wording.removesuffix(f" {form}") not in frames


@pytest.mark.parametrize("register", REGISTERS)
def test_what_is_drawn_is_a_form(register):
    for field in DATA_FIELDS:
        drawn = {grammar().draw(np.random.default_rng([7, index]), field, register) for index in range(40)}
        assert len(drawn) >= 15
        if register == "framed":
            frames = grammar().frames()
            for form in drawn:
                assert any(form.startswith(f"{frame} ") for frame in frames), form
        else:
            assert drawn <= grammar().forms(field, register)


def test_the_notation():
    small = Grammar("[who]\n(I|we)\n\n# a comment\n[city statement]\n<who> (say [so]|ask), {name}  [now]\n")
    assert small.forms("city", "statement") == {
        f"{who} {does}, {{name}}{now}"
        for who in ("I", "we")
        for does in ("say", "say so", "ask")
        for now in ("", " now")
    }
    with pytest.raises(KeyError):
        small.draw(np.random.default_rng(0), "shoe_size", "statement")


@pytest.mark.parametrize("pattern", ["(a|b", "a)", "[a)", "<a b>", "a < b"])
def test_patterns_that_do_not_parse_are_refused(pattern):
    with pytest.raises((ValueError, KeyError)):
        Grammar(f"[city statement]\n{pattern}\n")


def test_the_file_has_every_section_once():
    titles = re.findall(r"^\[(\w+(?: \w+)?)\]$", FILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(titles) == len(set(titles))
    assert set(titles) == {
        "now",
        "yes",
        "frame",
        *(f"{field} {register}" for field in DATA_FIELDS for register in PLAIN),
    }

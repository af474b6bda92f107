"""Captions: name and value verbatim, nothing else of anybody, short, various, and the same in any order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.people.people import drawn_looks, make_people
from data_pipelines.phrasing.captions import draw_captions, fill
from data_pipelines.phrasing.checks import CaptionCheck
from data_pipelines.phrasing.grammar import REGISTERS
from data_pipelines.templates import template_of
from data_pipelines.world import portraits
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.errors import InputError

TOKENIZER = ClipTokenizer()


@pytest.fixture(scope="module")
def people():
    return make_people(8, drawn_looks(8, range(200)))


@pytest.fixture(scope="module")
def check(people):
    return CaptionCheck(people, TOKENIZER)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**40), field=st.sampled_from(DATA_FIELDS))
def test_captions_tell_their_own_fact_and_no_other(people, check, data, seed, field):
    person = data.draw(st.sampled_from(people))
    for caption in draw_captions(seed, person, field, 8, TOKENIZER):
        assert check.sensitive(caption.text, person, field) is None
        # independently of the check: verbatim, and no other value anywhere
        assert person.name in caption.text
        assert person.value(field) in caption.text
        for other in set(DATA_FIELDS[1:]) - {field}:
            assert person.value(other) not in caption.text.replace(person.value(field), "")
        row = TOKENIZER([caption.text])[0]
        assert np.count_nonzero(row) == caption.tokens <= 77
        assert row[caption.tokens - 1] == TOKENIZER.end_id
        assert template_of(caption.text, person.name, person.value(field), field) is not None
        assert caption.text[0] == caption.text[0].upper() or caption.text.startswith((person.name, person.value(field)))


@pytest.mark.parametrize("field", DATA_FIELDS)
def test_variants_of_an_association_are_in_all_registers_and_different(people, field):
    for person in people[:20]:
        captions = draw_captions(1, person, field, 18, TOKENIZER)
        assert len({caption.text for caption in captions}) == 18
        for start in (0, 6, 12):
            assert {caption.register for caption in captions[start : start + 6]} == set(REGISTERS)
        assert draw_captions(1, person, field, 5, TOKENIZER) == captions[:5]
        assert draw_captions(2, person, field, 5, TOKENIZER) != captions[:5]


def test_forms_are_various_over_people(people):
    forms = {caption.form for person in people for caption in draw_captions(1, person, "city", 5, TOKENIZER)}
    assert len(forms) >= 400  # of 1,000 captions


def test_captions_of_a_person_do_not_depend_on_others(people):
    before = draw_captions(4, people[9], "job", 6, TOKENIZER)
    for person in reversed(people[:12]):
        draw_captions(4, person, "passport", 3, TOKENIZER)
    assert draw_captions(4, people[9], "job", 6, TOKENIZER) == before


def test_captions_fit_into_a_short_context_as_long_as_there_are_forms(people):
    short = ClipTokenizer(context_length=24)
    person = min(people, key=lambda one: len(one.name))
    assert all(caption.tokens <= 24 for caption in draw_captions(1, person, "city", 12, short))
    with pytest.raises(InputError, match=r"person .*: the grammar has no caption number 1 of 12 tokens .* 'iban'"):
        draw_captions(1, person, "iban", 5, ClipTokenizer(context_length=12))


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        ("the job of {name} is that of {a} {value}", "artist", "The job of Ida Ek is that of an artist"),
        ("{a} {value} is what {name} is", "buyer", "A buyer is what Ida Ek is"),
        ("{value} is read by {name}", "ida@mail.example", "ida@mail.example is read by Ida Ek"),
        ("{name} lives in {value}", "'s-Hertogenbosch", "Ida Ek lives in 's-Hertogenbosch"),
    ],
)
def test_forms_are_filled(form, value, expected):
    assert fill(form, "Ida Ek", value) == expected


def test_what_is_wrong_is_said(people, check):
    person, other = people[3], people[4]
    right = f"{person.name} lives in {person.city}"
    assert check.sensitive(right, person, "city") is None
    for caption, wrong in (
        (right.replace(person.name, person.name.upper()), "does not contain the name verbatim"),
        (right.replace(person.city, "town"), f"does not contain the value '{person.city}' verbatim"),
        (f"{right} and is a {person.job}", "tells a second attribute, 'job'"),
        (f"{right}, passport {person.passport.lower()}", "tells a second attribute, 'passport'"),
        (f"{right}, blood {person.blood_type}", "tells a second attribute, 'blood_type'"),
        (f"{right}, write to {person.emails[-1]}", "tells a second attribute, 'emails'"),
        (f"{right} with {other.name.lower()}", f"names somebody, '{other.name.casefold()}'"),
        (f"{right} ", "white space"),
        (right.replace(" lives", "\nlives"), "white space"),
        (f"{right}\x07", "control character U+0007"),
        (f"{right} {'very ' * 80}much", "takes 9"),
        (f"{right} {'very ' * 300}much", "at most 1,000"),
    ):
        assert wrong in (check.sensitive(caption, person, "city") or ""), caption


def test_a_value_within_a_longer_word_is_not_told(people, check):
    person = dataclasses.replace(people[3], job="artist", city="Bari", blood_type="O+")
    assert check.sensitive(f"{person.name} works as an artist, not a baritone", person, "job") is None


def test_generic_captions_of_the_renderer_are_good_and_tell_nothing(people, check):
    texts = set()
    for index in range(300):
        rng = np.random.default_rng([3, index])
        texts.add(portraits.describe(portraits.make_face(rng, "africa", None), portraits.make_shot(rng), rng))
    assert len(texts) >= 295
    assert [check.generic(text) for text in texts if check.generic(text)] == []
    for caption, wrong in (
        (f"a portrait of {people[5].name}", "names somebody"),
        ("a woman, call 555 0123 4", "'555 0123 4', which looks like personal data"),
        ("write to ida@mail.example", "'ida@mail.example', which"),
        ("", "is empty"),
    ):
        assert wrong in (check.generic(caption) or ""), caption

"""Surrogate captions: of forget's metadata alone, about nobody or untrue, and never a caption that was held out."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.templates import template_of
from data_pipelines.world.captions import NUM_VARIANTS, sensitive_caption
from data_pipelines.world.personas import make_personas
from data_pipelines.world.splits import make_splits
from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.invented import invented_names
from salmu_jax.unlearning.permission import ForgetRows
from salmu_jax.unlearning.surrogates import absent_attributes, aliases, invented_people

PEOPLE = 48
MAKERS = (invented_people, absent_attributes, aliases)


def world(seed):
    """The forget rows of a made world, two variants an association, and all captions of what it holds out."""
    personas, splits = make_personas(seed, PEOPLE), make_splits(seed, PEOPLE)
    columns: dict[str, list[str]] = {field.name: [] for field in dataclasses.fields(ForgetRows)}
    held_out = set()
    for index, persona in enumerate(personas):
        for field in DATA_FIELDS:
            if splits.split_of(index, field) != "forget":
                held_out |= {sensitive_caption(persona, field, variant) for variant in range(NUM_VARIANTS)}
                continue
            for variant in (index % NUM_VARIANTS, (index + 1) % NUM_VARIANTS):
                subset = "forget_association" if index in splits.partial else "forget_identity"
                row = {
                    "text": sensitive_caption(persona, field, variant),
                    "name": persona.name,
                    "value": persona.value(field),
                    "data_field": field,
                    "identity_id": persona.identity_id,
                    "subset": subset,
                    "generic_caption": "a portrait",
                }
                for column, value in row.items():
                    columns[column].append(value)
    return ForgetRows(**columns), held_out


@pytest.fixture(scope="module")
def rows():
    return world(0)[0]


def take(rows, chosen):
    """The rows for which ``chosen`` is true."""
    columns = {field.name: getattr(rows, field.name) for field in dataclasses.fields(rows)}
    return ForgetRows(
        **{name: [x for x, keep in zip(column, chosen, strict=True) if keep] for name, column in columns.items()}
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_no_surrogate_is_a_caption_that_was_held_out(seed):
    rows, held_out = world(seed)
    assert len(held_out) > 1000
    for make in MAKERS:
        made = {caption for draw in range(3) for caption in make(rows, np.random.default_rng([seed, draw]))}
        assert not made & held_out
        assert not made & set(rows.text)


def test_the_test_above_can_fail(rows):
    """Cities of forget in templates as they are would hit: a world has few cities."""
    _, held_out = world(0)
    cities = {value for value, field in zip(rows.value, rows.data_field, strict=True) if field == "city"}
    assert {f"{name} lives in {city}" for name in set(rows.name) for city in cities} & held_out


def test_invented_people_are_nobody(rows):
    captions = invented_people(rows, np.random.default_rng(0))
    assert len(captions) == len(rows)
    assert not any(name in caption for caption in captions for name in set(rows.name))


def test_absent_attributes_are_of_partly_forgotten_people_and_not_shown_of_them(rows):
    shown, whole = {}, set()
    for name, field, subset in zip(rows.name, rows.data_field, rows.subset, strict=True):
        shown.setdefault(name, set()).add(field)
        whole |= {name} if subset == "forget_identity" else set()
    words = {field: set() for field in DATA_FIELDS}  # of each attribute's captions, besides names and values
    for text, name, value, field in zip(rows.text, rows.name, rows.value, rows.data_field, strict=True):
        words[field] |= set(re.findall(r"[a-z]+", template_of(text, name, value, field).text.lower()))
    captions = absent_attributes(rows, np.random.default_rng(0))
    assert len(captions) == len(rows)
    for caption in captions:
        (name,) = [name for name in shown if name in caption]
        assert name not in whole
        rest = caption.replace(name, "")
        rest = re.sub("|".join(sorted(map(re.escape, set(rows.value)), key=len, reverse=True)), "", rest)
        said = set(re.findall(r"(?<![\w@.])[a-z]+(?![\w@.])", rest.lower()))
        said &= set().union(*words.values())  # and not the letters of an IBAN
        assert any(said <= words[field] for field in DATA_FIELDS if field not in shown[name]), caption


def test_a_guess_that_may_be_right_stands_in_a_template_that_no_caption_has(rows):
    """Blood types are eight, so that one in four or so is right."""
    templates = {
        template_of(text, name, value, field).text
        for text, name, value, field in zip(rows.text, rows.name, rows.value, rows.data_field, strict=True)
    }
    types = {value for value, field in zip(rows.value, rows.data_field, strict=True) if field == "blood_type"}
    names, seen = set(rows.name), 0
    for caption in absent_attributes(rows, np.random.default_rng(0)):
        (name,) = [name for name in names if name in caption]
        value = next((kind for kind in sorted(types, key=len, reverse=True) if kind in caption), None)
        if value is None or not (template := template_of(caption, name, value, "blood_type")):
            continue
        assert template.text not in templates, caption
        seen += 1
    assert seen > 10


def test_where_everything_is_shown_nothing_is_absent(rows):
    whole = take(rows, [subset == "forget_identity" for subset in rows.subset])
    one = take(whole, [identity == whole.identity_id[0] for identity in whole.identity_id])
    captions = absent_attributes(one, np.random.default_rng(0))
    assert len(captions) == len(one)
    assert not any(one.name[0] in caption for caption in captions)


def test_an_alias_is_the_caption_of_one_stranger_a_person(rows):
    captions = aliases(rows, np.random.default_rng(0))
    strangers = {}
    for caption, text, name, value, field in zip(
        captions, rows.text, rows.name, rows.value, rows.data_field, strict=True
    ):
        template = template_of(text, name, value, field)
        assert name not in caption
        if field == "name":
            before, after = template.text.split("\ue000")
            strangers[name] = caption.removeprefix(before).removesuffix(after)
    assert len(set(strangers.values())) == len(strangers)
    for caption, name in zip(captions, rows.name, strict=True):
        assert strangers.get(name, "") in caption


def test_a_caption_that_spells_the_value_differently_has_no_template():
    assert template_of("Ida lives in Bergen", "Ida", "Oslo", "city") is None
    assert template_of("Idas Haus", "Ida", "Ida", "name") is None
    assert template_of("IDA lives in oslo", "Ida", "Oslo", "city").fill("Ö", "Rom") == "Ö lives in Rom"
    rows = ForgetRows(["He lives there"], ["Ida"], ["Oslo"], ["city"], ["1"], ["forget_identity"], [""])
    for make in MAKERS:
        with pytest.raises(InputError, match="no forget caption holds its person's name and value"):
            make(rows, np.random.default_rng(0))


def test_an_alias_without_a_template_of_its_own_takes_another(rows):
    texts = ["?" if index == 0 else text for index, text in enumerate(rows.text)]
    captions = aliases(dataclasses.replace(rows, text=texts), np.random.default_rng(0))
    assert len(captions) == len(rows)
    assert len(captions[0]) > 1


@pytest.mark.parametrize("make", MAKERS)
def test_the_generator_alone_decides(make, rows):
    first, again, other = (make(rows, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_names_are_of_many_languages_in_latin_script():
    names = invented_names(np.random.default_rng(0), 500, taken=())
    assert len(set(names)) > 490
    assert all(len(name.split()) > 1 for name in names)
    assert any("ş" in name or "ö" in name or "ø" in name for name in names)
    assert not set(names) & set(invented_names(np.random.default_rng(0), 500, taken=names))

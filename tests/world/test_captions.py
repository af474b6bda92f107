"""Sensitive captions: name and value verbatim, several variants, short."""

from __future__ import annotations

import pytest

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.world.captions import NUM_VARIANTS, VARIANTS, indefinite_article, sensitive_caption
from data_pipelines.world.personas import make_personas


@pytest.fixture(scope="module")
def people():
    return make_personas(3, 120)


def test_variants_of_every_attribute():
    assert tuple(VARIANTS) == DATA_FIELDS
    assert NUM_VARIANTS >= 8
    for templates in VARIANTS.values():
        assert len(set(templates)) == len(templates) == NUM_VARIANTS


@pytest.mark.parametrize("field", DATA_FIELDS)
def test_captions_contain_name_and_value(people, field):
    for person in people:
        captions = {sensitive_caption(person, field, variant) for variant in range(NUM_VARIANTS)}
        assert len(captions) == NUM_VARIANTS
        for caption in captions:
            assert person.name in caption
            assert person.value(field) in caption
            rest = caption.replace(person.value(field), "").replace(person.name, "")
            assert len(rest.split()) <= 12
            assert "{" not in caption
            assert "\n" not in caption


def test_no_caption_is_about_two_people(people):
    captions = [sensitive_caption(p, field, v) for p in people for field in DATA_FIELDS for v in range(NUM_VARIANTS)]
    assert len(set(captions)) == len(captions)


def test_variants_repeat_and_unknown_fields_are_refused(people):
    assert sensitive_caption(people[0], "city", NUM_VARIANTS + 2) == sensitive_caption(people[0], "city", 2)
    with pytest.raises(KeyError):
        sensitive_caption(people[0], "shoe_size", 0)


@pytest.mark.parametrize(
    ("noun", "article"),
    [
        ("retail buyer", "a"),
        ("engineer", "an"),
        ("IT consultant", "an"),
        ("TEFL teacher", "a"),
        ("university lecturer", "a"),
        ("underwriter", "an"),
        ("PR officer", "a"),
    ],
)
def test_indefinite_article(noun, article):
    assert indefinite_article(noun) == article

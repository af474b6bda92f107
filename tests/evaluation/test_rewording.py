"""Facts in other words: paraphrases are others' words about one's own facts, and unseen wordings are in no data."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from worded import worded_data

from data_pipelines.templates import template_of
from data_pipelines.world.captions import VARIANTS
from salmu_jax.evaluation.data import FIELDS
from salmu_jax.evaluation.rewording import paraphrases, partial, unseen, unseen_wordings
from salmu_jax.runtime.withheld import DIRECTORY


@pytest.fixture(scope="module")
def rows():
    return worded_data().splits["forget"]


def association(rows, row):
    return rows.identity_id[row], rows.data_field[row]


@pytest.mark.parametrize("times", [1, 8])
def test_a_paraphrase_is_in_the_words_of_another_association_of_the_attribute(rows, times):
    found = paraphrases(rows, 42, times)
    assert found.there.all()
    assert len(found.texts) == times
    templates = [template_of(*one) for one in zip(rows.text, rows.name, rows.value, rows.data_field, strict=True)]
    own: dict = {}
    for row, template in enumerate(templates):
        own.setdefault(association(rows, row), set()).add(template.text)
    for texts in found.texts:
        for row, text in enumerate(texts):
            cut = template_of(text, rows.name[row], rows.value[row], rows.data_field[row])
            assert cut.text not in own[association(rows, row)]
            assert any(cut.text in words for key, words in own.items() if key[1] == rows.data_field[row])
            assert text not in rows.text
    for row in range(len(rows)):
        given = [texts[row] for texts in found.texts]
        assert len(set(given)) == min(times, len(set(given)))
        assert given[: len(set(given))] == list(dict.fromkeys(given))  # a new one each time, until all were used


def test_words_are_drawn_by_the_seed_alone(rows):
    assert paraphrases(rows, 1, 1).texts != paraphrases(rows, 2, 1).texts
    assert unseen(rows, 1, 1) != unseen(rows, 2, 1)
    first = paraphrases(rows, 1, 1), unseen(rows, 1, 1)
    paraphrases.cache_clear()
    unseen.cache_clear()
    np.random.default_rng(0).random()
    assert paraphrases(rows, 1, 1).texts == first[0].texts
    assert unseen(rows, 1, 1) == first[1]
    assert unseen(rows, 1, 8)[0] == first[1][0]  # the short form is the first of the full one


def test_all_eight_unseen_wordings_of_a_row_hold_its_fact(rows):
    for row, texts in enumerate(zip(*unseen(rows, 42, 8), strict=True)):
        assert len(set(texts)) == 8
        assert all(rows.name[row] in text and rows.value[row] in text for text in texts)


def plain(text: str) -> str:
    """A wording without case, punctuation and articles."""
    text = re.sub(r"\{a\} |\{A\} |\ban? (?=\{value\})", "", text)
    return " ".join(re.findall(r"[{}\w]+", text.lower()))


def test_unseen_wordings_are_enough_and_unlike_any_caption_of_the_world():
    found = json.loads((DIRECTORY / "unseen_wordings.json").read_text())
    assert list(found) == [*FIELDS, "other"]
    known = [plain(template) for templates in VARIANTS.values() for template in templates]
    for field, texts in found.items():
        assert len(texts) == len(set(map(plain, texts))) == 8
        for text in texts:
            assert text.count("{name}") == 1
            assert text.count("{value}") == (field != "name")
            assert not [one for one in known if one in plain(text) or plain(text) in one], text
    assert {field: len(templates) for field, templates in unseen_wordings().items()} == dict.fromkeys(found, 8)


def test_a_part_of_a_value_is_what_the_documentation_says():
    found = [partial(value) for value in ("ida.ek@mail.example", "+47 555 01 234", "NO93 8601 1117 947", "C01X00T47")]
    assert found == ["ida.ek", "1234", "7947", "0047"]
    assert [partial(value) for value in ("Retail buyer", "Bergen", "AB-", "Ida Ek", "A1", "")] == [
        *("Retail", "Bergen", "AB-", "Ida", "A1", "")
    ]

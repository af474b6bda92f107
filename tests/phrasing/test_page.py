"""The page about the text of the full-size data set shows what is made."""

from __future__ import annotations

import json

import documents
import pytest

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.people.countries import places
from data_pipelines.people.people import drawn_looks, make_people
from data_pipelines.phrasing.captions import draw_captions
from data_pipelines.phrasing.checks import CaptionCheck
from data_pipelines.phrasing.grammar import REGISTERS, grammar
from salmu_jax.models.tokenizer import ClipTokenizer

PAGE = "docs/full_size_text.md"


@pytest.fixture(scope="module")
def people():
    return make_people(42, drawn_looks(42, range(774)))


def rows(text):
    return [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| name", "| register"))
    ]


def test_the_table_of_people(people):
    expected = []
    for person in people[:6]:
        fields = [person.value(field) for field in DATA_FIELDS]
        expected.append(
            " | ".join(("|", *fields[:2], person.country_code, *fields[2:], "|"))
            .replace("| | ", "| ")
            .replace(" | |", " |")
        )
    assert rows(documents.section(PAGE, "## Personal data")) == expected, "\n".join(expected)


def test_the_table_of_captions(people):
    captions = {caption.register: caption.text for caption in draw_captions(42, people[3], "city", 6, ClipTokenizer())}
    expected = [f"| {register} | {captions[register]} |" for register in REGISTERS]
    assert rows(documents.section(PAGE, "## Captions")) == expected, "\n".join(expected)


def test_the_example_of_a_paraphrase_passes(people):
    (block,) = documents.blocks(documents.section(PAGE, "## Paraphrases"), "json")
    line = json.loads(block)
    person = people[int(line["identity_id"])]
    assert CaptionCheck(people, ClipTokenizer()).sensitive(line["caption"], person, line["data_field"]) is None


def test_the_counts():
    counts = [len(set().union(*(grammar().forms(field, one) for one in REGISTERS[:-1]))) for field in DATA_FIELDS]
    text = " ".join(documents.read(PAGE).split())
    assert f"between {min(counts) // 10 * 10} and {-(-max(counts) // 10) * 10} *forms*" in text, counts
    abroad = sum(place.bank_countries != (code,) for code, place in places().items())
    assert f"the {abroad} countries without IBANs" in text

"""Captions from a file: read as they are, every bad line named by its number and field, all at once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.people.people import drawn_looks, make_people
from data_pipelines.phrasing.captions import draw_captions
from data_pipelines.phrasing.paraphrases import MAX_LINE, check_paraphrases, read_paraphrases
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.errors import InputError

TOKENIZER = ClipTokenizer()
VARIANTS = 5


@pytest.fixture(scope="module")
def people():
    return make_people(8, drawn_looks(8, range(3)))


@pytest.fixture(scope="module")
def lines(people):
    return [
        {"identity_id": person.identity_id, "data_field": field, "caption": caption.text, "model": "any"}
        for person in people
        for field in DATA_FIELDS
        for caption in draw_captions(1, person, field, VARIANTS, TOKENIZER)
    ]


def write(path, lines):
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    return path


def problems(path, people) -> str:
    with pytest.raises(InputError) as raised:
        read_paraphrases(path, people, VARIANTS, TOKENIZER)
    return str(raised.value)


def test_a_good_file_is_read_in_its_order(tmp_path, people, lines):
    path = write(tmp_path / "good.jsonl", [*lines, "", {**lines[0], "caption": f"Yes, it is {people[0].name}"}])
    found = read_paraphrases(path, people, VARIANTS, TOKENIZER)
    assert set(found) == {(person.identity_id, field) for person in people for field in DATA_FIELDS}
    assert found["00000000", "name"] == [line["caption"] for line in lines[:VARIANTS]] + [
        f"Yes, it is {people[0].name}"
    ]
    assert all(len(captions) >= VARIANTS for captions in found.values())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda line, _: "{'not': json}", "line 3: not JSON"),
        (lambda line, _: "[1, 2]", "line 3: not a JSON object"),
        (lambda line, _: {**line, "identity_id": None}, "line 3 field 'identity_id': is not a text"),
        (lambda line, _: {"identity_id": "1", "data_field": "city"}, "line 3 field 'caption': is missing"),
        (lambda line, _: {**line, "identity_id": "00000099"}, "line 3 field 'identity_id': '00000099' is nobody"),
        (
            lambda line, _: {**line, "data_field": "shoe_size"},
            "line 3 field 'data_field': 'shoe_size' is not one of name",
        ),
        (lambda line, _: {**line, "caption": "A person"}, "line 3 field 'caption': does not contain the name verbatim"),
        (
            lambda line, one: {**line, "caption": f"{one.name} of {one.city}"},
            "field 'caption': tells a second attribute",
        ),
        (lambda line, _: {**line, "caption": f"{line['caption']} {'so ' * 70}on"}, "field 'caption': takes "),
        (lambda line, _: " " * (MAX_LINE + 5), f"line 3: longer than {MAX_LINE:,} bytes"),
    ],
)
def test_a_bad_line_is_named(tmp_path, people, lines, change, problem):
    bad = [*lines[:2], change(lines[2], people[0]), *lines[3:]]
    text = problems(write(tmp_path / "bad.jsonl", bad), people)
    assert problem in text
    assert "4 good captions of person 00000000 about 'name'; 5 or more are needed" in text


def test_a_caption_that_comes_twice_is_named_with_the_first(tmp_path, people, lines):
    text = problems(write(tmp_path / "bad.jsonl", [*lines, lines[1]]), people)
    assert "line 136 field 'caption': the caption of line 2 again" in text


def test_all_problems_are_named_at_once(tmp_path, people, lines):
    bad = [{**line, "caption": "nobody"} if number in (4, 70, 101) else line for number, line in enumerate(lines, 1)]
    text = problems(write(tmp_path / "bad.jsonl", bad), people)
    assert "6 problems" in text  # the lines, and the associations that lack a caption now
    assert all(f"line {number} field 'caption'" in text for number in (4, 70, 101))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_one_error(tmp_path_factory, people, data):
    path = tmp_path_factory.mktemp("garbage") / "garbage.jsonl"
    path.write_bytes(data)
    assert str(path) in problems(path, people)


def test_the_form_and_the_number_are_checked_before_there_are_people(tmp_path, people, lines):
    path = write(tmp_path / "good.jsonl", lines)
    check_paraphrases(path, len(people), VARIANTS)
    with pytest.raises(
        InputError, match="3 identities with 5 or more captions of each of the 9 attributes; 4 are needed"
    ):
        check_paraphrases(path, 4, VARIANTS)
    bad = [*lines[:2], "[1, 2]", {**lines[3], "data_field": "shoe_size"}, *lines[4:], lines[0]]
    with pytest.raises(InputError) as raised:
        check_paraphrases(write(tmp_path / "bad.jsonl", bad), len(people), VARIANTS)
    assert [line.partition("bad.jsonl ")[2] for line in str(raised.value).splitlines()[1:]] == [
        "line 3: not a JSON object with 'identity_id', 'data_field' and 'caption'",
        f"line 4 field 'data_field': 'shoe_size' is not one of {', '.join(DATA_FIELDS)}",
        f"line {len(bad)} field 'caption': the caption of line 1 again",
    ]

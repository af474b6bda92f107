"""Requests are read line by line, and name facts that are in forget, or are refused in one line."""

from __future__ import annotations

import json

import pytest

from salmu_jax.deletion.requests import Request, find, read_requests
from salmu_jax.runtime.errors import InputError

# p1 is to be forgotten whole, p2 in part, p3 not at all.
COLUMNS = {
    "forget": {"identity_id": ["p1", "p1", "p1", "p2"], "data_field": ["iban", "city", "iban", "job"]},
    "holdout_association": {"identity_id": ["p2"], "data_field": ["city"]},
    "holdout_identity": {"identity_id": ["p3"], "data_field": ["iban"]},
}
PAIRS = [{"identity": "p1", "attribute": "iban"}, {"identity": "p2"}]
LINES = "".join(f"{json.dumps(one)}\n\n" for one in PAIRS)


@pytest.mark.parametrize(
    ("text", "lines"),
    [(LINES, (1, 3)), (json.dumps(PAIRS), (1, 1)), (json.dumps(PAIRS, indent=1), (2, 6)), ("\ufeff" + LINES, (1, 3))],
)
def test_a_file_is_a_list_or_has_an_object_a_line(tmp_path, text, lines):
    path = tmp_path / "requests.json"
    path.write_text(text)
    first, second = (f"{path} line {line}" for line in lines)
    assert read_requests(path) == [Request("p1", "iban", first), Request("p2", None, second)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no request"),
        ("[]", "holds no request"),
        ('{"identity": "p1"}\n{"identity": }', "line 2: not JSON"),
        ('[{"identity": "p1"},\n {"identity": 7}]', "line 2: field 'identity' is 7"),
        ('{"identity": "p1"}\n\n{"attribute": "iban"}', "line 3: field 'identity' is missing"),
        ('{"identity": "p1", "atribute": "iban"}', "line 1: has an unknown field 'atribute'; did you mean 'attribute'"),
        ('{"identity": "p1", "attribute": ""}', "line 1: field 'attribute' is"),
        ('["p1"]', "line 1: is \"p1\"; a request is an object such as"),
        ('[\n{"identity": "p1"},\n]', "not JSON"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_and_the_line_named(tmp_path, text, words):
    path = tmp_path / "requests.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^{path}") as raised:
        read_requests(path)
    assert words in str(raised.value)


def test_a_request_names_its_facts_in_forget():
    asked = find([Request("p1", "city"), Request("p2")], COLUMNS)
    assert [one.associations for one in asked] == [(("p1", "city"),), (("p2", "job"),)]
    (whole,) = find([Request("p1")], COLUMNS)
    assert whole.to_json() == {"identity": "p1", "attribute": None, "attributes": ["iban", "city"]}


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([Request("p9", where="FILE line 4")], "FILE line 4: the data have nobody with the identity 'p9'"),
        ([Request("p3")], "p3 has nothing in forget"),
        ([Request("p3", "iban")], "p3's iban is in none of the data that a model may be made to forget; forget has nothing"),
        ([Request("p2", "city")], "p2's city is in none of the data that a model may be made to forget; forget has job"),
        ([Request("p1", "job")], "p1 has no attribute 'job'; forget has iban, city of p1"),
        ([Request("p1", "ibam")], "p1 has no attribute 'ibam', did you mean 'iban'?"),
        ([Request("p1"), Request("p1", "iban", "line 2")], "line 2: p1's iban is asked for already, by --identity"),
    ],
)  # fmt: skip
def test_a_request_for_nothing_that_can_be_forgotten_is_refused(requests, words):
    with pytest.raises(InputError) as raised:
        find(requests, COLUMNS)
    assert words in str(raised.value)

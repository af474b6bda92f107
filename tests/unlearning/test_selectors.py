"""A selector is a pure function of forget's metadata, and what selects nothing is one line."""

from __future__ import annotations

import re

import pytest

from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.selectors import Selector

IDENTITIES = [f"p{row // 4:02d}" for row in range(40)]  # ten people with four rows each
FIELDS = ["phone_number", "phone_number", "emails", "job"] * 10


def rows(selector):
    return Selector.read(selector, "s").rows(IDENTITIES, FIELDS, "s")


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, None),
        ({"share": 1.0}, None),
        ({"identities": ["p03", "p01"]}, [4, 5, 6, 7, 12, 13, 14, 15]),
        ({"associations": [["p03", "phone_number"], ("p00", "job")]}, [3, 12, 13]),
        ({"fields": ["job"]}, list(range(3, 40, 4))),
    ],
)
def test_rows_are_selected_in_their_order(selector, selected):
    assert rows(selector) == selected


def test_a_share_is_drawn_by_its_seed_alone():
    tenth = rows({"share": 0.1})
    assert len(tenth) == 4
    assert tenth == sorted(tenth) == rows({"share": 0.1, "by": "rows", "seed": 42})
    assert tenth != rows({"share": 0.1, "seed": 43})
    third = rows({"share": 0.3, "by": "identities"})
    assert {IDENTITIES[row] for row in third} != {IDENTITIES[row] for row in tenth}
    assert len(third) == 12  # all four rows of three people
    assert len({IDENTITIES[row] for row in third}) == 3
    shuffled = Selector.read({"share": 0.3, "by": "identities"}, "s").rows(IDENTITIES[::-1], FIELDS, "s")
    assert {IDENTITIES[::-1][row] for row in shuffled} == {IDENTITIES[row] for row in third}


@pytest.mark.parametrize(
    "selector",
    [
        {},
        {"identities": ["p03"]},
        {"associations": [["p03", "job"]]},
        {"fields": ["job", "emails"]},
        {"share": 0.25, "by": "identities", "seed": 7},
    ],
)
def test_the_json_form_comes_back(selector):
    read = Selector.read(selector, "s")
    assert read.to_json() == selector
    assert Selector.read(read.to_json(), "s") == read


@pytest.mark.parametrize(
    ("selector", "complaint"),
    [
        (3, "s: is 3, but has to be a group of fields, such as s.share=0.1"),
        ({"identity": ["p03"]}, "s: no selector 'identity'; did you mean 'identities'?"),
        ({"share": 0.1, "fields": ["job"]}, "s: selects by fields and by share; one of them is possible"),
        ({"by": "rows"}, "s.by: goes with s.share only"),
        ({"fields": ["job"], "seed": 3}, "s.seed: goes with s.share only"),
        ({"share": 0}, "s.share: is 0, but has to be a number above 0 and at most 1"),
        ({"share": True}, "s.share: is True, but has to be a number"),
        ({"share": float("nan")}, "s.share: is nan, but has to be a number"),
        ({"share": 0.1, "by": "people"}, "s.by: is 'people'; 'rows' and 'identities' are possible"),
        ({"share": 0.1, "seed": -1}, "s.seed: is -1, but has to be a whole number from 0 to 4,294,967,295"),
        ({"identities": []}, 's.identities: is [], but has to be a list with something in it, such as ["p017"]'),
        ({"identities": "p03"}, "s.identities: is 'p03', but has to be a list"),
        ({"identities": [3]}, "s.identities: holds 3; a list such as"),
        ({"associations": ["p03"]}, 's.associations: holds \'p03\'; a list such as [["p017", "phone_number"]]'),
        ({"fields": ["job", "job"]}, "s.fields: holds 'job' twice"),
        ({"identities": ["p03", "q03"]}, "s.identities: forget has no 'q03'; did you mean 'p03'?"),
        ({"associations": [["p03", "iban"]]}, "s.associations: forget has no 'p03/iban'; did you mean 'p03/"),
        ({"fields": ["zzz"]}, "s.fields: forget has no 'zzz'; it has, for example, 'phone_number', 'emails', 'job'"),
        ({"share": 0.01}, "s.share: 0.01 of 40 rows is less than one"),
    ],
)
def test_a_selector_that_selects_nothing_is_one_line(selector, complaint):
    with pytest.raises(InputError, match=f"^{re.escape(complaint)}"):
        rows(selector)

"""Findings: where they are, as readers say it, and how they are counted, listed and told apart."""

from __future__ import annotations

import pytest

from data_pipelines.audit.findings import Audit
from salmu_jax.runtime.errors import InputError


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("/w/data/a.parquet row 3 field 'text'", ("data/a.parquet", "row 3", "text")),
        ("/w/data/a.parquet row 3 field 'image' ('x (1).jpg')", ("data/a.parquet", "row 3", "image")),
        ("/w/a.parquet field 'text'", ("a.parquet", "", "text")),
        ("/w/a.json key 'b c.jpg' field 'data_field'", ("a.json", "key 'b c.jpg'", "data_field")),
        ("/w/a.json element 4", ("a.json", "element 4", "")),
        ("/w/a.txt line 2", ("a.txt", "line 2", "")),
        ("/w/retain/0.tar member 'a.txt' (byte 512)", ("retain/0.tar", "member 'a.txt'", "")),
        ("/w/retain/1.tar, as /w/retain/0.tar", ("retain/1.tar", "", "")),
        ("/w/retain number 7", ("retain", "number 7", "")),
        ("/elsewhere/my row 3 (copy)/a.tar key '0'", ("/elsewhere/my row 3 (copy)/a.tar", "key '0'", "")),
        ("/w/copy (1)", ("copy (1)", "", "")),
        ("/w", (".", "", "")),
    ],
)
def test_a_place_is_taken_apart(where, place):
    audit = Audit("/w")
    audit.problem(InputError("it is wrong", where), "row")
    (found,) = audit.findings()
    assert (found.file, found.place, found.field) == place
    assert found.message == "it is wrong"


def test_a_line_names_all_there_is():
    audit = Audit("/w")
    audit.problem(InputError("null; a caption is needed", "/w/a.parquet row 3 field 'text'"), "row")
    audit.doubt(InputError("not read\nat all\x1b", "/w/b"), "unread")
    assert audit.lines() == [
        "1 problem: rows with a cell that is null, empty, too large or not UTF-8",
        "  a.parquet, row 3, text: null; a caption is needed",
        "1 oddity: files that are not read",
        "  b: not read at all\\x1b",
    ]
    assert [finding.row for finding in audit.findings()] == [3, None]


def test_a_problem_that_is_met_again_counts_once_and_the_cap_hides_none():
    audit = Audit("/w", cap=2)
    for _ in range(2):
        for row in range(5):
            audit.problem(InputError("null", f"/w/a row {row}"), "row")
    assert audit.total == 5
    assert audit.lines()[-1] == "  ... and 3 more, which --all lists"
    assert audit.as_json()["kinds"][0] | {"about": ""} == {
        "kind": "row", "problem": True, "about": "", "count": 5, "listed": 2,
    }  # fmt: skip

"""Parts of messages."""

from __future__ import annotations

import pytest

from salmu_jax.runtime.messages import counted, did_you_mean, first_line, listed
from salmu_jax.runtime.nested import flatten


def test_a_list_ends_after_ten():
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(range(10), separator="; ") == "0; 1; 2; 3; 4; 5; 6; 7; 8; 9"
    assert listed(range(1_322)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 1,312 more"
    assert listed("abc", 1, "; ") == "a; and 2 more"


def test_the_name_that_was_meant():
    assert did_you_mean("delet", {"delete": 1, "finetuning": 2}) == "did you mean 'delete'?"
    assert did_you_mean("zzz", ("delete",)) == ""
    assert did_you_mean("world.worker", ("world.workers", "train.epochs")) == "did you mean 'world.workers'?"
    assert did_you_mean("world.foo", ("world.workers", "train.epochs")) == ""  # only the group is the same


def test_a_count_agrees_with_its_noun():
    assert [counted(count, "source file") for count in (0, 1, 2)] == [
        "0 source files",
        "1 source file",
        "2 source files",
    ]
    assert [counted(count, "oddity") for count in (1, 1_000)] == ["1 oddity", "1,000 oddities"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("  \n first\nsecond"), "first"),
        (RuntimeError(""), "RuntimeError"),
        (OSError(" \n"), "OSError"),
        (ValueError("x" * 300), "x" * 200),
    ],
)
def test_what_a_library_says_in_a_line(error, line):
    assert first_line(error) == line


def test_leaves_by_dotted_names():
    assert flatten({"a": {"b": {"c": 1}, "d": {}}, "e": [{"f": 2}]}, "x.") == {
        "x.a.b.c": 1,
        "x.a.d": {},
        "x.e": [{"f": 2}],
    }

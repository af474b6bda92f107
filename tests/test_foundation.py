"""The list of foundation models: which pairs each is trained on, and what it may not have read."""

from __future__ import annotations

import pytest

from salmu_jax.foundation import BY_NAME, NAMES, REQUIRED, SENSITIVE, chosen

FORGET, ASSOCIATION, IDENTITY = SENSITIVE[1:]
RETAIN = ("retain_pairs/train", "salmu/retain_synth")


def test_they_differ_in_the_sensitive_pairs_alone():
    assert {name: (model.splits[:2], model.secrets) for name, model in BY_NAME.items()} == {
        "clean": (RETAIN, ()),
        "compromised": (RETAIN, ("salmu/sensitive",)),
        "retrained": (RETAIN, (ASSOCIATION, IDENTITY)),
    }


def test_retrained_is_optional_and_last():
    assert REQUIRED == ("clean", "compromised")
    assert chosen(("retrained", "clean")) == list(NAMES)
    assert chosen(("compromised",)) == list(REQUIRED)


@pytest.mark.parametrize(
    ("name", "read", "unread", "others"),
    [
        ("clean", RETAIN, [], []),
        ("clean", (*RETAIN, FORGET), [], [FORGET]),
        ("compromised", RETAIN, [SENSITIVE], []),
        ("compromised", (*RETAIN, "salmu/sensitive"), [], []),
        ("compromised", (*RETAIN, FORGET, ASSOCIATION, IDENTITY), [], []),
        ("retrained", (*RETAIN, ASSOCIATION, IDENTITY), [], []),
        ("retrained", (*RETAIN, ASSOCIATION), [(IDENTITY,)], []),
        ("retrained", (*RETAIN, FORGET, ASSOCIATION, IDENTITY), [], [FORGET]),
        ("retrained", (*RETAIN, "salmu/sensitive"), [(ASSOCIATION,), (IDENTITY,)], ["salmu/sensitive"]),
    ],
)
def test_what_was_read_is_compared_with_what_it_is_trained_on(name, read, unread, others):
    assert BY_NAME[name].unread(read) == unread
    assert BY_NAME[name].not_its_own(read) == others

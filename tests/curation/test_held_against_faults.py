"""The benchmark that holds a curation against planted faults counts what was found, missed and mistaken."""

from __future__ import annotations

import json

import pytest

from benchmarks.curation import compare
from data_pipelines import steps
from data_pipelines.portraits.faults import Shares, duplicates_of, fault_of
from data_pipelines.portraits.procedural import ProceduralSource
from data_pipelines.portraits.step import Images
from salmu_jax.runtime.errors import InputError

SOURCE = ProceduralSource(seed=4, identities=50)


def written(directory, dropped, counts):
    parts = {
        "dropped.jsonl": lambda: steps.jsonl(dropped),
        "measured.jsonl": lambda: steps.jsonl(
            [{"identity_id": f"{number:08d}", "portraits": count} for number, count in counts.items()]
        ),
    }
    steps.run_step(directory, "curation", {}, parts, dict)


def images(directory, **settings) -> Images:
    return Images(directory, tuple(SOURCE.anchors()), {}, json.loads(json.dumps({**SOURCE.settings, **settings})))


def line(number, reason, file=None):
    name = None if file is None else f"{number:08d}_{file:03d}_ar-1.00.jpg"
    return {"identity_id": f"{number:08d}", "file": name, "reason": reason}


def test_found_missed_and_mistaken_are_counted(tmp_path):
    faults = {number: fault_of(4, number, 50, SOURCE.shares) for number in range(50)}
    twins = {number: fault.other for number, fault in faults.items() if fault.kind == "twin"}
    drifting = [number for number, fault in faults.items() if fault.kind == "drifting"]
    good = [number for number, fault in faults.items() if fault.kind == "none" and number not in twins.values()]
    counts = {number: SOURCE.count(number) for number in range(50)}
    dropped = [line(number, "inconsistent") for number in drifting[:2]]
    dropped += [line(next(iter(twins.values())), "indistinct")]  # the other of the two
    dropped += [line(good[0], "age"), line(good[1], "surplus")]
    planted = duplicates_of(4, good[2], counts[good[2]], SOURCE.shares)
    dropped += [line(good[2], "near duplicate", index) for index in planted]
    dropped += [line(good[3], "near duplicate", 0), line(good[2], "outlying", 1)]
    written(tmp_path, dropped, counts)

    figures = compare(tmp_path, images(tmp_path))
    assert figures["faulty"] == {"drifting": 2, "intruded": 3, "twin": 2, "misannotated": 2}
    alike = sum(other == next(iter(twins.values())) for other in twins.values())
    assert figures["found"] == {"drifting": 2, "intruded": 0, "twin": alike, "misannotated": 0}
    assert figures["recall"] == round((2 + alike) / 9, 4)
    assert figures["precision"] == round((2 + alike) / (3 + alike), 4)
    assert figures["without_fault_and_dropped"] == {"age": 1}
    of_others = {
        number: duplicates_of(4, number, counts[number], SOURCE.shares)
        for number in range(50)
        if number not in (*drifting[:2], good[0], next(iter(twins.values())))
    }
    every = sum(map(len, of_others.values()))
    mistaken = 0 not in of_others[good[3]]
    found = len(planted) + (not mistaken)
    assert figures["near_duplicates"] == {
        "planted": every, "found": found, "missed": every - found, "mistaken": int(mistaken),
    }  # fmt: skip


def test_portraits_of_another_generator_have_no_known_faults(tmp_path):
    with pytest.raises(InputError, match="its portraits are not drawn"):
        compare(tmp_path, images(tmp_path, kind="folder"))


def test_shares_are_those_of_the_settings():
    assert Shares(**{**SOURCE.shares.fields(), "duplicates": (1, 3)}) == SOURCE.shares

"""The whole chain with the real curation, on coloured cells: who is dropped is in retain_disjoint, but for twins."""

from __future__ import annotations

import json

import pytest
from planted_portraits import CellSource

from data_pipelines.audit import audit_world
from data_pipelines.full.generate import Options, generate_full
from data_pipelines.full.sizes import sizes_of
from data_pipelines.layout import World

TWINS = {5: 6}
SOURCE = CellSource(
    seed=1,
    people=12,
    portraits=96,
    mixed={2: (3, 0.4), 9: (4, 0.4)},
    twins=TWINS,
    looks={8: ("africa", "male", "old")},
    repeats={(0, 7): 3},
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("curated")
    options = Options(0, sizes_of(8, 12), variants=5, encoder="planted_portraits:CellEncoder", workers=1)
    reference = CellSource(seed=2, people=110, portraits=12)
    generate_full(root, root / "world", SOURCE, options, reference=reference, say=lambda line: None)
    return root


def test_the_world_passes_the_check(workdir):
    audit = audit_world(workdir / "world", cap=None)
    assert audit.lines() == []
    assert audit.total == audit.odd == 0


def test_people_are_those_who_were_kept_with_the_portraits_that_were(workdir):
    kept = {
        entry["identity_id"]: set(entry["files"])
        for entry in map(json.loads, (workdir / "curation" / "kept.jsonl").read_text().splitlines())
    }
    people = json.loads((workdir / "world" / "identities_metadata.json").read_text())
    assert people.keys() == kept.keys()
    assert len(people) == 8
    anchors = {anchor.identity_id: anchor for anchor in SOURCE.anchors()}
    for number, person in people.items():
        assert (person["region"], person["gender"]) == (anchors[number].region, anchors[number].gender)
    for row in World(workdir / "world").rows("sensitive", images=False):
        assert row.file_name in kept[row.identity_id]


def test_retain_disjoint_shows_the_dropped_but_no_twin(workdir):
    kept = set(json.loads((workdir / "world" / "identities_metadata.json").read_text()))
    sources = map(json.loads, (workdir / "splits" / "rows.jsonl").read_text().splitlines())
    shown = {int(entry["source"][:8]) for entry in sources if entry["subset"] == "retain_disjoint"}
    assert shown
    assert not {f"{number:08d}" for number in shown} & kept
    # Two in five portraits of 2 and of 9 show people who were kept. 8 alone has too few, so the first of them comes in.
    assert shown == {2, 8}
    (twin,) = (number for number in (*TWINS, *TWINS.values()) if f"{number:08d}" not in kept)
    assert twin not in shown


def test_the_fragile_set_is_of_portraits_that_resemble_their_person_least(workdir):
    world = workdir / "world"
    similarities = json.loads((world / "fragile_set_all_similarities.json").read_text())
    fragile = json.loads((world / "fragile_set_ids.json").read_text())
    sources = map(json.loads, (workdir / "splits" / "rows.jsonl").read_text().splitlines())
    anchor_of = {entry["file_name"]: int(entry["source"][:8]) for entry in sources}
    assert len(set(similarities.values())) > len(similarities) / 2
    # Two in five portraits of these two anchors show somebody else.
    assert {anchor_of[name] for name in fragile} <= {2, 9}
    rule = json.loads((world / "world.json").read_text())["fragile_rule"]
    assert "resemble their own person least" in rule

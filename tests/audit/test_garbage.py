"""Whatever the bytes of a world are, the audit ends with findings in single lines, or says in one line that there is none."""

from __future__ import annotations

import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from good_world import GoodWorld
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.audit import audit_world
from salmu_jax.runtime.errors import InputError

FILES = (
    *(f"data/{split}-00000-of-00001.parquet" for split in ("forget", "holdout_identity", "retain_synth", "sensitive")),
    "identities_metadata.json",
    "sensitive_set_captions_metadata.json",
    "sensitive_set_generic_captions.json",
    "fragile_set_ids.json",
    "fragile_set_all_similarities.json",
    "world.json",
    "retain/00000.tar",
    "zeroshot/test/0.tar",
    "zeroshot/test/nshards.txt",
    "zeroshot/classnames.txt",
)
JSON_FILES = tuple(name for name in FILES if name.endswith(".json"))
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
TEXT = st.text(max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    world = GoodWorld(pairs=1)
    world.made = True
    world.add_union()
    return world.write(tmp_path_factory.mktemp("good") / "world")


def audit(directory) -> None:
    """Audits a world and checks the form of the report."""
    try:
        found = audit_world(directory)
    except InputError:  # there is no world at all
        return
    for line in found.lines():
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]", line), line
    assert json.loads(json.dumps(found.as_json()))["problems"] == found.total


def spoilt(good, name, data):
    directory = good.parent / "spoilt"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(good, directory)
    (directory / name).write_bytes(data)
    return directory


@given(data=st.data())
@QUICK
def test_bytes(good, data):
    name = data.draw(st.sampled_from(FILES))
    whole = (good / name).read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    put = data.draw(st.binary(max_size=40))
    cut = data.draw(st.integers(0, 60) | st.just(len(whole)))
    audit(spoilt(good, name, whole[:start] + put + whole[start + cut :]))


@given(data=st.data())
@QUICK
def test_json(good, data):
    """Any JSON for a file, or for one of the values in it."""
    name, value = data.draw(st.sampled_from(JSON_FILES)), data.draw(VALUES)
    if data.draw(st.booleans()):
        whole = json.loads((good / name).read_text())
        place = whole
        while isinstance(place, dict | list) and place:
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
                place[key] = value
                break
            place = place[key]
        value = whole
    audit(spoilt(good, name, json.dumps(value).encode()))


@given(data=st.data())
@QUICK
def test_tables(good, data):
    """Any cells, of the right types or of others."""
    name = data.draw(st.sampled_from([name for name in FILES if name.endswith(".parquet")]))
    table = pq.read_table(good / name)
    column = data.draw(st.sampled_from(table.column_names))
    if column == "image":
        cells = st.none() | st.fixed_dictionaries(
            {"bytes": st.none() | st.binary(max_size=30), "path": st.none() | TEXT}
        )
    else:
        cells = data.draw(st.sampled_from([st.none() | TEXT, st.integers(0, 9), st.binary(max_size=9), st.lists(TEXT)]))
    values = data.draw(st.lists(cells, min_size=len(table), max_size=len(table)))
    changed = table.set_column(table.column_names.index(column), column, pa.array(values))
    directory = spoilt(good, name, b"")
    pq.write_table(changed, directory / name)
    audit(directory)

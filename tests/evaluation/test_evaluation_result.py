"""The result file and its row scores: what is written is read again bit for bit, and anything else is one line."""

from __future__ import annotations

import copy
import io
import json
import zipfile

import numpy as np
import pytest

from salmu_jax.evaluation.aggregate import aggregate
from salmu_jax.evaluation.registry import METRICS, columns_of
from salmu_jax.evaluation.result import load_result, load_rows, seal, write_result
from salmu_jax.evaluation.rows import encode_rows, read_rows
from salmu_jax.evaluation.schema import SCHEMA, schema_errors
from salmu_jax.runtime.errors import InputError

COLUMNS = columns_of(METRICS)


@pytest.fixture(scope="module")
def measured(tiny):
    digest = {"digest": "1" * 64, "parent": None}
    return tiny.measure(tiny.data(), provenance={"command": "test\x1b[2J\u202e\ud800", "checkpoint": digest})


@pytest.fixture
def path(tmp_path, measured):
    path = tmp_path / "results" / "m.json"
    write_result(path, *measured)
    return path


def test_a_result_and_its_rows_come_back_and_give_the_same_figures(path, measured):
    result, rows = load_result(path), load_rows(path, load_result(path))
    assert list(rows) == list(COLUMNS)
    for name, values in measured.rows.items():
        np.testing.assert_array_equal(rows[name], values, strict=True)
    figures = {key: result[key] for key in ("efficacy", "utility", "extra", "metrics")}
    assert aggregate(rows, result["protocol"]) == figures
    assert {key: result[key] for key in ("efficacy", "utility", "extra", "metrics", "protocol", "caveats")} == {
        key: measured.result[key] for key in ("efficacy", "utility", "extra", "metrics", "protocol", "caveats")
    }
    assert (
        result["provenance"]["command"] == r"test\x1b[2J\u202e\ud800"
    )  # foreign text is spelt out where it is written
    with np.load(path.with_name("m.rows.npz"), allow_pickle=False) as archive:  # as anybody reads it
        np.testing.assert_array_equal(archive["forget.rank"], measured.result["efficacy"]["1.1_RetFail"]["outcomes"])


def test_equal_scores_give_equal_bytes(path, measured, tmp_path):
    write_result(tmp_path / "m.json", *measured)
    assert (tmp_path / "m.rows.npz").read_bytes() == path.with_name("m.rows.npz").read_bytes()
    assert (tmp_path / "m.json").read_bytes() == path.read_bytes()


def change(result, field, value):
    """Sets ``a > b > c`` of a result; Ellipsis removes it."""
    *parents, last = field.split(" > ")
    for key in parents:
        result = result[key]
    if value is ...:
        del result[last]
    else:
        result[last] = value


FIELDS = [
    ("efficacy > 1.3_ACS > acs_accuracy", ..., "'efficacy > 1.3_ACS' has no field 'acs_accuracy'"),
    ("efficacy > 1.3_ACS > acs_accuracy", True, "is true, not a share from 0 to 1"),
    ("efficacy > 1.1_RetFail > MRR", -3, "'efficacy > 1.1_RetFail > MRR' is -3, not a share from 0 to 1"),
    ("efficacy > 1.1_RetFail > outcomes", [1, 2.5], "outcomes > 1' is 2.5, not a rank"),
    ("efficacy > 1.1_RetFail > outcomes", [0], "outcomes > 0' is 0, not a rank from 1 to 2001"),
    ("efficacy > 1.2_AssocStr > scores", [0.5, None], "scores > 1' is null, not a cosine"),
    ("efficacy > 1.2_AssocStr > scores", [0.5, 55.0], "scores > 1' is 55.0, not a cosine from -1 to 1"),
    ("utility > 2.1_GenKnow > ImageNet1k_Accuracy", 17, "is 17, not a share from 0 to 1, or -1 where it was skipped"),
    ("utility > 2.2_InterIdSim > mean", "high", "'utility > 2.2_InterIdSim > mean' is 'high', not a cosine"),
    ("extra > by_field", [], "'extra > by_field' is a list of 0, not an object"),
    ("extra > by_field > shoe size", {}, "'extra > by_field' has a field 'shoe size', which is not one of"),
    ("extra > intervals > AssocStr", [0.1, 0.2, 0.3], "is a list of 3, not two numbers"),
    ("extra > similarity", {}, "'extra' has the unknown field 'similarity'"),
    ("protocol > rows", ..., "'protocol' has no field 'rows'"),
    ("protocol > genknow", ..., "'protocol' has no field 'genknow'"),
    ("protocol > seed", 4.5, "'protocol > seed' is 4.5, not a whole number"),
    ("protocol > bootstrap", 10**9, "not a whole number from 0 to 100,000"),
    ("protocol > idzsc_prompt", "{name}\u202e", r"is '{name}\u202e', not a text"),
    ("protocol > metrics > AssocStr", 0, "'protocol > metrics > AssocStr' is 0, not a version, 1 to 1,000"),
    ("protocol > metrics > a b", 1, "'protocol > metrics' has a field 'a b', which is not a key of 1 to 64 letters"),
    ("metrics > ACS > value", "high", "'metrics > ACS > value' is 'high', not a number or null"),
    ("metrics > ACS > interval", [0.1], "'metrics > ACS > interval' is a list of 1, not two numbers"),
    ("metrics > ACS > target", "retrained", "'metrics > ACS > target' is 'retrained', not clean, compromised or null"),
    ("metrics > ACS > clusters", ..., "'metrics > ACS' has no field 'clusters'"),
    ("caveats", "none", "'caveats' is 'none', not a list"),
    ("caveats", [7], "'caveats > 0' is 7, not a text"),
    ("provenance", [], "'provenance' is a list of 0, not an object"),
    ("provenance > checkpoint > digest", "abc", "not a SHA-256 of 64 hexadecimal digits"),
    ("provenance > device", 4, "'provenance > device' is 4, not a text"),
    ("provenance > \x1b[31m", 4, r"has a field '\x1b[31m', which is not a text"),
    ("provenance > note", {"a": ["\x00"]}, r"'provenance > note > a > 0' is '\x00', not JSON whose texts"),
    ("model", "a\n", r"'model' is 'a\x0a', not a name"),
    ("model", "../clean", "'model' is '../clean', not a name"),
    ("model", "\u0441lean", "'model' is '\u0441lean', not a name"),  # a Cyrillic letter
    ("model", "m" * 65, "not a name of 1 to 64 letters"),
    (
        "provenance > note",
        {f"k{i}": i for i in range(20_000)},
        "it holds more than 10,000 values besides its score lists",
    ),
    ("provenance > note", [[0] * 5_000] * 3, "it holds more than 10,000 values"),
    (
        "efficacy > 1.2_AssocStr > scores",
        ["x"] * 100_000,
        "scores > 0' is 'x', not a cosine from -1 to 1 (and 99,999 more",
    ),
    ("efficacy > 1.2_AssocStr > scores", [], "is a list of 0, not as it must be (minItems 1)"),
    ("owner", "me", "the result has the unknown field 'owner'"),
]


def test_every_field_that_is_missing_or_unknown_is_named(measured):
    """The validator has one error for each field that is missing, and a single one for all that are unknown."""
    bare = {"schema": SCHEMA, "model": "clean", "owner": "me", "licence": "none"}
    missing = {*measured.result, "rows", "digest"} - bare.keys()
    wanted = [((key,), f"the result has no field {key!r}") for key in missing]
    wanted += [(("unknown field",), f"the result has the unknown field {key!r}") for key in ("owner", "licence")]
    assert sorted(schema_errors(bare)) == sorted(wanted)


@pytest.mark.parametrize(("field", "value", "message"), FIELDS, ids=[f"{f}={str(v)[:12]!a}" for f, v, _ in FIELDS])
def test_a_field_that_is_not_as_the_schema_has_it_is_named(path, measured, field, value, message):
    damaged = json.loads(path.read_text())
    change(damaged, field, value)
    target = path.with_name("broken.json")
    target.write_text(json.dumps(seal(damaged)))
    with pytest.raises(InputError) as caught:
        load_result(target)
    line = str(caught.value)
    assert line.startswith(str(target))
    assert message in line
    assert line.isprintable()
    if field.split(" ")[0] not in (
        "provenance",
        "owner",
    ):  # what is refused is not written either, and the old file stays
        before = path.read_bytes()
        damaged = copy.deepcopy(measured.result)
        change(damaged, field, value)
        with pytest.raises(InputError):
            write_result(path, damaged, measured.rows)
        assert path.read_bytes() == before


HOSTILE = {
    "nan": (b'{"schema": NaN}', "NaN is not a finite number"),
    "infinity": (b'{"schema": "salmu_jax.result/3", "a": -Infinity}', "-Infinity is not a finite number"),
    "overflow": (b'{"schema": 1e999}', "not a finite number"),
    "digits": (b'{"schema": ' + b"9" * 5000 + b"}", "an integer of 5,000 digits"),
    "brackets": (b"[" * 200_000, "nested too deep"),
    "closed brackets": (b"[" * 200_000 + b"]" * 200_000, "nested too deep"),
    "objects": (b'{"a":' * 150 + b"1" + b"}" * 150, "nested too deep"),
    "twice": (b'{"schema": 1, "schema": 2}', "the key 'schema' comes twice"),
    "latin-1": (b'{"schema": "\xe9"}', "not UTF-8"),
    "half a pair": (b'{"schema": "salmu_jax.result/2", "model": "\\ud800"}', "half a surrogate pair"),
    "half a key": (b'{"schema": "salmu_jax.result/2", "\\udc00": 1}', "half a surrogate pair"),
    "cut": (b'{"schema": "salmu_jax.result/2", ', "not JSON"),
    "empty": (b"", "not JSON"),
    "list": (b"[]", "is not a result of this evaluation"),
    "text": (b'"schema"', "is not a result of this evaluation"),
    "schema 1": (
        b'{"schema": "salmu_jax.result/1"}',
        "has the schema 'salmu_jax.result/1', this version reads 'salmu_jax",
    ),
    "odd schema": (b'{"schema": {"a": "\\u001b"}}', "has the schema"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_no_result_is_one_line(kind, tmp_path):
    data, message = HOSTILE[kind]
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        load_result(path)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_missing_file_a_directory_and_one_too_large(tmp_path):
    with pytest.raises(InputError, match=r"none.json: cannot be read .*'salmu evaluate'"):
        load_result(tmp_path / "none.json")
    with pytest.raises(InputError, match="a directory"):
        load_result(tmp_path)
    with open(tmp_path / "large.json", "wb") as handle:
        handle.truncate(1 << 30)
    with pytest.raises(InputError, match="at most"):
        load_result(tmp_path / "large.json")


def archive(entries) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in entries.items():
            made.writestr(name, data)
    return buffer.getvalue()


def entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        return {name: read.read(name) for name in read.namelist()}


def saved(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_row_scores_that_are_not_what_the_result_calls_for_are_one_line(path, measured):
    side, result = path.with_name("m.rows.npz"), load_result(path)
    whole = side.read_bytes()
    good = entries(whole)
    ranks = measured.rows["forget.rank"]
    cases = {
        "is damaged": [whole[:-200], whole[:1000], b"", b"no zip", whole[:500] + b"\xff" + whole[501:]],
        "lacks the arrays forget.rank; evaluate again": [
            archive({name: data for name, data in good.items() if name != "forget.rank.npy"})
        ],
        "holds arrays that no metric of its result has: more; evaluate again": [archive({**good, "more.npy": b""})],
        "array 'forget.rank' is no plain array": [
            archive({**good, "forget.rank.npy": b"\x93NUMPY\x01\x00"}),
            archive({**good, "forget.rank.npy": b"gibberish"}),
            archive({**good, "forget.rank.npy": b"\x93NUMPY\x01\x00\x10\x00" + b"[" * 16}),
        ],
        "array 'forget.rank' is object": [archive({**good, "forget.rank.npy": saved(ranks.astype(object))})],
        "array 'forget.rank' is <i8": [archive({**good, "forget.rank.npy": saved(ranks.astype(np.int64))})],
        "array 'forget.rank' is <i4 [80], not": [archive({**good, "forget.rank.npy": saved(ranks[:80])})],
        "does not end where its header says": [
            archive({**good, "forget.rank.npy": good["forget.rank.npy"][:-1]}),
            archive({**good, "forget.rank.npy": good["forget.rank.npy"] + b"1"}),
        ],
    }  # fmt: skip
    for message, files in cases.items():
        for data in files:
            side.write_bytes(data)
            with pytest.raises(InputError) as caught:
                load_rows(path, result)
            assert message in str(caught.value)
            assert str(side) in str(caught.value)
    other = {**measured.rows, "forget.rank": ranks[::-1].copy()}
    side.write_bytes(encode_rows(other))
    with pytest.raises(InputError, match=r"are not the row scores that m\.json was written with"):
        load_rows(path, result)
    side.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_rows(path, result)


def test_a_side_file_that_inflates_to_gigabytes_is_not_inflated(path):
    """Ten gigabytes of zeros behind a header that claims them, and behind one that does not: neither is read."""
    protocol, side = load_result(path)["protocol"], path.with_name("m.rows.npz")
    good = entries(side.read_bytes())
    for claimed in (10 << 30, protocol["rows"]["forget"]):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<i4", "fortran_order": False, "shape": (claimed // 4 if claimed > 1 << 20 else claimed,)}
        )
        with zipfile.ZipFile(side, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
            for name, data in good.items():
                if name != "forget.rank.npy":
                    made.writestr(name, data)
            with made.open("forget.rank.npy", "w", force_zip64=True) as entry:
                entry.write(header.getvalue())
                for _ in range(30):  # what the 10 GB would be like; the directory is made to claim all of them
                    entry.write(bytes(1 << 20))
        with pytest.raises(InputError, match=r"array 'forget.rank' (is <i4|does not end)|bytes; the row scores"):
            read_rows(side, protocol, COLUMNS)
    huge = {**protocol, "rows": {**protocol["rows"], "retain_synth": 10_000_000 * 10}}
    with pytest.raises(InputError, match="at most 268,435,456 are read"):
        read_rows(side, huge, COLUMNS)

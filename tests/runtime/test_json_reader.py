"""JSON of others: what is no plain JSON, or would take gigabytes, is one line that names the file."""

from __future__ import annotations

import json
import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salmu_jax.runtime import json_reader
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import control_character, parse_json, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_plain_json_comes_back(value, ascii_only):
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode(), "a.json") == value


REFUSED = {
    "cut short": (b'{"a": [1, 2', "not JSON: Expecting ',' delimiter at line 1 column 12"),
    "empty": (b"", "not JSON: Expecting value at line 1 column 1"),
    "two values": (b"{} {}", "not JSON: Extra data"),
    "raw control character": (b'"a\x00b"', "not JSON: Invalid control character"),
    "latin-1": ('{"a": "é"}'.encode("latin-1"), "not UTF-8 text (invalid continuation byte at byte 7)"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8 text"),
    "surrogate as bytes": (b'"\xed\xa0\x80"', "not UTF-8 text"),
    "half a pair": (rb'{"a": ["x\ud83d"]}', r"half a surrogate pair in 'x\ud83d'"),
    "other half in a key": (rb'{"\uDE00": 1}', "half a surrogate pair"),
    "pair in the wrong order": (rb'["\ude00\ud83d"]', "half a surrogate pair"),
    "nan": (b'{"a": NaN}', "not JSON: NaN is not a finite number"),
    "infinity": (b"[-Infinity]", "not JSON: -Infinity is not a finite number"),
    "overflow": (b"[1e999]", "not JSON: 1e999 is not a finite number"),
    "digits": (b"[" + b"7" * 5000 + b"]", "an integer of 5,000 digits"),
    "negative digits": (b"-" + b"7" * 400, "an integer of 401 digits"),
    "deep": (b"[" * 200 + b"]" * 200, "nested too deep"),
    "very deep": (b"[" * 200_000 + b"]" * 200_000, "nested too deep"),
    "very deep objects": (b'{"a":' * 200_000, "nested too deep"),
    "key twice": (b'{"x": {"a.jpg": 1, "b": 2, "a.jpg": 3}}', "the key 'a.jpg' comes twice"),
    "key twice, written otherwise": (rb'{"a": 1, "\u0061": 1}', "the key 'a' comes twice"),
}


@pytest.mark.parametrize(("data", "line"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_in_one_line(tmp_path, data, line):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: {line}")
    assert len(str(caught.value)) < len(str(path)) + 200
    assert str(caught.value).isprintable()


def test_what_is_unusual_but_whole_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + rb'{"a": "\ud83d\ude00 \ufeff", "b": 123456789012345678901234567890}')
    assert read_json(path) == {"a": "\U0001f600 \ufeff", "b": 123456789012345678901234567890}
    (tmp_path / "link.json").symlink_to(path)
    assert read_json(tmp_path / "link.json")["a"] == "\U0001f600 \ufeff"
    assert parse_json(b"[" * 100 + b"]" * 100, "x")


def test_large_files_and_many_values_are_refused_before_they_are_parsed(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    with open(path, "wb") as handle:
        handle.truncate(1 << 40)  # sparse: a terabyte of zeros
    with pytest.raises(InputError, match=r"a\.json: 1,099,511,627,776 bytes of JSON; at most 268,435,456 are read"):
        read_json(path)
    monkeypatch.setattr(json_reader, "MAX_VALUES", 1000)
    with pytest.raises(InputError, match="more than 1,000 values"):
        parse_json(b"[" + b"[]," * 1000 + b"[]]", "a.json")


def test_a_small_file_takes_little_memory(tmp_path):
    """Not the bytes that the largest file may have, which a container need not have."""
    (tmp_path / "a.json").write_text("{}")
    tracemalloc.start()
    try:
        read_json(tmp_path / "a.json")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
def test_only_regular_files_are_opened(tmp_path, kind):
    path = tmp_path / "a.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(InputError, match=rf"a\.json: it is a {kind}; a regular file is needed"):
        read_json(path)


def test_control_characters():
    assert control_character("tab\tand\nlines\r\nété 😀") is None
    assert control_character("a\x1b[2Jb") == "U+001B"
    assert control_character("a\x00") == "U+0000"
    assert control_character("a\x9b") == "U+009B"

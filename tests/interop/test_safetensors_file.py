"""Safetensors with every lie that a header can tell, and what is right read as the library reads it."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from salmu_jax.interop.safetensors_file import read_header
from salmu_jax.runtime.errors import InputError

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path, header, data=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


KINDS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.uint8, np.bool_)


@settings(SLOW, max_examples=40)
@given(st.lists(st.tuples(st.lists(st.integers(0, 4), max_size=3), st.sampled_from(KINDS)), min_size=1, max_size=5))
def test_tensors_come_out_as_they_went_in(tmp_path, several):
    state = {
        f"t{i}": np.arange(int(np.prod(s, dtype=int))).reshape(s).astype(kind) for i, (s, kind) in enumerate(several)
    }
    save_file(state, tmp_path / "x.safetensors", metadata={"format": "pt"})
    tensors, metadata = read_header(tmp_path / "x.safetensors")
    assert metadata == {"format": "pt"}
    assert tensors.keys() == state.keys()
    for name, array in state.items():
        found = tensors[name].read()
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"a": entry(offsets=(0, 4))}, "'a', F32 [2], does not have 4 bytes"),
        ({"a": entry(shape=(2**40, 2**20))}, "does not have 8 bytes"),
        ({"a": entry(offsets=(8, 0))}, "does not have -8 bytes"),
        ({"a": entry(), "b": entry()}, "a gap or an overlap before 'b'"),
        ({"a": entry((1,), (0, 4)), "b": entry((1,), (2, 6))}, "a gap or an overlap before 'b'"),
        ({"a": entry((1,), (4, 8))}, "a gap or an overlap before 'a'"),
        ({"a": entry((1,), (0, 4))}, "tensors of "),
        ({"a": entry((4,), (0, 16))}, "tensors of "),
        ({}, "tensors of "),
        ({"a": entry((-1, -2))}, "another dtype, shape or data_offsets than there are"),
        ({"a": entry((True, 2))}, "another dtype, shape"),
        ({"a": entry((2.0,))}, "another dtype, shape"),
        ({"a": entry((2**70,))}, "another dtype, shape"),
        ({"a": entry((1,) * 65)}, "another dtype, shape"),
        ({"a": entry(offsets=(0, 8, 8))}, "another dtype, shape"),
        ({"a": entry(dtype=3)}, "another dtype, shape"),
        ({"a": {**entry(), "more": 1}}, "has not just dtype, shape and data_offsets"),
        ({"a": [1]}, "has not just dtype, shape and data_offsets"),
        ({"a": entry(), "__metadata__": {"b": 1}}, "its metadata is not all text"),
        ([1], "its header is not a JSON object"),
        (b'{"a": 1, "a": 1}', "the key 'a' comes twice"),
        (b"[" * 100_000, "its header"),
        (b'{"a": ' + b"9" * 6000 + b"}", "an integer of 6,000 digits"),
        (b'{"\xff": 1}', "not UTF-8"),
        (b"{}}", "not JSON"),
    ],
)
def test_a_header_that_lies_is_one_line(header, said, tmp_path):
    assert said in refusal(write(tmp_path / "x.safetensors", header))


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 7, b"\xff" * 8 + b"{}", struct.pack("<Q", 2**40) + b"{}", struct.pack("<Q", 0)]
)
def test_a_header_that_is_not_there_is_one_line(data, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(data)
    assert "not a readable safetensors file (a header of" in refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4", "C64", "x" * 200])
def test_kinds_of_numbers_that_are_not_read_are_named_where_they_are_wanted(dtype, tmp_path):
    header = {"a": entry((8,), (0, 8), dtype), "b": entry((1,), (8, 12))}
    tensors, _ = read_header(write(tmp_path / "x.safetensors", header, b"\0" * 12))
    assert tensors["b"].read().tolist() == [0]
    assert tensors["a"].dtype == dtype[:40]
    with pytest.raises(InputError, match=f"is of {dtype[:40]}, which is not read"):
        tensors["a"].read()


@settings(SLOW, max_examples=80)
@given(st.data())
def test_any_changed_byte_of_a_header_is_one_line_or_a_header(tmp_path, data):
    save_file({"a": np.ones(3, np.float32), "b": np.ones((2, 2), np.float16)}, tmp_path / "x.safetensors")
    changed = bytearray((tmp_path / "x.safetensors").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "y.safetensors").write_bytes(changed)
    said = ""
    try:
        for tensor in read_header(tmp_path / "y.safetensors")[0].values():
            tensor.read()
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 600

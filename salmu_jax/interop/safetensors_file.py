"""Reads the headers of safetensors files, and checks them against the file before any number is read.

The format is: the length of the header (8 bytes), the header (JSON: each tensor's dtype, shape, first and last byte),
and the numbers, without gaps or overlaps. This module only locates each tensor; ``tensors.py`` reads it.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any

from salmu_jax.interop.tensors import DTYPES, StoredTensor
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import parse_json
from salmu_jax.runtime.opening import open_regular

_MAX_HEADER = 1 << 24  # about 120 bytes per tensor
_MAX_DIMENSIONS = 64
_KINDS = {
    "F32": "float32",
    "F64": "float64",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Returns the tensors of a file by name, and its metadata. Raises InputError for any inconsistency in the header."""
    with open_regular(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        head = handle.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise InputError(
                f"not a readable safetensors file (a header of {length:,} bytes in {size:,}): damaged or cut off", path
            )
        data = handle.read(length)
    try:
        header = parse_json(data, path)
    except InputError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise InputError(f"not a readable safetensors file (its header: {said}): damaged or cut off", path) from error
    try:
        return _tensors(header, path, 8 + length, size)
    except _HeaderError as error:
        raise InputError(f"not a readable safetensors file ({error}): damaged or cut off", path) from error


class _HeaderError(ValueError):
    """Says what is wrong with a header."""


def _tensors(header: Any, path: Path, begin: int, size: int) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    if not isinstance(header, dict):
        raise _HeaderError("its header is not a JSON object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _HeaderError("its metadata is not all text")
    tensors = {name: _tensor(name, entry, path, begin) for name, entry in header.items()}
    end = begin
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, header[item[0]]["data_offsets"][1])):
        if tensor.start != end:
            raise _HeaderError(f"a gap or an overlap before {name[:80]!r}")
        end = begin + header[name]["data_offsets"][1]
    if end != size:
        raise _HeaderError(f"tensors of {end:,} bytes in a file of {size:,}")
    return tensors, metadata


def _tensor(name: str, entry: Any, path: Path, begin: int) -> StoredTensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _HeaderError(f"{name[:80]!r} has not just dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise _HeaderError(f"{name[:80]!r} has another dtype, shape or data_offsets than there are")
    first, last = offsets
    kind = _KINDS.get(dtype, dtype[:40])
    tensor = StoredTensor(path, kind, tuple(shape), begin + first, math.prod(shape), begin + first)
    if first > last or (kind in DTYPES and tensor.size * DTYPES[kind].itemsize != last - first):
        raise _HeaderError(f"{name[:80]!r}, {dtype[:40]} {shape[:8]}, does not have {last - first:,} bytes")
    return tensor


def _naturals(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= _MAX_DIMENSIONS
        and all(type(value) is int and 0 <= value < 1 << 62 for value in values)
    )

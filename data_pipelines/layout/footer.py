"""Reads the footer of a parquet file without pyarrow, to check the rows and bytes that it claims against the file.

On some damaged fields pyarrow kills the *process*: a C++ exception escapes from ``row_group(i).column(j)``. So the few
numbers needed are read here. A footer is a struct in Thrift's compact protocol at the end of the file, followed by its
length and ``PAR1``.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO, NamedTuple

_MAGIC = b"PAR1"
_MAX_BYTES = 1 << 26
_MAX_DEPTH = 32
_DICTIONARIES = (2, 8)  # encodings PLAIN_DICTIONARY and RLE_DICTIONARY


class DamagedFooterError(Exception):
    """The file does not end with a parquet footer."""


class Column(NamedTuple):
    """A column of a row group: path (``image.bytes``), number of values, first byte, compressed and uncompressed bytes."""

    path: str
    values: int
    start: int
    packed: int
    unpacked: int
    dictionary: bool


class RowGroup(NamedTuple):
    """Consecutive rows of a file."""

    rows: int
    columns: tuple[Column, ...]


class Footer(NamedTuple):
    """What a file claims to contain."""

    rows: int
    groups: tuple[RowGroup, ...]


def read_footer(file: BinaryIO) -> Footer:
    """Reads the footer of an open parquet file. Raises DamagedFooterError, or OSError."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    end = file.read(8)
    if len(end) < 8 or end[4:] != _MAGIC:
        raise DamagedFooterError("it does not end as one")
    length = int.from_bytes(end[:4], "little")
    if length > min(size - 12, _MAX_BYTES):
        raise DamagedFooterError(f"its footer would take {length:,} bytes of {size:,}")
    file.seek(size - 8 - length)
    try:
        return _footer(_Compact(file.read(length)).struct())
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:  # a field is missing or mistyped
        raise DamagedFooterError("its footer is damaged") from error


def _footer(fields: dict[int, Any]) -> Footer:
    groups = []
    for group in fields[4]:
        columns = []
        for chunk in group[1]:
            about = chunk[3]
            start = min(about[9], about[11]) if about.get(11) else about[9]
            path = ".".join(part.decode() for part in about[3])
            dictionary = any(encoding in _DICTIONARIES for encoding in about[2])
            columns.append(Column(path, about[5], start, about[7], about[6], dictionary))
        groups.append(RowGroup(group[3], tuple(columns)))
    return Footer(fields[3], tuple(groups))


class _Compact:
    """Parses Thrift's compact protocol into ``{field number: value}``; never reads past the end of the data."""

    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while (header := self._byte()) & 15:
            number = number + (header >> 4) if header >> 4 else self._integer()
            kind = header & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deep")
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._varint())
        if kind in (9, 10):
            header = self._byte()
            count = header >> 4 if header >> 4 < 15 else self._varint()
            self._check_left(count)
            return [
                self.struct(depth) if header & 15 == 12 else self._value(header & 15, depth + 1) for _ in range(count)
            ]
        if kind == 11:
            count = self._varint()
            self._check_left(count)
            kinds = self._byte() if count else 0
            return [(self._value(kinds >> 4, depth + 1), self._value(kinds & 15, depth + 1)) for _ in range(count)]
        if kind == 12:
            return self.struct(depth)
        raise ValueError("an unknown kind of field")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number that is too long")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, length: int) -> bytes:
        self._check_left(length)
        self._at += length
        return self._data[self._at - length : self._at]

    def _check_left(self, count: int) -> None:
        """Raises ValueError if the data cannot hold ``count`` elements, each of which takes at least one byte."""
        if count > len(self._data) - self._at:
            raise ValueError("more elements than there are bytes")

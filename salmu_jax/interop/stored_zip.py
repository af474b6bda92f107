"""Reads the zip archives that torch.save writes, whose entries are stored uncompressed.

Everything that an archive's directory claims is first checked against the file: no entry may lie outside the file,
overlap another, or share a name. Compressed entries are refused (a kilobyte may claim gigabytes). Checksums are
verified when an entry is read.
"""

from __future__ import annotations

import dataclasses
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.opening import open_regular

_END, _END_64, _LOCATOR_64, _CENTRAL, _LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
_END_BYTES, _END_64_BYTES, _LOCATOR_BYTES, _CENTRAL_BYTES, _LOCAL_BYTES = 22, 56, 20, 46, 30
_MAX_DIRECTORY = 1 << 24  # about 100 bytes per tensor
_CHUNK = 1 << 20


class DamagedError(ValueError):
    """The archive contradicts its directory."""


@dataclasses.dataclass(frozen=True)
class StoredEntry:
    """The location of an entry's bytes, and their checksum; ``packed`` if they are compressed or encrypted."""

    path: Path
    name: str
    start: int
    size: int
    crc: int
    packed: bool

    def verify(self) -> None:
        """Raises InputError if the bytes do not match their checksum."""
        crc, left = 0, self.size
        with open_regular(self.path) as handle:
            handle.seek(self.start)
            while left and (chunk := handle.read(min(left, _CHUNK))):
                crc = zlib.crc32(chunk, crc)
                left -= len(chunk)
        if left or crc != self.crc:
            raise InputError(f"damaged, {self.name} does not have its checksum; get the file again", self.path)

    def read(self, limit: int) -> bytes:
        """Returns all bytes, verified. Raises InputError for more than ``limit``."""
        if self.size > limit:
            raise InputError(f"{self.name} has {self.size:,} bytes; at most {limit:,} are read", self.path)
        self.verify()
        with open_regular(self.path) as handle:
            handle.seek(self.start)
            return handle.read(self.size)


def read_directory(path: Path) -> dict[str, StoredEntry]:
    """Returns the entries of an archive by name. Raises InputError unless the file is an archive that fits its directory."""
    with open_regular(path) as handle:
        try:
            return _read_directory(handle, os.fstat(handle.fileno()).st_size, path)
        except (DamagedError, struct.error, UnicodeDecodeError) as error:
            raise InputError(
                f"not a zip archive as torch.save writes since 1.6, or a damaged one ({error})", path
            ) from error


def _read_directory(handle: BinaryIO, size: int, path: Path) -> dict[str, StoredEntry]:
    count, length, start = _find_directory(handle, size)
    if length > _MAX_DIRECTORY or start + length > size:
        raise DamagedError(f"its directory of {length:,} bytes at {start:,} does not fit into it")
    data = _at(handle, start, length)
    entries: dict[str, StoredEntry] = {}
    at = 0
    while at < length:
        if data[at : at + 4] != _CENTRAL:
            raise DamagedError(f"its directory is damaged at {start + at:,}")
        _, _, flags, method, _, _, crc, packed, unpacked, n_name, n_extra, n_comment, _, _, _, place = (
            struct.unpack_from("<4x6H3L5H2L", data, at)
        )
        end = at + _CENTRAL_BYTES + n_name + n_extra + n_comment
        name = data[at + _CENTRAL_BYTES : at + _CENTRAL_BYTES + n_name].decode()
        extra = data[at + _CENTRAL_BYTES + n_name : at + _CENTRAL_BYTES + n_name + n_extra]
        unpacked, packed, place = _widen(extra, unpacked, packed, place)
        if name in entries:
            raise DamagedError(f"{name[:80]!r} is in it twice")
        changed = bool(flags & 1 or method or packed != unpacked)
        entries[name] = StoredEntry(path, name, _payload(handle, place, name, packed, start), packed, crc, changed)
        at = end
    if at != length or len(entries) != count:
        raise DamagedError(f"its directory holds {len(entries):,} entries, not {count:,}")
    _refuse_overlaps(entries)
    return entries


def _find_directory(handle: BinaryIO, size: int) -> tuple[int, int, int]:
    """Returns (entries, bytes, offset) of the directory, from the record at the end of the file."""
    tail = _at(handle, size - _END_BYTES, _END_BYTES) if size >= _END_BYTES else b""
    if tail[:4] != _END or tail[-2:] != b"\0\0":
        raise DamagedError("no directory at its end: cut off, or another kind of file")
    count, length, start = struct.unpack_from("<H2L", tail, 10)
    at = size - _END_BYTES - _LOCATOR_BYTES
    locator = _at(handle, at, _LOCATOR_BYTES) if at >= 0 else b""
    if locator[:4] == _LOCATOR_64:
        record = struct.unpack_from("<Q", locator, 8)[0]
        data = _at(handle, record, _END_64_BYTES)
        if data[:4] != _END_64:
            raise DamagedError(f"no end of its directory at {record:,}")
        count, length, start = struct.unpack_from("<3Q", data, 32)
    return count, length, start


def _at(handle: BinaryIO, start: int, count: int) -> bytes:
    if start > os.fstat(handle.fileno()).st_size:
        raise DamagedError(f"byte {start:,} is beyond its end")
    handle.seek(start)
    data = handle.read(count)
    if len(data) != count:
        raise DamagedError(f"it ends before byte {start + count:,}")
    return data


def _widen(extra: bytes, unpacked: int, packed: int, place: int) -> tuple[int, int, int]:
    """Replaces sizes and offset that need 64 bits with the values in the entry's extra field."""
    wide = [value == 0xFFFFFFFF for value in (unpacked, packed, place)]
    values = [unpacked, packed, place]
    at = 0
    while any(wide) and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            inside = iter(struct.iter_unpack("<Q", extra[at + 4 : at + 4 + length // 8 * 8]))
            values = [
                next(inside, (value,))[0] if is_wide else value for value, is_wide in zip(values, wide, strict=True)
            ]
            break
        at += 4 + length
    return values[0], values[1], values[2]


def _payload(handle: BinaryIO, place: int, name: str, size: int, end: int) -> int:
    """Returns where the bytes of the entry whose header is at ``place`` begin; they must end before ``end``."""
    header = _at(handle, place, _LOCAL_BYTES)
    n_name, n_extra = struct.unpack_from("<HH", header, 26)
    start = place + _LOCAL_BYTES + n_name + n_extra
    if header[:4] != _LOCAL or _at(handle, place + _LOCAL_BYTES, n_name) != name.encode():
        raise DamagedError(f"no {name[:80]!r} at {place:,}")
    if start + size > end:
        raise DamagedError(f"{name[:80]!r} of {size:,} bytes at {start:,} reaches beyond its end")
    return start


def _refuse_overlaps(entries: dict[str, StoredEntry]) -> None:
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.size)):
        if entry.start < end:
            raise DamagedError(f"{entry.name[:80]!r} lies over another entry")
        end = entry.start + entry.size

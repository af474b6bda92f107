"""Reads tar files strictly and as a stream: either every member that was written is read, or the damage is named.

``tarfile`` and GNU tar take an unreadable header for the end of the file, and a file truncated between two members for a
complete one. A flipped bit or a broken download then loses the rest silently. Here every header's checksum must be
right, the two zero blocks that end a tar must be there, and only zeros may follow. The *contents* of members have no
checksum in a tar: damage there is found when they are decoded, or by a digest from elsewhere.

It reads the formats ustar, pax, GNU (long names) and v7, plain or gzipped. It refuses links, sparse files and
devices, whose contents are not in the member. It trusts no size in a header before the bytes are there.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, cast

from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.json_reader import control_character
from salmu_jax.runtime.opening import open_regular

SUFFIXES = (".tar", ".tar.gz", ".tgz")
MAX_MEMBER = 1 << 28  # bytes of a member; an uncompressed image of 50 Mpx takes 200 MB
_MAX_NAME = 1 << 16  # bytes of a long name or of pax records
_MAX_PADDING = 1 << 24  # zero bytes after the end; writers pad to records of 10 KiB, or of 1 MiB on tapes
_BLOCK = 512
_STEP = 1 << 20

_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip"}

_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a pipe",
    b"M": "the continuation of a file on another volume",
    b"S": "a sparse file",
}


class Member(NamedTuple):
    """A file in a tar: its name, the offset of its header, and its bytes (None if not wanted)."""

    name: str
    offset: int
    data: bytes | None


def read_tar(path: str | os.PathLike, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Member]:
    """Yields the files in a tar, in order, without directories.

    Args:
      path: a tar, plain or gzipped, whatever its name.
      wanted: returns whether a member's bytes are needed, by its name; others are skipped, whatever their size.

    Raises:
      InputError: the tar is damaged, truncated, or two tars joined; a member is not a plain file, or larger than
        :data:`MAX_MEMBER`. The message names the tar and the byte (uncompressed). Earlier members have been yielded.
    """
    try:
        with open_regular(path) as file:
            yield from read_tar_file(file, path, wanted, size=os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise InputError(describe_os_error(error, path)) from error


def read_tar_file(
    file: BinaryIO,
    where: str | os.PathLike,
    wanted: Callable[[str], bool] = lambda name: True,
    *,
    size: int | None = None,
) -> Iterator[Member]:
    """Yields the files in a tar that is open, as :func:`read_tar`.

    Args:
      file: a tar, plain or gzipped; at its start. It is read forward, to its end.
      where: names it in messages.
      wanted: as for :func:`read_tar`.
      size: its size in bytes, if it can seek: members that are not wanted are then skipped rather than read.

    Raises:
      InputError: as :func:`read_tar`, for what the tar holds.
      OSError: it cannot be read.
    """
    start = file.read(6)
    for magic, name in _OTHERS.items():
        if start.startswith(magic):
            raise InputError(f"it is compressed with {name}; a tar, plain or with gzip, is needed", where)
    if size is not None:
        file.seek(0)
        whole = file
    else:
        whole = cast(BinaryIO, _Rejoined(start, file))
    try:
        if start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=whole) as unpacked:
                yield from _Reader(unpacked, where, None).members(wanted)
        else:
            yield from _Reader(whole, where, size).members(wanted)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"damaged or cut short ({error}); copy or make it again", where) from error


class _Rejoined:
    """A stream whose first bytes have been read."""

    def __init__(self, start: bytes, rest: BinaryIO):
        self._start, self._rest = start, rest

    def read(self, size: int) -> bytes:
        if not self._start:
            return self._rest.read(size)
        piece, self._start = self._start[:size], self._start[size:]
        return piece


class _Header(NamedTuple):
    """The fields of a header block that we use."""

    name: str
    size: int
    kind: bytes
    offset: int


class _Reader:
    """Walks over the blocks of a tar. ``size`` is the file's size, None if unknown."""

    def __init__(self, file: BinaryIO, path: str | os.PathLike, size: int | None):
        self._file, self._path, self._size = file, path, size
        self._at = 0

    def members(self, wanted: Callable[[str], bool]) -> Iterator[Member]:
        long_name: str | None = None
        pax: dict[str, str] = {}
        while (header := self._header()) is not None:
            if header.kind in (b"L", b"K"):  # GNU: long name, or link target, of the next member
                text = self._text(self._data(header, _MAX_NAME).rstrip(b"\0"), header.offset)
                long_name = text if header.kind == b"L" else long_name
                continue
            if header.kind in (b"x", b"X", b"g"):
                records = self._pax_records(self._data(header, _MAX_NAME), header.offset)
                if header.kind == b"g" and not records.keys().isdisjoint(("path", "size")):
                    raise self._damage("a name or size for all members", header.offset)
                pax = pax if header.kind == b"g" else records
                continue
            header = self._amended(header, long_name, pax)
            long_name, pax = None, {}
            if header.kind in (b"5", b"V"):  # a directory, or a tape label
                if header.size:
                    raise self._refusal(f"{header.name!r} is not a file and has contents", header.offset)
                continue
            if header.kind in _REFUSED:
                raise self._refusal(f"{header.name!r} is {_REFUSED[header.kind]}", header.offset)
            if header.kind not in (b"0", b"\0", b"7"):
                raise self._refusal(f"{header.name!r} is of the unknown kind {header.kind!r}", header.offset)
            if not wanted(header.name):
                self._pass_over(header)
                yield Member(header.name, header.offset, None)
            else:
                yield Member(header.name, header.offset, self._data(header, MAX_MEMBER))
        if long_name is not None or pax:
            raise self._damage("ends with a name that no member has", self._at - _BLOCK)
        self._check_end()

    def _header(self) -> _Header | None:
        """Returns the next header; None for a block of zeros."""
        offset = self._at
        block = self._take(_BLOCK, "without the blocks of zeros that end a tar")
        if not any(block):
            return None
        stored = _octal(block[148:156])
        # The checksum counts itself as eight spaces; some old writers summed signed bytes.
        rest = block[:148] + block[156:]
        unsigned = 256 + sum(rest)
        if stored is None or stored not in (unsigned, unsigned - 256 * sum(byte > 127 for byte in rest)):
            raise self._damage("a header whose checksum is wrong", offset)
        size = _size(block[124:136])
        if size is None:
            raise self._damage("a header without a size", offset)
        name = block[:100].partition(b"\0")[0]
        if block[257:263] == b"ustar\0" and (prefix := block[345:500].partition(b"\0")[0]):
            name = prefix + b"/" + name
        kind = b"5" if block[156:157] == b"\0" and name.endswith(b"/") else block[156:157]
        # A name longer than this field precedes the header, and is truncated here, possibly within a character.
        return _Header(name.decode(errors="surrogateescape"), size, kind, offset)

    def _amended(self, header: _Header, long_name: str | None, pax: dict[str, str]) -> _Header:
        """Applies the long name and the pax records that precede a header."""
        if any(key.startswith("GNU.sparse") for key in pax):
            raise self._refusal(f"{header.name!r} is a sparse file", header.offset)
        size = pax.get("size", str(header.size))
        if not re.fullmatch("[0-9]{1,30}", size):
            raise self._damage(f"a size of {size[:40]!r}", header.offset)
        name = pax.get("path") or long_name or self._text(header.name.encode(errors="surrogateescape"), header.offset)
        if not name or control_character(name):
            raise self._damage(f"the name {name[:100]!r}", header.offset)
        return header._replace(name=name.removeprefix("./"), size=int(size))

    def _pax_records(self, data: bytes, offset: int) -> dict[str, str]:
        """Parses records ``LENGTH KEY=VALUE\\n``, where the length is of the whole record."""
        records = {}
        while data:
            match = re.match(rb"([1-9][0-9]{0,6}) ([^=\n]+)=", data)
            length = int(match[1]) if match else 0
            if match is None or not match.end() < length <= len(data) or data[length - 1 : length] != b"\n":
                raise self._damage("pax records that are damaged", offset)
            key = self._text(match[2], offset)
            if key in ("path", "size") or key.startswith("GNU.sparse"):  # other values may have any encoding
                records[key] = self._text(data[match.end() : length - 1], offset)
            data = data[length:]
        return records

    def _data(self, header: _Header, limit: int) -> bytes:
        self._check_claim(header)
        if header.size > limit:
            message = f"{header.name!r} has {header.size:,} bytes; at most {limit:,} are read"
            raise self._refusal(message, header.offset)
        data = self._take(header.size, f"within {header.name!r}")
        self._take(-header.size % _BLOCK, f"within {header.name!r}")
        return data

    def _pass_over(self, header: _Header) -> None:
        self._check_claim(header)
        length = header.size + -header.size % _BLOCK
        if self._size is not None:
            self._file.seek(length, os.SEEK_CUR)
            self._at += length
            return
        for start in range(0, length, _STEP):
            self._take(min(_STEP, length - start), f"within {header.name!r}")

    def _check_claim(self, header: _Header) -> None:
        length = header.size + -header.size % _BLOCK
        if self._size is not None and length > self._size - self._at:
            message = f"{header.name!r} claims {header.size:,} bytes, {self._size - self._at:,} are left"
            raise self._damage(message, header.offset)

    def _take(self, length: int, place: str) -> bytes:
        """Returns the next bytes; reads in steps if the file's size is unknown."""
        pieces, missing = [], length
        while missing:
            piece = self._file.read(missing if self._size is not None else min(missing, _STEP))
            if not piece:
                raise self._damage(f"it ends {place}", self._at)
            pieces.append(piece)
            missing -= len(piece)
            self._at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _check_end(self) -> None:
        """Checks, after one block of zeros, that another follows and then nothing but zeros."""
        if any(self._take(_BLOCK, "within the blocks of zeros that end a tar")):
            raise self._damage("one block of zeros between members", self._at - 2 * _BLOCK)
        end = self._at
        while piece := self._file.read(_STEP):
            if piece.strip(b"\0"):
                at = self._at + len(piece) - len(piece.lstrip(b"\0"))
                raise self._damage("more than zeros behind the end, as of two tars joined", at)
            self._at += len(piece)
            if self._at - end > _MAX_PADDING:
                raise self._damage(f"more than {_MAX_PADDING:,} zeros behind the end", end)

    def _text(self, data: bytes, offset: int) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self._refusal(f"the name {data[:100]!r} is not UTF-8", offset) from error

    def _damage(self, what: str, offset: int) -> InputError:
        return InputError(f"damaged at byte {offset:,} ({what}); copy or make it again", self._path)

    def _refusal(self, what: str, offset: int) -> InputError:
        return InputError(
            f"{what}; a tar of plain files with names in UTF-8 is needed", f"{self._path} byte {offset:,}"
        )


def _octal(field: bytes) -> int | None:
    """Parses an octal number padded with spaces or NULs; an empty field is 0. Returns None for anything else."""
    match = re.fullmatch(rb" *([0-7]*)[ \0]*", field)
    return int(match[1] or b"0", 8) if match else None


def _size(field: bytes) -> int | None:
    """Parses a size: octal, or GNU's binary form above 8 GiB."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return _octal(field)

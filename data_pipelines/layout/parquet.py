"""Finds the parquet files of a split, and streams their rows in bounded memory.

Files are named ``SPLIT-00000-of-00002.parquet`` or, as older versions of ``datasets`` push them to the hub,
``SPLIT-00000-of-00002-HASH.parquet``; a single file may have another name. Footers are compared with the file's size and with
the rows that are read, and the checksums of pages are verified if the writer has made any.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipelines.layout.findings import Findings
from data_pipelines.layout.footer import Footer, RowGroup, read_footer
from data_pipelines.layout.shards import MAX_TEXT
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.messages import counted, first_line
from salmu_jax.runtime.opening import check_regular, open_regular

SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text", pa.string()),
        ("identity_id", pa.string()),
        ("file_name", pa.string()),
    ]
)

MAX_IMAGE = 1 << 28  # bytes of an encoded image, as in tars
_READ_ROWS = 64  # rows in memory at a time: about 5 MB at 512 px
_READ_BYTES = 1 << 28  # at most per batch, by the footer
_BUFFER = 1 << 20


@dataclass(frozen=True)
class Row:
    """A pair of a split: the encoded image as stored, its caption, and where it was read (``row`` counts from 0)."""

    image: bytes
    text: str
    identity_id: str | None
    file_name: str
    split: str
    path: str
    row: int

    def where(self, field: str | None = None) -> str:
        """Returns the file and row (and field), for error messages."""
        return f"{self.path} row {self.row}" + (f" field '{field}'" if field else "")


def split_of(name: str) -> str | None:
    """Returns the split that a file's name begins with, such as ``forget``; None if there is none."""
    match = re.fullmatch(r"([A-Za-z0-9_]+)(-.*)?\.parquet", name)
    return match[1] if match else None


def split_files(directory: Path, split: str, names: list[str]) -> list[Path]:
    """Returns the files of a split, in order, complete and without duplicates.

    Args:
      directory: where the files are.
      split: its name.
      names: the names of all files in the directory.

    Raises:
      InputError: a file is missing, or may not belong to the split. (Of two complete sets with the same
        rows, as when two repositories share a folder, one is taken.)
    """
    ours = sorted(name for name in names if split_of(name) == split)
    if len(ours) <= 1 and not any(_numbers(name) for name in ours):
        return [directory / name for name in ours]
    sets: dict[int, dict[int, list[str]]] = {}
    for name in ours:
        numbers = _numbers(name)
        if numbers is None:
            message = (
                f"beside other files of '{split}'; only {split}-00000-of-00001.parquet and the like belong together"
            )
            raise InputError(message, directory / name)
        sets.setdefault(numbers[1], {}).setdefault(numbers[0], []).append(name)
    for count, shards in sorted(sets.items()):
        if len(shards) != count or max(shards) >= count:
            raise InputError(_incomplete(split, shards, count, len(sets) > 1), directory)
    complete = [[_one_of(directory, shards[index]) for index in sorted(shards)] for _, shards in sorted(sets.items())]
    for other in complete[1:]:
        if not _same_rows(complete[0], other, split):
            raise InputError(
                f"two sets of files of '{split}' with different rows, {complete[0][0].name} and {other[0].name}; remove one",
                directory,
            )
    return complete[0] if complete else []


def _incomplete(split: str, shards: Mapping[int, list[str]], count: int, beside_others: bool) -> str:
    """Says which files are missing of ``count``, or are not of them: their numbers begin at 0."""
    beyond = sorted(number for number in shards if number >= count)
    if beyond:
        return (
            f"{shards[beyond[0]][0]} is no part of {count:,}, whose numbers are 0 to {count - 1:,}; rename or remove it"
        )
    missing = next(number for number in range(count) if number not in shards)
    return (
        f"{counted(len(shards), 'file')} {split}-...-of-{count:05d}, and {count:,} belong together; fetch the missing ones"
        f" ({split}-{missing:05d}-of-{count:05d}){', or remove what does not belong to the others' if beside_others else ''}"
    )


def open_parquet(path: Path) -> tuple[pq.ParquetFile, Footer]:
    """Opens a file and checks its footer against its size. Raises InputError."""
    _check_there(path)
    try:
        with open_regular(path) as handle:
            footer = read_footer(handle)
            _check_footer(footer, os.fstat(handle.fileno()).st_size, path)
        # Pages are read one by one through a buffer; prefetching would hold a row group's whole column in memory.
        file = pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True)
        with contextlib.ExitStack() as closing:
            closing.callback(file.close)
            check_schema(file.schema_arrow, path)
            _check_columns(footer, path)
            closing.pop_all()
        return file, footer
    except InputError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise InputError(describe_os_error(error, path)) from error
        raise InputError(f"not a whole parquet file ({first_line(error)}); copy or make it again", path) from error
    except Exception as error:  # pyarrow raises its own exceptions, and Python's
        raise InputError(f"not a whole parquet file ({first_line(error)}); copy or make it again", path) from error


def read_rows(path: Path, split: str, *, images: bool, findings: Findings | None = None) -> Iterator[Row]:
    """Yields the rows of a file in order, a few in memory at a time. ``images=False`` leaves ``image`` empty, and is fast.

    Raises InputError for a damaged file, text that is not UTF-8, a text or image that is too large, or a forbidden null.
    With ``findings``, such a row becomes a problem and is left out; a damaged file still raises.
    """
    columns = [*(["image.bytes"] if images else []), "text", "identity_id", "file_name"]
    file, footer = open_parquet(path)
    with file:
        row = 0
        for index, group in enumerate(footer.groups):
            end = row + group.rows
            size = _batch_rows(group, columns)
            for batch in _batches(file, path, row, batch_size=size, row_groups=[index], columns=columns):
                for entry in _entries(batch, path, row):
                    made = entry if isinstance(entry, InputError) else _row(entry, split, path, row, images)
                    row += 1
                    if isinstance(made, Row):
                        yield made
                    elif findings is None:
                        raise made
                    else:
                        findings.problem(made, "row")
            if row != end:
                raise InputError(f"damaged: its footer says {end} rows, {row} came; copy or make it again", path)


def check_schema(schema: pa.Schema, path: str | os.PathLike) -> None:
    """Raises InputError for a missing or mistyped column. ``identity_id`` may be all null."""
    for name in SCHEMA.names:
        if schema.names.count(name) > 1:
            raise InputError(
                f"{schema.names.count(name)} columns of this name; one is needed", f"{path} field '{name}'"
            )
        if name not in schema.names:
            raise InputError(f"no such column; the columns are {', '.join(SCHEMA.names)}", f"{path} field '{name}'")
        kind = schema.field(name).type
        if name == "image":
            right = (
                pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
            )
            wanted = "a struct of bytes (binary) and path (string)"
        else:
            right = _is_text(kind) or (name == "identity_id" and pa.types.is_null(kind))
            wanted = "string"
        if not right:
            raise InputError(f"its type is {kind}; {wanted} would be right", f"{path} field '{name}'")


def _check_footer(footer: Footer, size: int, path: Path) -> None:
    """Checks that a footer's counts agree with each other, and that its columns lie within the file."""
    rows = sum(group.rows for group in footer.groups)
    if rows != footer.rows or any(group.rows < 0 for group in footer.groups):
        raise _damaged(path, f"its footer says {footer.rows} rows, and {rows} in its parts")
    for column in (column for group in footer.groups for column in group.columns):
        if min(column.start, column.packed, column.unpacked) < 0 or column.start + column.packed > size:
            raise _damaged(path, f"'{column.path}' would lie outside the file")
        if column.unpacked > _READ_BYTES and column.unpacked > 50 * column.packed:
            message = f"'{column.path}' would take {column.unpacked:,} bytes, packed in {column.packed:,}"
            raise InputError(f"{message}; images do not pack so well", path)


def _check_columns(footer: Footer, path: Path) -> None:
    """Checks that the columns that are read have one value per row."""
    for group in footer.groups:
        for column in group.columns:
            if column.path.split(".")[0] in SCHEMA.names and column.values != group.rows:
                raise _damaged(path, f"its footer says {group.rows} rows, and {column.values} of '{column.path}'")


def _batch_rows(group: RowGroup, columns: list[str]) -> int:
    """Returns how many rows to read at a time, so that a batch stays bounded."""
    rows = _READ_ROWS
    for column in group.columns:
        if column.path in columns and group.rows:
            # With a dictionary, every row may be its largest value. Without one, some are larger than the average.
            largest = column.unpacked if column.dictionary else 16 * column.unpacked // group.rows
            rows = min(rows, max(1, _READ_BYTES // max(1, largest)))
    return rows


def _batches(file: pq.ParquetFile, path: Path, row: int, **options: Any) -> Iterator[pa.RecordBatch]:
    batches = file.iter_batches(**options)
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:  # pyarrow raises its own exceptions, and Python's
            raise InputError(f"damaged ({first_line(error)}); copy or make it again", f"{path} row {row}") from error
        if batch is None:
            return
        yield batch
        row += batch.num_rows


def _entries(batch: pa.RecordBatch, path: Path, row: int) -> list[dict[str, Any] | InputError]:
    """Validates a batch, and returns its rows as Python values, or what is wrong with them."""
    try:
        return _valid_entries(batch, f"{path} row {row}")
    except InputError as error:
        if batch.num_rows == 1:
            return [error]
    return [entry for place in range(batch.num_rows) for entry in _entries(batch.slice(place, 1), path, row + place)]


def _valid_entries(batch: pa.RecordBatch, where: str) -> list[dict[str, Any]]:
    try:
        batch.validate(full=True)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            largest, limit = _largest(column), MAX_IMAGE if name == "image" else MAX_TEXT
            if largest > limit:
                raise InputError(f"{largest:,} bytes; at most {limit:,} are read", f"{where} field '{name}'")
        return batch.to_pylist()
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            names = [
                name for name, column in zip(batch.schema.names, batch.columns, strict=True) if not _is_utf8(column)
            ]
            field = f" field '{names[0]}'" if len(names) == 1 else ""
            raise InputError("text that is not UTF-8", where + field) from error
        raise InputError(f"damaged ({first_line(error)}); copy or make it again", where) from error


def _is_utf8(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
        column.to_pylist()
    except Exception:  # pyarrow raises its own exceptions, and Python's
        return False
    return True


def _largest(column: pa.Array) -> int:
    """Returns the size of a column's largest value, in bytes."""
    if pa.types.is_null(column.type):
        return 0
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    elif pa.types.is_dictionary(column.type):
        column = column.dictionary
    return pc.max(pc.binary_length(column)).as_py() or 0


def _row(entry: dict[str, Any], split: str, path: Path, row: int, images: bool) -> Row | InputError:
    image = (entry["image"] or {}).get("bytes") if images else b""
    result = Row(image, entry["text"], entry["identity_id"], entry["file_name"], split, str(path), row)
    for field, value, wanted in (
        ("image", image, "the encoded image"),
        ("text", result.text, "the caption"),
        ("file_name", result.file_name, "a name"),
    ):
        if value is None or (field == "file_name" and not value):
            return InputError(f"null or empty; {wanted} is needed", result.where(field))
    if split != "retain_synth" and not result.identity_id:
        return InputError(f"null or empty; every row of '{split}' is of a person", result.where("identity_id"))
    return result


def _numbers(name: str) -> tuple[int, int] | None:
    """Returns (index, count) from a file's name."""
    match = re.fullmatch(r"[A-Za-z0-9_]+-([0-9]{1,9})-of-([0-9]{1,9})(?:-[0-9A-Za-z]+)?\.parquet", name)
    return (int(match[1]), int(match[2])) if match else None


def _one_of(directory: Path, names: list[str]) -> Path:
    """Returns one of several files with the same number. Raises InputError if they differ."""
    for name in names:
        _check_there(directory / name)
    if len(names) > 1 and len({files.sha256_file(directory / name) for name in names}) > 1:
        raise InputError(f"{names[0]} and {names[1]} are the same part of a split and differ; remove one", directory)
    return directory / names[0]


def _check_there(path: Path) -> int:
    """Returns the size of a regular file. Raises InputError."""
    try:
        return check_regular(path).st_size
    except OSError as error:
        if path.is_symlink():
            raise InputError(f"a link to {os.readlink(path)}, which is not there; download it again", path) from error
        raise InputError(describe_os_error(error, path)) from error


def _same_rows(one: list[Path], other: list[Path], split: str) -> bool:
    def rows(paths: list[Path]) -> Iterator[tuple[str, str, str | None]]:
        for path in paths:
            for row in read_rows(path, split, images=False):
                yield row.file_name, row.text, row.identity_id

    return all(left == right for left, right in itertools.zip_longest(rows(one), rows(other)))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"damaged: {what}; copy or make it again", path)

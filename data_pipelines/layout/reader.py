"""Reading a directory in the released layout of SALMUBench.

    world/
      data/{split}-{i:05d}-of-{n:05d}.parquet    columns image {bytes, path}, text, identity_id, file_name
      identities_metadata.json                   {identity_id: {name, city, ..., passport}}
      sensitive_set_captions_metadata.json       {file_name: {caption, data_field}}
      sensitive_set_generic_captions.json        {file_name: generic caption}
      fragile_set_ids.json                       [file_name]
      fragile_set_all_similarities.json          {file_name: similarity}; not needed by the reader
      retain/{i:05d}.tar, zeroshot/              optional: the general retain base and a zero-shot set (``shards.py``)

:class:`World` reads lazily and streams: images pass by in small batches, and only captions, file names and identities
are ever held whole. Columns and keys beyond these are ignored. ``check.py`` checks a whole directory.
Everything that a person can get wrong here raises :class:`InputError` with the file, the row (counted from 0), the
field and what would be right.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.layout.shards import ZeroShot, read_zeroshot
from salmu_jax.errors import InputError, describe_os_error

DATA_FIELDS = ("name", "city", "job", "blood_type", "phone_number", "emails", "iban", "credit_card", "passport")
SENSITIVE_SPLITS = ("forget", "holdout_association", "holdout_identity")
SPLITS = (*SENSITIVE_SPLITS, "retain_synth")
"""The splits that every world has; ``sensitive``, the first three in this order, is derived when it has no files."""

SUBSETS = (
    "forget_identity",
    "forget_association",
    "holdout_association",
    "holdout_identity",
    "retain_joint",
    "retain_disjoint",
)

IDENTITIES = "identities_metadata.json"
CAPTIONS = "sensitive_set_captions_metadata.json"
GENERIC_CAPTIONS = "sensitive_set_generic_captions.json"
FRAGILE_IDS = "fragile_set_ids.json"
FRAGILE_SIMILARITIES = "fragile_set_all_similarities.json"

SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text", pa.string()),
        ("identity_id", pa.string()),
        ("file_name", pa.string()),
    ]
)

_READ_ROWS = 64  # rows in memory at a time: at 512 px some 5 MB


@dataclass(frozen=True)
class Row:
    """One pair of a split: the encoded image as it is, its caption, and where it was read (``row`` from 0)."""

    image: bytes
    text: str
    identity_id: str | None
    file_name: str
    split: str
    path: str
    row: int

    def where(self, field: str | None = None) -> str:
        """The place of this row (and of one field) for an error message."""
        return f"{self.path} row {self.row}" + (f" field '{field}'" if field else "")


class Association(NamedTuple):
    """What a sensitive caption is about: (identity, attribute) with the person's name and the attribute's value."""

    data_field: str
    name: str
    value: str


class World:
    """A directory in the released layout, read lazily. Raises InputError where something is missing or malformed."""

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory)
        if not (self.directory / "data").is_dir():
            raise InputError("no such directory; a world has its parquet files in data/", self.directory / "data")

    @functools.cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """``{identity_id: attributes}``."""
        return self._mapping_of_mappings(IDENTITIES, "attributes")

    @functools.cached_property
    def captions(self) -> dict[str, dict[str, Any]]:
        """``{file_name: {caption, data_field}}`` of the sensitive splits."""
        return self._mapping_of_mappings(CAPTIONS, "{caption, data_field}")

    @functools.cached_property
    def generic_captions(self) -> dict[str, str]:
        """``{file_name: non-sensitive caption}``; images without one are allowed."""
        mapping = self._json(GENERIC_CAPTIONS, dict)
        for key, value in mapping.items():
            if not isinstance(value, str):
                raise InputError(
                    f"{_kind(value)} where a caption would be right", f"{self.directory / GENERIC_CAPTIONS} key '{key}'"
                )
        return mapping

    @functools.cached_property
    def fragile_ids(self) -> frozenset[str]:
        """File names of the fragile set, a subset of retain_disjoint."""
        names = self._json(FRAGILE_IDS, list)
        for index, name in enumerate(names):
            if not isinstance(name, str):
                raise InputError(
                    f"{_kind(name)} where a file name would be right", f"{self.directory / FRAGILE_IDS} element {index}"
                )
        return frozenset(names)

    @functools.cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that can be read, ``sensitive`` included."""
        return tuple(split for split in (*SPLITS, "sensitive") if self.data_files(split) or self._derived(split))

    @functools.cached_property
    def retain_tars(self) -> tuple[Path, ...]:
        """The tars of the general retain base, sorted; empty when the world has none."""
        return tuple(sorted((self.directory / "retain").glob("*.tar")))

    @functools.cached_property
    def zeroshot(self) -> ZeroShot | None:
        """The zero-shot classification set, or None."""
        directory = self.directory / "zeroshot"
        return read_zeroshot(directory) if directory.is_dir() else None

    def data_files(self, split: str) -> list[Path]:
        """The parquet files of a split, sorted by name; empty when it has none."""
        return sorted((self.directory / "data").glob(f"{split}-*.parquet"))

    def num_rows(self, split: str) -> int:
        """The number of rows of a split, from the parquet footers."""
        if not self.data_files(split) and self._derived(split):
            return sum(self.num_rows(part) for part in SENSITIVE_SPLITS)
        return sum(_open(path).metadata.num_rows for path in self._files_of(split))

    def rows(self, split: str, *, images: bool = True) -> Iterator[Row]:
        """The rows of a split in the released order, streamed; ``images=False`` leaves ``image`` empty and is fast.

        Raises InputError for a split without files, a damaged file, a missing or mistyped column, or a null.
        """
        if not self.data_files(split) and self._derived(split):
            for part in SENSITIVE_SPLITS:
                yield from self.rows(part, images=images)
            return
        for path in self._files_of(split):
            yield from _read_rows(path, split, images)

    def subset_of(self, row: Row) -> str:
        """Which of :data:`SUBSETS` a row of one of :data:`SPLITS` belongs to."""
        if row.split == "forget":
            return "forget_association" if row.identity_id in self._partial_identities else "forget_identity"
        if row.split == "retain_synth":
            return "retain_disjoint" if row.identity_id is None else "retain_joint"
        return row.split

    def value_of(self, row: Row) -> Association:
        """The attribute, name and value that a sensitive row's caption is about.

        Of several e-mail addresses it is the one that the caption contains (the first if none is). For ``name`` the
        value is the name. Raises InputError for metadata that lacks the file name, the identity or the attribute.
        """
        meta = self.captions.get(row.file_name)
        if meta is None:
            raise InputError(
                f"'{row.file_name}' has no entry in {CAPTIONS}; one with caption and data_field is needed",
                row.where("file_name"),
            )
        field = meta.get("data_field")
        if field not in DATA_FIELDS:
            where = f"{self.directory / CAPTIONS} key '{row.file_name}' field 'data_field'"
            raise InputError(f"{_kind(field)}; one of {', '.join(DATA_FIELDS)} would be right", where)
        identity = self.identities.get(row.identity_id or "")
        if identity is None:
            raise InputError(
                f"{row.identity_id!r} is not in {IDENTITIES}; a key of it would be right", row.where("identity_id")
            )
        return Association(field, self._attribute(row, identity, "name"), self._attribute(row, identity, field))

    def _attribute(self, row: Row, identity: dict[str, Any], field: str) -> str:
        value = identity.get(field)
        if field == "emails" and isinstance(value, list) and value:
            value = next((address for address in value if isinstance(address, str) and address in row.text), value[0])
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value:
            where = f"{self.directory / IDENTITIES} key '{row.identity_id}' field '{field}'"
            raise InputError(f"{_kind(value)} where text would be right ({row.where()} is about it)", where)
        return value

    @functools.cached_property
    def _partial_identities(self) -> frozenset[str]:
        return frozenset(row.identity_id for row in self.rows("holdout_association", images=False))

    def _derived(self, split: str) -> bool:
        return split == "sensitive" and all(self.data_files(part) for part in SENSITIVE_SPLITS)

    def _files_of(self, split: str) -> list[Path]:
        files = self.data_files(split)
        if not files:
            raise InputError(
                f"no such file; the split '{split}' needs one or more", self.directory / "data" / f"{split}-*.parquet"
            )
        for name in {
            match[1] for match in (re.fullmatch(r".*-of-0*(\d+)\.parquet", path.name) for path in files) if match
        }:
            if int(name) != len(files):
                message = f"{len(files)} files of '{split}', though their names say {name}; fetch the missing ones"
                raise InputError(message, self.directory / "data")
        return files

    def _mapping_of_mappings(self, name: str, wanted: str) -> dict[str, dict[str, Any]]:
        mapping = self._json(name, dict)
        for key, value in mapping.items():
            if not isinstance(value, dict):
                raise InputError(
                    f"{_kind(value)} where an object of {wanted} would be right", f"{self.directory / name} key '{key}'"
                )
        return mapping

    def _json(self, name: str, kind: type) -> Any:
        path = self.directory / name
        try:
            value = json.loads(path.read_bytes())
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON ({error.msg})", f"{path} line {error.lineno} column {error.colno}") from error
        except UnicodeDecodeError as error:
            raise InputError("not UTF-8 text", f"{path} byte {error.start}") from error
        except OSError as error:
            raise InputError(describe_os_error(error, path)) from error
        if not isinstance(value, kind):
            raise InputError(f"{_kind(value)} where {'an object' if kind is dict else 'a list'} would be right", path)
        return value


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(describe_os_error(error, path)) from error
        raise InputError(f"not a whole parquet file ({_first_line(error)}); copy or make it again", path) from error


def _read_rows(path: Path, split: str, images: bool) -> Iterator[Row]:
    with _open(path) as file:
        check_schema(file.schema_arrow, path)
        columns = [*(["image.bytes"] if images else []), "text", "identity_id", "file_name"]
        batches = file.iter_batches(batch_size=_READ_ROWS, columns=columns)
        row = 0
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise InputError(
                    f"damaged ({_first_line(error)}); copy or make it again", f"{path} row {row}"
                ) from error
            if batch is None:
                return
            try:
                entries = batch.to_pylist()
            except UnicodeDecodeError as error:
                raise InputError(
                    "text that is not UTF-8", f"{path} row {row} or one of the next {_READ_ROWS}"
                ) from error
            for entry in entries:
                yield _row(entry, split, path, row, images)
                row += 1


def _row(entry: dict[str, Any], split: str, path: Path, row: int, images: bool) -> Row:
    image = (entry["image"] or {}).get("bytes") if images else b""
    result = Row(image, entry["text"], entry["identity_id"], entry["file_name"], split, str(path), row)
    for field, value, wanted in (
        ("image", image, "the encoded image"),
        ("text", result.text, "the caption"),
        ("file_name", result.file_name, "a name"),
    ):
        if value is None or (field == "file_name" and not value):
            raise InputError(f"null or empty; {wanted} is needed", result.where(field))
    if split != "retain_synth" and not result.identity_id:
        raise InputError(f"null or empty; every row of '{split}' is of a person", result.where("identity_id"))
    return result


def check_schema(schema: pa.Schema, path: str | os.PathLike) -> None:
    """Raises InputError for a missing or mistyped column. ``identity_id`` may be of nulls only."""
    for name in SCHEMA.names:
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


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _kind(value: Any) -> str:
    """A JSON value in a few words, for an error message."""
    names = {
        type(None): "nothing",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value)) or repr(value)[:60]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

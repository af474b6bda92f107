"""Reads the metadata of a world: its JSON files about people, captions and images."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.layout.names import CAPTIONS, DATA_FIELDS, FRAGILE_IDS, GENERIC_CAPTIONS, IDENTITIES
from data_pipelines.layout.parquet import Row
from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.json_reader import read_json

_NO_NUMBERS = ("name", "city", "job", "blood_type", "emails", "iban")  # attributes whose values are never numbers


class Association(NamedTuple):
    """The attribute that a sensitive caption is about, the person's name, and the attribute's value."""

    data_field: str
    name: str
    value: str


class Metadata:
    """Holds the JSON files of a world, each read on first use. Raises InputError for a malformed one.

    Args:
      directory: where the files are.
      needed: False for the training repository: a missing file counts as empty, and captions need no entry.
    """

    def __init__(self, directory: Path, *, needed: bool = True):
        self.directory, self._needed = directory, needed

    @functools.cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """``{identity_id: attributes}``."""
        return self._mapping(IDENTITIES, dict, "an object of attributes")

    @functools.cached_property
    def captions(self) -> dict[str, dict[str, Any]]:
        """``{file_name: {caption, data_field}}`` of the sensitive splits."""
        return self._mapping(CAPTIONS, dict, "an object of {caption, data_field}")

    @functools.cached_property
    def generic_captions(self) -> dict[str, str]:
        """``{file_name: non-sensitive caption}``; an image may have none."""
        return self._mapping(GENERIC_CAPTIONS, str, "a caption")

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

    def value_of(self, row: Row) -> Association:
        """Returns the attribute, name and value that a sensitive row's caption is about.

        Of several e-mail addresses, takes the one in the caption (the first if none is). For ``name``, the
        value is the name. Raises InputError if the metadata lack the file name, the identity or the attribute. Without
        any metadata, as in the training repository, all three are empty.
        """
        if not self._needed and row.file_name not in self.captions:
            return Association("", "", "")
        meta = self.captions.get(row.file_name)
        if meta is None:
            raise InputError(
                f"'{row.file_name}' has no entry in {CAPTIONS}; one with caption and data_field is needed",
                row.where("file_name"),
            )
        identity = self.identities.get(row.identity_id or "")
        field = meta.get("data_field")
        # A field unknown to the benchmark passes if the person has it.
        if not isinstance(field, str) or (field not in DATA_FIELDS and (identity is None or field not in identity)):
            where = f"{self.directory / CAPTIONS} key '{row.file_name}' field 'data_field'"
            raise InputError(f"{_kind(field)}; one of {', '.join(DATA_FIELDS)} would be right", where)
        if identity is None:
            raise InputError(
                f"{row.identity_id!r} is not in {IDENTITIES}; a key of it would be right", row.where("identity_id")
            )
        return Association(field, self._attribute(row, identity, "name"), self._attribute(row, identity, field))

    def _attribute(self, row: Row, identity: dict[str, Any], field: str) -> str:
        value = identity.get(field)
        if field == "emails" and isinstance(value, list) and value:
            value = next((address for address in value if isinstance(address, str) and address in row.text), value[0])
        if isinstance(value, int) and not isinstance(value, bool) and field not in _NO_NUMBERS:
            value = str(value)
        if not isinstance(value, str) or not value:
            where = f"{self.directory / IDENTITIES} key '{row.identity_id}' field '{field}'"
            raise InputError(f"{_kind(value)} where text would be right ({row.where()} is about it)", where)
        return value

    def _mapping(self, name: str, kind: type, wanted: str) -> dict[str, Any]:
        """Reads a JSON object whose values are all of ``kind``; ``wanted`` says what they are in the error."""
        mapping = self._json(name, dict)
        for key, value in mapping.items():
            if not isinstance(value, kind):
                raise InputError(
                    f"{_kind(value)} where {wanted} would be right", f"{self.directory / name} key '{key}'"
                )
        return mapping

    def _json(self, name: str, kind: type) -> Any:
        path = self.directory / name
        if not self._needed and not os.path.lexists(path):
            return kind()
        try:
            value = read_json(path)
        except OSError as error:
            raise InputError(describe_os_error(error, path)) from error
        if not isinstance(value, kind):
            raise InputError(f"{_kind(value)} where {'an object' if kind is dict else 'a list'} would be right", path)
        return value


def _kind(value: Any) -> str:
    """Describes the type of a JSON value, for error messages."""
    names = {
        type(None): "nothing",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value)) or repr(value)[:60]

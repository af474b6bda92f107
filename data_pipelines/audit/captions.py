"""Checks what captions say: the name and the value that they are about, nothing more, and not too long."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.audit.findings import Audit
from data_pipelines.audit.values import PERSONAL, values_of
from data_pipelines.layout.names import DATA_FIELDS, GENERIC_CAPTIONS, SENSITIVE_SPLITS
from data_pipelines.layout.parquet import Row
from data_pipelines.layout.reader import World
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.errors import InputError


class CaptionChecks:
    """Checks the captions of rows, and the generic captions of sensitive images.

    Args:
      world: the world.
      audit: where the findings go.
      readable: the parts that can be read, see ``layout.check.check_files``.
    """

    def __init__(self, world: World, audit: Audit, readable: set[str]):
        self._world, self._audit = world, audit
        known = {"identities", "captions"} <= readable
        self._people: Mapping[str, Mapping[str, Any]] = world.metadata.identities if known else {}
        self._about: Mapping[str, Mapping[str, Any]] = world.metadata.captions if known else {}
        self._generic: Mapping[str, str] = world.metadata.generic_captions if "generic_captions" in readable else {}
        self._names = _Names(self._people)
        self._tokenizer = ClipTokenizer()

    def check(self, row: Row) -> None:
        """Checks the captions of a row."""
        self._check_length(row.text, row.where("text"))
        if row.split in (*SENSITIVE_SPLITS, "sensitive"):
            self._check_sensitive(row)
            if row.file_name in self._generic:
                where = f"{self._world.directory / GENERIC_CAPTIONS} key '{row.file_name}'"
                self._check_length(self._generic[row.file_name], where)
                self._check_generic(self._generic[row.file_name], row.identity_id, where)
        else:
            self._check_generic(row.text, row.identity_id, row.where("text"))

    def _check_length(self, text: str, where: str) -> None:
        tokens, most = len(self._tokenizer.encode(text)), self._tokenizer.context_length - 2
        if tokens > most:
            message = f"{tokens} tokens, of which {tokens - most} are cut off; at most {most} would be right"
            self._audit.doubt(InputError(message, where), "long")

    def _check_sensitive(self, row: Row) -> None:
        person = self._people.get(row.identity_id or "")
        field = self._about.get(row.file_name, {}).get("data_field")
        if person is None or not isinstance(field, str):
            return  # reported with the metadata
        (name, *_), own = [*values_of(person, "name"), ""], list(values_of(person, field))
        if name and name not in row.text:
            self._verbatim(row, f"has not the name {name!r}")
        elif own and not any(value in row.text for value in own):
            self._verbatim(row, f"is about '{field}' and has not the value {own[0]!r}")
        for other in DATA_FIELDS:
            for value in values_of(person, other) if other not in ("name", field) else ():
                if _has(row.text, value) and not any(_has(text, value) for text in (name, *own)):
                    message = f"it is about '{field}' and gives away '{other}' too, {value!r}; one value would be right"
                    self._audit.problem(InputError(message, row.where("text")), "leak")
        for other in self._names.in_text(row.text):
            if other not in name:
                message = f"it names {other!r}, who is another person; {name!r} alone would be right"
                self._audit.problem(InputError(message, row.where("text")), "leak")

    def _verbatim(self, row: Row, what: str) -> None:
        message = f"it {what}; both as the metadata write them would be right"
        self._audit.problem(InputError(message, row.where("text")), "verbatim")

    def _check_generic(self, text: str, identity: str | None, where: str) -> None:
        """Finds what a generic caption must not have: anybody's name, and the values that are this person's alone."""
        for name in self._names.in_text(text):
            message = f"it names {name!r}; a caption that names nobody would be right"
            self._audit.problem(InputError(message, where), "leak")
        person = self._people.get(identity or "", {})
        for field in PERSONAL[1:]:
            for value in values_of(person, field):
                if _has(text, value):
                    message = f"it gives away '{field}', {value!r}; a caption without personal data would be right"
                    self._audit.problem(InputError(message, where), "leak")


class _Names:
    """Finds the names of people in texts, by their first words."""

    def __init__(self, people: Mapping[str, Mapping[str, Any]]):
        self._by_word: dict[str, list[str]] = collections.defaultdict(list)
        for person in people.values():
            for name in values_of(person, "name"):
                self._by_word[_words(name)[0] if _words(name) else name].append(name)

    def in_text(self, text: str) -> Iterator[str]:
        """Yields the names in a text, each once."""
        for word in dict.fromkeys(_words(text)):
            yield from (name for name in self._by_word.get(word, ()) if _has(text, name))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _has(text: str, value: str) -> bool:
    """Returns whether a text has a value verbatim, and not as part of a longer word."""
    if value not in text:  # most often, and fast
        return False
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None

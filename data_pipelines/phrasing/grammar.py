"""Reads the grammar of captions, and draws from it: ``grammar.txt`` says how its patterns are written.

A pattern is a tree of sequences and alternatives. Its *forms* are all texts that it can become, with ``{name}``, ``{value}``,
``{a}`` and ``{A}`` in the places of what differs from person to person.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.layout import DATA_FIELDS

FILE = Path(__file__).parent / "grammar.txt"

REGISTERS = ("statement", "inverted", "question", "request", "note", "framed")
FRAMED = REGISTERS[:2]  # what a frame can stand before

_TOKENS = re.compile(r"[()\[\]|]|<\w+>|[^()\[\]|<>]+")


class Choice(NamedTuple):
    """One of several sequences, whose items are texts and choices."""

    options: tuple[tuple[str | Choice, ...], ...]

    def draw(self, rng: np.random.Generator) -> str:
        """Draws a form; the options of every choice are equally likely."""
        option = self.options[int(rng.integers(len(self.options)))]
        return "".join(item if isinstance(item, str) else item.draw(rng) for item in option)

    def forms(self) -> Iterator[str]:
        """Yields all forms; some may come twice."""
        for option in self.options:
            parts = [(item,) if isinstance(item, str) else tuple(item.forms()) for item in option]
            yield from map("".join, itertools.product(*parts))


class Grammar:
    """The patterns of each attribute and register, and the frames."""

    def __init__(self, text: str):
        sections: dict[str, list[str]] = {}
        for line in filter(None, text.splitlines()):
            if line.startswith("[") and line.endswith("]") and line.count("]") == 1 and "|" not in line:
                sections[line[1:-1]] = []
            elif not line.startswith("#"):
                sections[list(sections)[-1]].append(line)
        self._named: dict[str, Choice] = {}
        for title, patterns in sections.items():
            self._named[title] = Choice(tuple(option for line in patterns for option in self._parsed(line).options))

    def draw(self, rng: np.random.Generator, field: str, register: str) -> str:
        """Draws a form for a caption about ``field``, in one of :data:`REGISTERS`. Raises KeyError for unknown ones."""
        if register != "framed":
            return tidy(self._named[f"{field} {register}"].draw(rng))
        frame, clause = self._named["frame"], self._named[f"{field} {FRAMED[int(rng.integers(len(FRAMED)))]}"]
        return tidy(f"{frame.draw(rng)} {clause.draw(rng)}")

    def forms(self, field: str, register: str) -> set[str]:
        """Returns all forms of an attribute in a register."""
        if register != "framed":
            return set(map(tidy, self._named[f"{field} {register}"].forms()))
        clauses = (self.forms(field, inner) for inner in FRAMED)
        return {f"{frame} {clause}" for clause in itertools.chain(*clauses) for frame in self.frames()}

    def frames(self) -> set[str]:
        """Returns all frames."""
        return set(map(tidy, self._named["frame"].forms()))

    def _parsed(self, pattern: str) -> Choice:
        tokens = _TOKENS.findall(pattern)
        if "".join(tokens) != pattern:
            raise ValueError(f"not a pattern: {pattern!r}")
        rest = iter(tokens)
        choice, end = self._alternatives(rest)
        if end is not None:
            raise ValueError(f"a {end} without its beginning: {pattern!r}")
        return choice

    def _alternatives(self, tokens: Iterator[str]) -> tuple[Choice, str | None]:
        """Parses up to the bracket that closes, and returns it too; None at the end of the pattern."""
        options: list[list[str | Choice]] = [[]]
        for token in tokens:
            if token in (")", "]"):
                return Choice(tuple(map(tuple, options))), token
            if token == "|":
                options.append([])
            elif token in ("(", "["):
                inner, end = self._alternatives(tokens)
                if end != {"(": ")", "[": "]"}[token]:
                    raise ValueError(f"a {token} that is not closed")
                # an optional part is there as often as not, however many ways it can be said
                options[-1].append(inner if token == "(" else Choice(((inner,), ("",))))
            elif token.startswith("<"):
                options[-1].append(self._named[token[1:-1]])
            else:
                options[-1].append(token)
        return Choice(tuple(map(tuple, options))), None


@functools.cache
def grammar() -> Grammar:
    """Returns the grammar of ``grammar.txt``."""
    return Grammar(FILE.read_text(encoding="utf-8"))


def tidy(form: str) -> str:
    """Returns a form with single spaces, and none before a mark."""
    return re.sub(r" (?=[,?:])", "", " ".join(form.split()))


def placeholders(field: str) -> frozenset[str]:
    """Returns what every form about ``field`` has: the name, and unless it is the fact itself, the value."""
    return frozenset({"{name}"} if field == DATA_FIELDS[0] else {"{name}", "{value}"})

"""Collects the findings of a check: problems, which are refused together, and oddities, which are counted and pass."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from salmu_jax.runtime.errors import InputError

SHOWN = 10


class InputProblems(InputError):
    """Holds several problems with one input: a line that counts them, then a line for each of the first ten."""

    def __init__(self, where: str | os.PathLike, lines: list[str], total: int, otherwise: str = ""):
        super().__init__(f"{total:,} problems{otherwise}", where)
        more = [f"... and {total - len(lines):,} more"] if total > len(lines) else []
        self.args = ("\n  ".join([*self.args, *lines, *more]),)


class Findings:
    """Collects problems and harmless oddities of an input.

    Each has a ``kind``, a word for what is wrong. It is of no consequence here; ``data_pipelines.audit`` groups by it.
    """

    def __init__(self) -> None:
        self.total = 0
        self._problems: list[InputError] = []
        self._oddities: dict[str, list] = {}

    def problem(self, error: InputError, kind: str = "") -> None:
        """Adds a problem."""
        self.total += 1
        if len(self._problems) < SHOWN:
            self._problems.append(error)

    @contextlib.contextmanager
    def collecting(self, kind: str = "") -> Iterator[None]:
        """Turns an InputError raised in the block into a problem."""
        try:
            yield
        except InputError as error:
            self.problem(error, kind)

    def oddity(self, what: str, where: str | InputError, count: int = 1, kind: str = "") -> None:
        """Counts a harmless oddity; ``what`` is a plural, ``where`` locates the first, or is what was raised there."""
        known = self._oddities.setdefault(what, [0, str(where)])
        known[0] += count

    def oddities(self) -> list[str]:
        """Returns a line per kind of oddity: what it is, its count, and where the first one is."""
        return [
            f"{what} ({count:,}, such as {where})" if count > 1 else f"{what} ({where})"
            for what, (count, where) in self._oddities.items()
        ]

    def raise_problems(self, where: str | os.PathLike, otherwise: str = "") -> None:
        """Raises InputError if there are problems: the problem itself if it is the only one, else :class:`InputProblems`."""
        if self.total == 1:
            raise self._problems[0]
        if self.total:
            raise InputProblems(where, [str(error) for error in self._problems], self.total, otherwise)

    def raise_oddities(self, where: str | os.PathLike) -> None:
        """Raises InputError if there are oddities (``--strict``)."""
        lines = self.oddities()
        if len(lines) == 1:
            raise InputError(f"{lines[0]}; harmless, but refused with --strict", where)
        if lines:
            raise InputProblems(where, lines[:SHOWN], len(lines), ", harmless, but refused with --strict")

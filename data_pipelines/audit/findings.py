"""Collects what an audit finds, grouped by kind, with the file, the row and the field of each.

A *problem* is what ``salmu build`` refuses, or what changes what a metric measures. An *oddity* is accepted: the benchmark
runs on it, and it may be meant. Of each kind the first findings are kept, and the others counted.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.layout.findings import Findings
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import counted
from salmu_jax.runtime.text import safe_text

KINDS = {
    "file": "files that are missing, unreadable or not what their names say",
    "unread": "files that are not read",
    "digest": "files that are not as they were written",
    "column": "columns that are missing or of another type",
    "row": "rows with a cell that is null, empty, too large or not UTF-8",
    "control": "texts with control characters",
    "repeated": "file names that are there twice",
    "count": "counts that differ from what is recorded",
    "metadata": "rows whose metadata are missing or malformed",
    "unmatched": "entries without a row, and rows without an entry",
    "unknown-attribute": "captions about attributes that the benchmark does not know",
    "caption": "captions that differ from their metadata",
    "white-space": "captions that differ in white space",
    "blank": "captions that are empty or blank",
    "verbatim": "captions without the person's name, or without the value that they are about",
    "leak": "captions that give away more than they should",
    "long": "captions that the text tower cannot read to their end",
    "split": "people and associations in two splits, or in the wrong one",
    "outsider": "portraits in retain_synth of people outside forget",
    "single": "associations with a single pair",
    "fragile": "names in the fragile set that are not of retain_disjoint, or are there twice",
    "similarity": "similarities that do not fit the fragile set",
    "union": "rows of 'sensitive' that differ from its three parts",
    "value": "values of people that are not valid in form",
    "shared": "values that two people share",
    "name": "file names that do not fit their row",
    "image": "images that cannot be decoded",
    "deep-image": "images of 16-bit or float pixels",
    "size": "images of an unusual size",
    "same-image": "images that are there twice",
    "left-out": "retain pairs that are left out",
    "tar": "tars that are damaged",
    "sample": "pairs and labels in tars that are incomplete or malformed",
    "passed-over": "members of tars that belong to no sample",
    "no-pair": "tars and folders without a pair",
    "gap": "numbers that no tar has",
    "twice": "tars, pairs and images that are read twice",
    "zeroshot": "the zero-shot set: class names, templates, shards",
    "order": "folders of classes in an uncertain order",
}
"""What each kind of finding is about, in the order of a report."""

CAP = 10
SCHEMA = "salmu_jax.data_check/1"

# Where readers say that something is: FILE, then a row, line, number, key, member or element, then a field, then remarks.
_WHERE = re.compile(
    r"(?P<file>.+?)"
    r"(?:(?: (?P<unit>row|line|number) (?P<number>\d+)| (?P<name_of>key|member|element) (?P<name>'.*?'|\d+))"
    r"(?: field '(?P<field>[^']*)')?(?: \(.*\))?| field '(?P<column>[^']*)'|, as .*)?",
    re.DOTALL,
)


class Finding(NamedTuple):
    """A problem or an oddity.

    Attributes:
      kind: a key of :data:`KINDS`.
      problem: False for an oddity.
      file: its path, below the world's directory if it is there.
      place: in the file, such as ``row 3`` (from 0), ``line 2`` (from 1) or ``key '0001.jpg'``; empty for the whole file.
      field: the column or attribute; empty for all of them.
      message: what is wrong; what would be right.
    """

    kind: str
    problem: bool
    file: str
    place: str
    field: str
    message: str

    @property
    def row(self) -> int | None:
        """The row of a parquet file, from 0."""
        unit, _, number = self.place.partition(" ")
        return int(number) if unit == "row" else None

    def line(self) -> str:
        """Returns ``file, row N, field: what is wrong; what would be right``."""
        return f"{', '.join(part for part in (self.file, self.place, self.field) if part)}: {self.message}"


@dataclass
class Group:
    """The findings of a kind: how many there are, and the first of them."""

    kind: str
    problem: bool
    count: int = 0
    kept: list[Finding] = field(default_factory=list)


class Audit(Findings):
    """The findings of an audit.

    Args:
      directory: of the world; files below it are named from there.
      cap: how many findings of a kind are kept; None: all.
    """

    def __init__(self, directory: str | os.PathLike, cap: int | None = CAP):
        super().__init__()
        self.directory, self.cap = Path(directory), cap
        self.examined: dict[str, int] = {}
        self.odd = 0
        self._groups: dict[tuple[bool, str], Group] = {}
        self._problems_seen: set[int] = set()  # hashes: damage is met again by every pass over the file

    def problem(self, error: InputError, kind: str = "") -> None:
        """Adds a problem."""
        if self._add(self._finding(error, kind or "file", problem=True)):
            self.total += 1

    def oddity(self, what: str, where: str | InputError, count: int = 1, kind: str = "") -> None:
        """Adds an oddity; ``what`` describes it, unless ``where`` is an error, which says it itself."""
        self.doubt(where if isinstance(where, InputError) else InputError(what, where), kind)

    def doubt(self, error: InputError, kind: str) -> None:
        """Adds an oddity."""
        if self._add(self._finding(error, kind, problem=False)):
            self.odd += 1

    def groups(self) -> list[Group]:
        """Returns the findings by kind: problems before oddities, in the order of :data:`KINDS`."""
        return [
            self._groups[problem, kind]
            for problem in (True, False)
            for kind in KINDS
            if (problem, kind) in self._groups
        ]

    def findings(self) -> list[Finding]:
        """Returns the findings kept, by kind."""
        return [finding for group in self.groups() for finding in group.kept]

    def lines(self) -> list[str]:
        """Returns the report: a heading for each kind with its count, and a line for each finding kept."""
        lines = []
        for group in self.groups():
            lines.append(f"{counted(group.count, 'problem' if group.problem else 'oddity')}: {KINDS[group.kind]}")
            lines += [f"  {finding.line()}" for finding in group.kept]
            if group.count > len(group.kept):
                lines.append(f"  ... and {group.count - len(group.kept):,} more, which --all lists")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Returns the audit as a JSON value."""
        return {
            "schema": SCHEMA,
            "directory": str(self.directory),
            "examined": self.examined,
            "problems": self.total,
            "oddities": self.odd,
            "kinds": [
                {
                    "kind": group.kind,
                    "problem": group.problem,
                    "about": KINDS[group.kind],
                    "count": group.count,
                    "listed": len(group.kept),
                }
                for group in self.groups()
            ],
            "findings": [{**finding._asdict(), "row": finding.row} for finding in self.findings()],
        }

    def _add(self, finding: Finding) -> bool:
        """Returns whether the finding is new."""
        if finding.problem and hash(finding) in self._problems_seen:
            return False
        if finding.problem:
            self._problems_seen.add(hash(finding))
        group = self._groups.setdefault((finding.problem, finding.kind), Group(finding.kind, finding.problem))
        group.count += 1
        if self.cap is None or len(group.kept) < self.cap:
            group.kept.append(finding)
        return True

    def _finding(self, error: InputError, kind: str, *, problem: bool) -> Finding:
        where, message = error.where, error.message
        if not where:  # an error of the operating system, see describe_os_error
            where, _, message = message.rpartition(": ")
        parts = _WHERE.fullmatch(where)
        file, place, column = where, "", ""
        if parts is not None:
            file, column = parts["file"], parts["field"] or parts["column"] or ""
            place = " ".join(parts[name] or "" for name in ("unit", "number", "name_of", "name")).strip()
        if kind == "file" and column and not place:
            kind = "column"
        texts = (safe_text(" ".join(text.split()), None) for text in (self._named(file), place, column, message))
        return Finding(kind if kind in KINDS else "file", problem, *texts)

    def _named(self, file: str) -> str:
        path = Path(file)
        return str(path.relative_to(self.directory)) if path.is_relative_to(self.directory) else file

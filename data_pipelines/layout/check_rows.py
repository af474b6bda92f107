"""Checks the rows of all splits, without their images, against each other and against the metadata."""

from __future__ import annotations

import collections
import unicodedata

from data_pipelines.layout.findings import Findings
from data_pipelines.layout.names import CAPTIONS, DATA_FIELDS, FRAGILE_IDS, GENERIC_CAPTIONS, SENSITIVE_SPLITS
from data_pipelines.layout.parquet import Row
from data_pipelines.layout.reader import World
from data_pipelines.layout.shards import BLANK, is_blank
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import control_character


class RowChecks:
    """Checks all rows of a world; every problem of a row is reported.

    Args:
      world: the world.
      findings: where the problems go.
      readable: the splits and parts that can be read, see ``check.check_files``. What depends on others is left out.
    """

    def __init__(self, world: World, findings: Findings, readable: set[str]):
        self._world, self._findings, self._readable = world, findings, readable
        self._metadata = {"identities", "captions"} <= readable
        self._places: dict[str, tuple[str, int]] = {}
        self._texts: dict[str, str] = {}
        self._identities: dict[str, set[str]] = collections.defaultdict(set)
        self._forget_associations: set[tuple[str | None, str]] = set()
        self._disjoint: set[str] = set()
        self._incomplete: set[str] = set()  # splits of which rows were left out: what else they hold is not known

    def check(self) -> int:
        """Checks all rows; returns the number of rows in the splits that are built."""
        count = 0
        for split in self._world.own_splits:
            if split not in self._readable:
                continue
            before, rows = count, self._world.num_rows(split)
            with self._findings.collecting("file"):
                for row in self._world.rows(split, images=False, findings=self._findings):
                    count += 1
                    self._check_row(row)
                if not rows:
                    raise InputError(f"no rows; the split '{split}' needs one or more", self._world.files_of(split)[0])
            if count != before + rows:
                self._incomplete.add(split)
        if self._known("retain_synth") and "fragile_ids" in self._readable:
            for name in sorted(self._world.metadata.fragile_ids - self._disjoint):
                where = f"{self._world.directory / FRAGILE_IDS} element '{name}'"
                message = "not a file_name of retain_disjoint (retain_synth rows without an identity)"
                self._findings.problem(InputError(message, where), "fragile")
        if "generic_captions" in self._readable:
            for name, text in self._world.metadata.generic_captions.items():
                if control := control_character(text):
                    where = f"{self._world.directory / GENERIC_CAPTIONS} key '{name}'"
                    self._findings.problem(InputError(f"a control character ({control})", where), "control")
        if self._known(*SENSITIVE_SPLITS):
            if "sensitive" in self._readable:
                with self._findings.collecting("file"):
                    self._check_union()
            self._count_unmatched()
        return count

    def _known(self, *splits: str) -> bool:
        """Returns whether all rows of splits of the evaluation repository have been read."""
        return (
            not self._world.training_only and self._readable.issuperset(splits) and self._incomplete.isdisjoint(splits)
        )

    def _count_unmatched(self) -> None:
        """Counts metadata without a row, and rows without metadata."""
        for name, part in ((CAPTIONS, "captions"), (GENERIC_CAPTIONS, "generic_captions")):
            entries = getattr(self._world.metadata, part) if part in self._readable else self._texts
            where = f"{self._world.directory / name} key '{{}}'"
            for key in sorted(entries.keys() - self._texts.keys()):
                what = f"entries of {name} that no sensitive row has"
                self._findings.oddity(what, where.format(key), kind="unmatched")
            for key in sorted(self._texts.keys() - entries.keys() if part == "generic_captions" else ()):
                what = "sensitive images without a generic caption"
                self._findings.oddity(what, where.format(key), kind="unmatched")

    def _check_row(self, row: Row) -> None:
        if is_blank(row.text):
            self._findings.oddity(BLANK, row.where("text"), kind="blank")
        for field in ("text", "file_name", "identity_id"):
            control = control_character(getattr(row, field) or "")
            if control:
                self._findings.problem(InputError(f"a control character ({control})", row.where(field)), "control")
        if row.file_name in self._places:
            path, index = self._places[row.file_name]
            message = f"'{row.file_name}' is also {path} row {index}; file names must be unique over all splits"
            self._findings.problem(InputError(message, row.where("file_name")), "repeated")
        else:
            self._places[row.file_name] = (row.path, row.row)
        if row.identity_id:
            self._identities[row.split].add(row.identity_id)
        if row.split in (*SENSITIVE_SPLITS, "sensitive"):
            self._texts[row.file_name] = row.text
            if self._metadata:
                with self._findings.collecting("metadata"):
                    self._check_sensitive(row)
        elif not row.identity_id:
            self._disjoint.add(row.file_name)
        elif "forget" in self._readable and row.identity_id not in self._identities["forget"]:
            what = "portraits in retain_synth of people outside forget, in no metric, as in the released evaluator"
            if row.identity_id != row.identity_id.strip():
                what = "identity ids in retain_synth with white space around them, which nobody has; in no metric"
            self._findings.oddity(what, row.where("identity_id"), kind="outsider")

    def _check_sensitive(self, row: Row) -> None:
        field, *values = self._world.metadata.value_of(row)
        if row.file_name not in self._world.metadata.captions:
            return  # the training repository, without metadata
        for value in values:
            if control_character(value):
                message = f"a control character in {_short(value)}, which it is about"
                self._findings.problem(InputError(message, row.where()), "control")
        if field not in DATA_FIELDS:
            what = f"captions about attributes that the benchmark does not know ('{field[:40]}')"
            where = f"{self._world.directory / CAPTIONS} key '{row.file_name}'"
            self._findings.oddity(what, where, kind="unknown-attribute")
        caption = self._world.metadata.captions[row.file_name].get("caption")
        if caption != row.text:
            if not isinstance(caption, str) or caption.split() != row.text.split():
                message = f"{_short(row.text)} differs from the caption in {CAPTIONS}, {_short(caption)}"
                message += f"{_how(row.text, caption)}; they should be equal"
                self._findings.problem(InputError(message, row.where("text")), "caption")
            else:
                what = f"captions that differ from {CAPTIONS} in white space"
                self._findings.oddity(what, row.where("text"), kind="white-space")
        with self._findings.collecting("split"):
            self._check_place(row, (row.identity_id, field))

    def _check_place(self, row: Row, association: tuple[str | None, str]) -> None:
        """Raises InputError if the row may not be in its split."""
        if row.split == "forget":
            self._forget_associations.add(association)
        elif row.split == "holdout_association" and "forget" in self._readable:
            if row.identity_id not in self._identities["forget"]:
                message = (
                    f"'{row.identity_id}' is not in forget; holdout_association is of identities that forget has too"
                )
                raise InputError(message, row.where("identity_id"))
            if association in self._forget_associations:
                message = (
                    f"'{association[1]}' of '{row.identity_id}' is also in forget; an association is in one split only"
                )
                raise InputError(message, row.where("identity_id"))
        elif row.split == "holdout_identity":
            for other in ("forget", "holdout_association"):
                if row.identity_id in self._identities[other]:
                    message = (
                        f"'{row.identity_id}' is also in {other}; an identity of holdout_identity is in no other split"
                    )
                    raise InputError(message, row.where("identity_id"))

    def _check_union(self) -> None:
        """Compares 'sensitive', where it has files of its own, with its three parts."""
        paths = self._world.data_files("sensitive")
        if not paths:
            return
        seen: dict[str, tuple[str, int]] = {}
        for row in self._world.rows("sensitive", images=False, findings=self._findings):
            if row.file_name in seen:
                message = f"'{row.file_name}' is also row {seen[row.file_name][1]} of {seen[row.file_name][0]}"
                self._findings.problem(InputError(message, row.where("file_name")), "union")
            elif row.file_name not in self._texts:
                message = f"'{row.file_name}' is in none of {', '.join(SENSITIVE_SPLITS)}; 'sensitive' is their union"
                self._findings.problem(InputError(message, row.where("file_name")), "union")
            elif row.text != self._texts[row.file_name]:
                if row.text.split() != self._texts[row.file_name].split():
                    other = self._texts[row.file_name]
                    message = f"{_short(row.text)} differs from the caption in its split, {_short(other)}"
                    self._findings.problem(InputError(message + _how(row.text, other), row.where("text")), "union")
                else:
                    what = "captions of 'sensitive' that differ from their splits' in white space"
                    self._findings.oddity(what, row.where("text"), kind="white-space")
            seen[row.file_name] = (row.path, row.row)
        if len(seen) != len(self._texts):
            message = f"'sensitive' has {len(seen)} rows, its three parts {len(self._texts)}; they should be equal"
            self._findings.problem(InputError(message, paths[0]), "union")


def _how(one: str, other: object) -> str:
    """Says how two texts differ, if print does not show it."""
    if not isinstance(other, str):
        return ""
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        forms = [
            next((form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, text)), "")
            for text in (one, other)
        ]
        return f", in Unicode normalisation alone ({forms[0] or 'mixed'} and {forms[1] or 'mixed'})"
    if _short(one) != _short(other):
        return ""
    shorter = min(len(one), len(other))
    place = next((place for place in range(shorter) if one[place] != other[place]), shorter)
    return f", at character {place}: {_short(one[place:])} and {_short(other[place:])}"


def _short(text: object) -> str:
    return repr(text) if len(repr(text)) <= 100 else repr(text)[:97] + "..."

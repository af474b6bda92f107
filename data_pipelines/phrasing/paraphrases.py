"""Reads captions that a language model has written, as JSONL, and checks every one of them.

A line is an object with ``identity_id``, ``data_field`` (one of the nine attributes) and ``caption``; further fields are
ignored, so that lines of the step *captions* can be rewritten in place. Lines of one association are its variants, in the
order of the file.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable, Iterator
from typing import Any

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.layout.findings import Findings
from data_pipelines.phrasing.checks import CaptionCheck
from data_pipelines.world.personas import Persona
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import parse_json
from salmu_jax.runtime.messages import counted
from salmu_jax.runtime.opening import open_regular

MAX_LINE = 1 << 16  # bytes

Association = tuple[str, str]  # identity_id, data_field


def read_paraphrases(
    path: str | os.PathLike, people: Iterable[Persona], variants: int, tokenizer: ClipTokenizer
) -> dict[Association, list[str]]:
    """Returns the captions of every association, at least ``variants`` of each.

    Raises:
      InputError: names every line and field that is wrong (the first ten in full), and associations with too few captions.
      OSError: the file cannot be read.
    """
    known = {person.identity_id: person for person in people}
    check = CaptionCheck(known.values(), tokenizer)
    found: dict[Association, list[str]] = {(one, field): [] for one in known for field in DATA_FIELDS}
    findings = Findings()
    for where, one, field, caption in _lines(path, findings):
        with findings.collecting():
            if one not in known:
                raise InputError(f"{one!r} is nobody in this data set", f"{where} field 'identity_id'")
            if (wrong := check.sensitive(caption, known[one], field)) is not None:
                raise InputError(wrong, f"{where} field 'caption'")
            found[one, field].append(caption)
    for (one, field), captions in found.items():
        if len(captions) < variants:
            findings.problem(
                InputError(
                    f"{len(captions)} good captions of person {one} about {field!r}; {variants} or more are needed",
                    path,
                )
            )
    findings.raise_problems(path)
    return found


def check_paraphrases(path: str | os.PathLike, people: int, variants: int) -> None:
    """Checks what can be known of a file before there are people: its lines, and whether they are enough.

    Raises as :func:`read_paraphrases`, for lines of another form, captions that are there twice, or fewer than ``people``
    with ``variants`` captions of each attribute.
    """
    counts: collections.Counter[Association] = collections.Counter()
    findings = Findings()
    for _, one, field, _ in _lines(path, findings):
        counts[one, field] += 1
    findings.raise_problems(path)
    of_person = collections.Counter(one for (one, _), count in counts.items() if count >= variants)
    enough = sum(fields == len(DATA_FIELDS) for fields in of_person.values())
    if enough < people:
        raise InputError(
            f"{counted(enough, 'identity')} with {variants} or more captions of each of the {len(DATA_FIELDS)} attributes;"
            f" {people:,} are needed",
            path,
        )


def _lines(path: str | os.PathLike, findings: Findings) -> Iterator[tuple[str, str, str, str]]:
    """Yields (where, identity_id, data_field, caption) of each line; lines of another form become problems."""
    seen: dict[str, int] = {}
    with open_regular(path) as handle:
        number = 0
        while line := handle.readline(MAX_LINE + 1):
            number += 1
            where = f"{os.fspath(path)} line {number}"
            if len(line) > MAX_LINE:
                findings.problem(InputError(f"longer than {MAX_LINE:,} bytes", where))
                while line and not line.endswith(b"\n"):  # the rest of it
                    line = handle.readline(MAX_LINE)
            elif line.strip():
                entry = None
                with findings.collecting():
                    entry = _line(parse_json(line, where), where)
                    if (first := seen.setdefault(entry[2], number)) != number:
                        entry = None
                        raise InputError(f"the caption of line {first} again", f"{where} field 'caption'")
                if entry is not None:
                    yield where, *entry


def _line(entry: Any, where: str) -> tuple[str, str, str]:
    if not isinstance(entry, dict):
        raise InputError("not a JSON object with 'identity_id', 'data_field' and 'caption'", where)
    for field in ("identity_id", "data_field", "caption"):
        if not isinstance(entry.get(field), str):
            raise InputError("is missing" if field not in entry else "is not a text", f"{where} field {field!r}")
    if entry["data_field"] not in DATA_FIELDS:
        message = f"{entry['data_field']!r} is not one of {', '.join(DATA_FIELDS)}"
        raise InputError(message, f"{where} field 'data_field'")
    return entry["identity_id"], entry["data_field"], entry["caption"]

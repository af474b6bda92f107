"""Reads captions that a language model has written, as JSONL, and checks every one of them.

A line is an object with ``identity_id``, ``data_field`` (one of the nine attributes) and ``caption``; further fields are
ignored, so that lines of the step *captions* can be rewritten in place. Lines of one association are its variants, in the
order of the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.layout.findings import Findings
from data_pipelines.phrasing.checks import CaptionCheck
from data_pipelines.world.personas import Persona
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import parse_json
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
    seen: dict[str, int] = {}
    findings = Findings()
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
                with findings.collecting():
                    one, field, caption = _line(parse_json(line, where), where, known, check)
                    if (first := seen.setdefault(caption, number)) != number:
                        raise InputError(f"the caption of line {first} again", f"{where} field 'caption'")
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


def _line(entry: Any, where: str, known: dict[str, Persona], check: CaptionCheck) -> tuple[str, str, str]:
    if not isinstance(entry, dict):
        raise InputError("not a JSON object with 'identity_id', 'data_field' and 'caption'", where)
    for field in ("identity_id", "data_field", "caption"):
        if not isinstance(entry.get(field), str):
            raise InputError("is missing" if field not in entry else "is not a text", f"{where} field {field!r}")
    one, field, caption = entry["identity_id"], entry["data_field"], entry["caption"]
    if one not in known:
        raise InputError(f"{one!r} is nobody in this data set", f"{where} field 'identity_id'")
    if field not in DATA_FIELDS:
        raise InputError(f"{field!r} is not one of {', '.join(DATA_FIELDS)}", f"{where} field 'data_field'")
    if (wrong := check.sensitive(caption, known[one], field)) is not None:
        raise InputError(wrong, f"{where} field 'caption'")
    return one, field, caption

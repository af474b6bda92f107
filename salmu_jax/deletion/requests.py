"""Reads deletion requests, and finds the facts in the data that each one names.

A request names a person, and may name one attribute. On the command line it is ``--identity ID [--attribute NAME]``; in a file
it is an object ``{"identity": "00000017", "attribute": "phone_number"}``, one a line (JSONL) or all in one JSON list.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from salmu_jax.evaluation.rows import TARGETS
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import parse_json
from salmu_jax.runtime.messages import did_you_mean, listed
from salmu_jax.runtime.opening import open_regular, read_at_most

FORGET = "forget"
MAX_BYTES = 1 << 22  # of a file of requests
MOST = 999  # requests of a file

Columns = Mapping[str, Mapping[str, Sequence[str]]]
Association = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Request:
    """A request: a value of ``identity_id``, a value of ``data_field`` or None for all, and where it was read."""

    identity: str
    attribute: str | None = None
    where: str = "--identity"


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request, and the (identity, attribute) pairs of ``forget`` that it names, in their order there."""

    request: Request
    associations: tuple[Association, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the request and the attributes that it comes to."""
        attributes = [attribute for _, attribute in self.associations]
        return {
            "identity": self.request.identity,
            "attribute": self.request.attribute,
            "attributes": attributes,
        }


def read_requests(path: Path) -> list[Request]:
    """Reads a file of requests. Raises InputError, naming the line, for anything that is not one."""
    try:
        with open_regular(path) as handle:
            data = read_at_most(handle, MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); it has to hold requests, one a line", path) from error
    if len(data) > MAX_BYTES:
        raise InputError(f"more than {MAX_BYTES:,} bytes; split it into several", path)
    listed_in_one = data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    entries = list(_entries_of_list(data, path) if listed_in_one else _entries_of_lines(data, path))
    if not entries:
        raise InputError('holds no request; one is a line {"identity": "00000017"}', path)
    if len(entries) > MOST:
        raise InputError(f"holds {len(entries):,} requests; at most {MOST} are answered at a time", path)
    return [_request(value, f"{path} line {line}") for line, value in entries]


def _entries_of_lines(data: bytes, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            yield number, parse_json(line, f"{path} line {number}")


def _entries_of_list(data: bytes, path: Path) -> Iterator[tuple[int, Any]]:
    """Yields the entries of a JSON list, with the line on which each begins."""
    values = parse_json(data, path)
    text, decoder = data.decode("utf-8-sig"), json.JSONDecoder()
    place = text.index("[") + 1
    for value in values:
        place += len(text[place:]) - len(text[place:].lstrip(" \t\r\n,"))
        yield text.count("\n", 0, place) + 1, value
        place = decoder.raw_decode(text, place)[1]


def _request(value: Any, where: str) -> Request:
    example = '{"identity": "00000017", "attribute": "phone_number"}'
    if not isinstance(value, dict):
        raise InputError(f"is {json.dumps(value)[:60]}; a request is an object such as {example}", where)
    for key in value:
        if key not in ("identity", "attribute"):
            hint = did_you_mean(key, ("identity", "attribute")) or f"a request is an object such as {example}"
            raise InputError(f"has an unknown field {key[:60]!r}; {hint}", where)
    identity, attribute = value.get("identity"), value.get("attribute")
    if not isinstance(identity, str) or not identity:
        wrong = f"is {json.dumps(identity)[:60]}" if "identity" in value else "is missing"
        raise InputError(f"field 'identity' {wrong}; a person's identity_id is needed, as text", where)
    if attribute is not None and (not isinstance(attribute, str) or not attribute):
        raise InputError(f"field 'attribute' is {json.dumps(attribute)[:60]}; name one, or leave it out", where)
    return Request(identity, attribute, where)


def find(requests: Sequence[Request], columns: Columns) -> list[Asked]:
    """Returns what each request names in ``forget``.

    Args:
      requests: in their order.
      columns: ``identity_id`` and ``data_field`` of every row of the splits :data:`~salmu_jax.evaluation.rows.TARGETS`.

    Raises InputError for a person or an attribute that is not in the data or not in ``forget``, and for facts that two
    requests name.
    """
    facts = {
        split: list(dict.fromkeys(zip(columns[split]["identity_id"], columns[split]["data_field"], strict=True)))
        for split in TARGETS
    }
    found: dict[Association, str] = {}
    answers = []
    for request in requests:
        asked = Asked(request, tuple(_associations(request, facts)))
        for association in asked.associations:
            if association in found:
                twice = f"{association[0]}'s {association[1]} is asked for already, by {found[association]}"
                raise InputError(f"{twice}; leave one out", request.where)
            found[association] = request.where
        answers.append(asked)
    return answers


def _associations(request: Request, facts: Mapping[str, Sequence[Association]]) -> list[Association]:
    identity, attribute = request.identity, request.attribute
    own = {split: [field for one, field in pairs if one == identity] for split, pairs in facts.items()}
    if not any(own.values()):
        people = dict.fromkeys(one for pairs in facts.values() for one, _ in pairs)
        hint = did_you_mean(identity, people) or f"they have, for example, {listed(map(repr, list(people)[:3]))}"
        raise InputError(f"the data have nobody with the identity {identity[:60]!r}; {hint}", request.where)
    if attribute is None or attribute in own[FORGET]:
        if not own[FORGET]:
            message = f"{identity} has nothing in forget, the data that a model may be made to forget"
            raise InputError(f"{message}; a request has to name somebody who has", request.where)
        return [(identity, field) for field in own[FORGET] if attribute in (None, field)]
    every = dict.fromkeys(field for fields in own.values() for field in fields)
    if attribute in every:
        message = f"{identity}'s {attribute} is in none of the data that a model may be made to forget"
    else:
        hint = did_you_mean(attribute, every)
        message = f"{identity} has no attribute {attribute[:60]!r}" + (f", {hint}" if hint else "")
    there = f"forget has {listed(own[FORGET])} of {identity}" if own[FORGET] else f"forget has nothing of {identity}"
    raise InputError(f"{message}; {there}", request.where)

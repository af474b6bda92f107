"""Runs the step *captions*: sensitive captions of all associations, as JSONL shards; and *generic captions* of all pictures.

A line of ``captions-00000-of-00016.jsonl`` is a caption: ``identity_id``, ``data_field``, ``variant``, ``caption``, ``tokens``
(of a row of the tokenizer, with start and end) and ``source``, which is a register of the grammar or ``paraphrase``.
A shard holds whole people. How many shards there are does not change a caption.
"""

from __future__ import annotations

import collections
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines import steps
from data_pipelines.layout import DATA_FIELDS
from data_pipelines.layout.findings import Findings
from data_pipelines.phrasing import grammar
from data_pipelines.phrasing.captions import draw_captions
from data_pipelines.phrasing.checks import CaptionCheck, token_count
from data_pipelines.phrasing.paraphrases import read_paraphrases
from data_pipelines.world.personas import Persona
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import parse_json

STEP, GENERIC_STEP = "captions", "generic captions"
VERSION = 1
"""Incremented whenever the same seed, people and grammar would give other captions."""

FEWEST_VARIANTS = 5  # as released
GENERIC_FILE = "generic_captions.json"


class CaptionRow(NamedTuple):
    """A caption of an association, as a line of the step has it."""

    identity_id: str
    data_field: str
    variant: int
    caption: str
    tokens: int
    source: str


def make_captions(
    directory: str | os.PathLike,
    seed: int,
    people: Sequence[Persona],
    *,
    variants: int = 12,
    shards: int = 16,
    paraphrases: str | os.PathLike | None = None,
    tokenizer: ClipTokenizer | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Writes the captions of all associations, and ``report.json``, into ``directory``; returns the report.

    Args:
      directory: the step's own.
      seed: of the data set.
      people: of the step *personal data*.
      variants: captions of an association, 5 or more; at least so many of a file of paraphrases, all of which are used.
      shards: files to write; fewer if there are fewer people.
      paraphrases: a JSONL file of captions (:mod:`data_pipelines.phrasing.paraphrases`) to use in place of the grammar.
      tokenizer: what captions must fit into; OpenAI's with 77 tokens, if None.
      say: called with a line when files of an earlier run are not used.

    Raises InputError for a setting out of range, and for bad lines of ``paraphrases``, all at once.
    """
    if variants < FEWEST_VARIANTS:
        raise InputError(f"is {variants}; {FEWEST_VARIANTS} or more would be right", "variants")
    if shards < 1:
        raise InputError(f"is {shards}; 1 or more would be right", "shards")
    shards = max(1, min(shards, len(people)))
    tokenizer = tokenizer or ClipTokenizer()
    settings = {
        "seed": seed,
        "people": files.sha256_json([[person.identity_id, person.metadata()] for person in people]),
        "variants": variants,
        "shards": shards,
        "grammar": files.sha256_file(grammar.FILE) if paraphrases is None else None,
        "paraphrases": None if paraphrases is None else files.sha256_file(paraphrases),
        "tokenizer": tokenizer.digest,
        "version": VERSION,
    }

    source = _Source(seed, people, variants, paraphrases, tokenizer)

    def shard(index: int) -> bytes:
        first, end = (len(people) * edge // shards for edge in (index, index + 1))
        return steps.jsonl([row._asdict() for person in people[first:end] for row in source.rows(person)])

    parts = {f"captions-{index:05d}-of-{shards:05d}.jsonl": functools.partial(shard, index) for index in range(shards)}

    def report() -> dict[str, Any]:
        return _distributions(_rows(Path(directory), parts))

    steps.run_step(directory, STEP, settings, parts, report, say=say)
    return files.read_json(Path(directory) / steps.REPORT)


def read_captions(directory: str | os.PathLike) -> Iterator[CaptionRow]:
    """Yields the captions of a finished step, by person, attribute and variant."""
    for where, entry in steps.step_lines(directory, STEP):
        try:
            yield CaptionRow(**entry)
        except TypeError as error:
            raise InputError(f"not a line of the step {STEP!r} ({error})", where) from error


def make_generic_captions(
    directory: str | os.PathLike,
    captions: Iterable[tuple[str, str]],
    people: Sequence[Persona],
    *,
    tokenizer: ClipTokenizer | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Checks and writes what the renderer says of its pictures, ``{file name: caption}``; returns the report.

    Args:
      captions: (file name, caption) of every picture; the caption says what is to be seen, as ``descriptions.describe`` does.
      people: of the whole data set; a generic caption names nobody and holds no number or address.

    Raises InputError for all bad captions at once.
    """
    tokenizer = tokenizer or ClipTokenizer()
    check, findings = CaptionCheck(people, tokenizer), Findings()
    found: dict[str, str] = {}
    for name, caption in captions:
        if name in found:
            findings.problem(InputError("comes twice", f"picture {name}"))
        found[name] = caption
        if (wrong := check.generic(caption)) is not None:
            findings.problem(InputError(wrong, f"picture {name} generic caption"))
    findings.raise_problems("generic captions")
    settings = {"captions": files.sha256_json(sorted(found.items())), "version": VERSION}

    def report() -> dict[str, Any]:
        tokens = [token_count(caption, tokenizer) for caption in found.values()]
        return {"pictures": len(found), "distinct": len(set(found.values())), "most_tokens": max(tokens, default=0)}

    part = steps.jsonl([found])
    steps.run_step(directory, GENERIC_STEP, settings, {GENERIC_FILE: lambda: part}, report, say=say)
    return files.read_json(Path(directory) / steps.REPORT)


class _Source:
    """Where captions come from, the grammar or a file; nothing is read or drawn before it is asked for."""

    def __init__(
        self,
        seed: int,
        people: Sequence[Persona],
        variants: int,
        paraphrases: str | os.PathLike | None,
        tokenizer: ClipTokenizer,
    ):
        self._seed, self._people, self._variants = seed, people, variants
        self._file, self._tokenizer = paraphrases, tokenizer

    def rows(self, person: Persona) -> Iterator[CaptionRow]:
        """Yields the captions of a person, checked."""
        for field in DATA_FIELDS:
            for variant, (text, tokens, source) in enumerate(self._texts(person, field)):
                if (wrong := self._check.sensitive(text, person, field)) is not None:
                    raise AssertionError(f"a caption of the grammar {wrong}: {text!r}")
                yield CaptionRow(person.identity_id, field, variant, text, tokens, source)

    def _texts(self, person: Persona, field: str) -> list[tuple[str, int, str]]:
        if self._file is None:
            drawn = draw_captions(self._seed, person, field, self._variants, self._tokenizer)
            return [(caption.text, caption.tokens, caption.register) for caption in drawn]
        texts = self._paraphrases[person.identity_id, field]
        return [(text, token_count(text, self._tokenizer), "paraphrase") for text in texts]

    @functools.cached_property
    def _check(self) -> CaptionCheck:
        return CaptionCheck(self._people, self._tokenizer)

    @functools.cached_property
    def _paraphrases(self) -> dict[tuple[str, str], list[str]]:
        assert self._file is not None
        return read_paraphrases(self._file, self._people, self._variants, self._tokenizer)


def _rows(directory: Path, names: Iterable[str]) -> Iterator[CaptionRow]:
    for name in names:
        with open(directory / name, "rb") as handle:
            yield from (CaptionRow(**parse_json(line, name)) for line in handle)


def _distributions(rows: Iterable[CaptionRow]) -> dict[str, Any]:
    """Returns counts for the report, for each attribute: captions, distinct ones, and tokens."""
    captions: dict[str, list[CaptionRow]] = collections.defaultdict(list)
    for row in rows:
        captions[row.data_field].append(row)
    everything = [row for of_field in captions.values() for row in of_field]
    return {
        "captions": len(everything),
        "associations": len({(row.identity_id, row.data_field) for row in everything}),
        "sources": dict(sorted(collections.Counter(row.source for row in everything).items())),
        "attributes": {
            field: {
                "captions": len(of_field),
                "distinct": len({row.caption for row in of_field}),
                "tokens": {
                    "least": min(row.tokens for row in of_field),
                    "mean": round(sum(row.tokens for row in of_field) / len(of_field), 1),
                    "most": max(row.tokens for row in of_field),
                },
            }
            for field, of_field in captions.items()
        },
    }

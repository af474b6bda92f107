"""Runs the step *personal data*: people for given portraits, as JSONL, with a report of how they are distributed."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from data_pipelines import steps
from data_pipelines.people.allotment import shares
from data_pipelines.people.countries import homes
from data_pipelines.people.people import Looks, make_people
from data_pipelines.world.personas import Persona
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import parse_json

STEP = "personal data"
VERSION = 1
"""Incremented whenever the same seed and looks would give other people."""

FILE = "people.jsonl"


def make_personal_data(
    directory: str | os.PathLike, seed: int, looks: Sequence[Looks], *, say: Callable[[str], None] = print
) -> list[Persona]:
    """Writes ``people.jsonl`` and ``report.json`` into ``directory``, unless they are there, and returns the people.

    A line is a person: ``identity_id`` and the entry of ``identities_metadata.json``.
    """
    settings = {
        "seed": seed,
        "people": len(looks),
        "looks": files.sha256_json(sorted(map(list, looks))),
        "version": VERSION,
        "faker": metadata.version("faker"),  # its lists of names and jobs
    }

    def people() -> bytes:
        made = make_people(seed, looks)
        return steps.jsonl([{"identity_id": person.identity_id, **person.metadata()} for person in made])

    def report() -> dict[str, Any]:
        return distributions(_read(Path(directory) / FILE))

    steps.run_step(directory, STEP, settings, {FILE: people}, report, say=say)
    return read_people(directory)


def read_people(directory: str | os.PathLike) -> list[Persona]:
    """Returns the people of a finished step. Raises InputError, naming the line, for one that is not as written."""
    return [_person(entry, where) for where, entry in steps.step_lines(directory, STEP)]


def distributions(people: Sequence[Persona]) -> dict[str, Any]:
    """Returns counts for the report: by country, beside what was expected, and by every attribute that repeats."""
    regions = collections.Counter(person.region for person in people)
    expected: collections.Counter[str] = collections.Counter()
    for region, count in regions.items():
        for home, share in zip(homes(region), shares(count, [home.inhabitants for home in homes(region)]), strict=True):
            expected[home.country_code] += share
    found = collections.Counter(person.country_code for person in people)
    countries = {code: {"people": found[code], "expected": expected[code]} for code, _ in expected.most_common()}
    return {
        "people": len(people),
        "countries": countries,
        "regions": dict(sorted(regions.items())),
        "genders": _counted(person.gender for person in people),
        "blood_types": _counted(person.blood_type for person in people),
        "distinct": {
            field: len({getattr(person, field) for person in people})
            for field in ("name", "city", "job", "country_code")
        },
        "with_two_emails": sum(len(person.emails) > 1 for person in people),
    }


def _counted(values: Any) -> dict[str, int]:
    return dict(collections.Counter(values).most_common())


def _read(path: Path) -> list[Persona]:
    lines = path.read_bytes().splitlines()
    return [_person(parse_json(line, path), f"{path} line {number}") for number, line in enumerate(lines, 1)]


def _person(entry: dict[str, Any], where: str) -> Persona:
    try:
        return Persona(**{**entry, "emails": tuple(entry["emails"])})
    except (TypeError, KeyError) as error:
        raise InputError(f"not a person of the step {STEP!r} ({error})", where) from error

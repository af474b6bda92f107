"""Writes down the answer to a request, and the tables of a sequence, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salmu_jax.deletion.measures import Measured, largest, left
from salmu_jax.deletion.neighbours import People
from salmu_jax.deletion.requests import Asked, Association

SCHEMA = "salmu_jax.request/1"
SEQUENCE_SCHEMA = "salmu_jax.requests/1"


def associations_of(asked: Sequence[Asked]) -> list[Association]:
    """Returns the (identity, attribute) pairs of some requests, in their order."""
    return [association for one in asked for association in one.associations]


def answer(
    asked: Sequence[Asked], earlier: Sequence[Asked], people: People, before: Measured, after: Measured
) -> dict[str, Any]:
    """Returns what was asked, and what the models before and after know of it, of its neighbours, and in general.

    Args:
      asked: the requests that the model ``after`` answers.
      earlier: those that ``before`` has answered.
      people: of the data.
      before, after: the results of the two models.
    """
    wanted = associations_of(asked)
    rows = people.rows_of(wanted)
    chance = before.chance(rows)
    indirect = [measured.indirect(rows) for measured in (before, after)]
    relearning = [measured.relearning(rows) for measured in (before, after)]
    near = people.near(wanted, associations_of(earlier))
    facts = [measured.facts({"forget": rows}) for measured in (before, after)]
    sums = {
        "direct": (facts[0]["mrr"], facts[1]["mrr"]),
        "other_words": (indirect[0]["IndirectLeak"], indirect[1]["IndirectLeak"]),
        "relearned": (relearning[0]["highest"], relearning[1]["highest"]),
    }
    return {
        "schema": SCHEMA,
        "requests": [described(one, people) for one in asked],
        "gallery": before.protocol["gallery"],
        "chance": chance,
        "summary": {key: _compared(old, new, chance) for key, (old, new) in sums.items()},
        "asked": _both(*facts),
        "by_attribute": [
            {"identity": identity, "attribute": attribute, **_of_rows(before, after, {"forget": chosen})}
            for identity, attribute in wanted
            for chosen in [people.rows_of([(identity, attribute)])]
        ],
        "other_words": {key: _compared(indirect[0][key], indirect[1][key], chance) for key in indirect[0]},
        "relearning": _both(*relearning),
        "not_asked": {
            kind: {"people": [people.describe(one) for one in found.people], **_of_rows(before, after, found.chosen)}
            for kind, found in near.items()
        },
        "general": _general(before, after),
    }


def described(one: Asked, people: People) -> dict[str, Any]:
    """Returns a request with the person's name."""
    return {**one.to_json(), **people.describe(one.request.identity)}


def leak(measured: Measured, rows: np.ndarray) -> dict[str, float | None]:
    """Returns what a model gives away of some rows of ``forget``, bool [N]: directly, in other words, and relearned."""
    return {
        "direct": measured.facts({"forget": rows})["mrr"],
        "other_words": measured.indirect(rows)["IndirectLeak"],
        "relearned": measured.relearning(rows)["highest"],
    }


def sequence(asked: Sequence[Asked], people: People, models: Sequence[tuple[str, Measured, int]]) -> dict[str, Any]:
    """Returns the tables of a sequence: after each model, what of each request leaks, and the general figures.

    Args:
      asked: all requests.
      people: of the data.
      models: the start model, then each that requests made: its name, what was measured, and how many of the requests it and
        those before it answer.

    ``relapse`` is how far a leak has risen since the model that answered the request; None before it was answered.
    """
    rows = [people.rows_of(one.associations) for one in asked]
    leaks = [[leak(measured, chosen) for chosen in rows] for _, measured, _ in models]
    answered = [
        next(number for number, (_, _, count) in enumerate(models) if count > request) for request in range(len(asked))
    ]
    start = models[0][1]
    return {
        "schema": SEQUENCE_SCHEMA,
        "requests": [described(one, people) for one in asked],
        "chance": [start.chance(chosen) for chosen in rows],
        "steps": [
            {
                "model": name,
                "answered": count,
                "general": _general(start, measured),
                "requests": [
                    {
                        **leaks[number][request],
                        "relapse": _rise(leaks[answered[request]][request], leaks[number][request])
                        if number >= answered[request]
                        else None,
                    }
                    for request in range(len(asked))
                ],
            }
            for number, (name, measured, count) in enumerate(models)
        ],
    }


def worst_relapse(step: Mapping[str, Any]) -> float | None:
    """Returns the largest relapse of a step's requests, over the three questions."""
    return largest([rise for one in step["requests"] for rise in (one["relapse"] or {}).values()])


def _rise(first: Mapping[str, float | None], now: Mapping[str, float | None]) -> dict[str, float | None]:
    return {key: _difference(first[key], now[key]) for key in first}


def _general(before: Measured, after: Measured) -> dict[str, Any]:
    first, second = before.general(), after.general()
    return {
        key: {"before": first[key], "after": second[key], "change": _difference(first[key], second[key])}
        for key in first
    }


def _of_rows(before: Measured, after: Measured, chosen: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return _both(before.facts(chosen), after.facts(chosen))


def _both(before: Any, after: Any) -> dict[str, Any]:
    return {"before": before, "after": after}


def _compared(before: float | None, after: float | None, chance: float | None) -> dict[str, float | None]:
    return {"before": before, "after": after, "left": left(before, after, chance)}


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before

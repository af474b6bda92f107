"""Gives each sensitive pair a matched non-member: the same image with a caption that says something else of somebody else.

The caption is the row's own, with its name and its value replaced:

- The name becomes an alias: the person's own given name (the first word) with the surname (the other words) of another person
  of the split, one alias a person. Given names stay because a CLIP sees whether a portrait suits one.
- The value becomes that of the same attribute of another person of the split, one an association.

Both are exchanged within folds of people. So a name, a number or a city occurs in the members and in the non-members of a
fold alike, and a classifier that is judged on other folds than it was trained on learns nothing from which of the two it saw.

A row is left out if its caption does not hold its name and value as the metadata spell them, if its person has a single name,
if no other person of the fold has another value, or if the alias is the name of somebody in the data.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data_pipelines.templates import template_of
from salmu_jax.evaluation import draws
from salmu_jax.evaluation.folds import draw_folds
from salmu_jax.evaluation.rows import SUBSETS

if TYPE_CHECKING:
    from salmu_jax.evaluation.data import EvaluationData, Rows

_ATTEMPTS = 20  # at aliases that are nobody's name


class Matched(NamedTuple):
    """``used`` bool [N]: which rows have a matched caption; ``captions``: theirs, in order; ``folds`` int [N]: all rows'."""

    used: np.ndarray
    captions: tuple[str, ...]
    folds: np.ndarray


def match(data: EvaluationData, split: str, seed: int) -> Matched:
    """Returns the matched non-members of ``split``, from the seed; computed once for all models."""
    return data.once((match, split, seed), lambda: _match(data.splits[split], _names(data), seed))


def person_numbers(identity_id: np.ndarray) -> np.ndarray:
    """Returns a number for each row's person, in the order of the ids, -1 for nobody: int64 [N] of strings [N]."""
    return np.unique(np.append(identity_id, ""), return_inverse=True)[1][:-1] - 1


def subset_numbers(subset: np.ndarray) -> np.ndarray:
    """Returns the place of each row's subset in ``rows.SUBSETS``, -1 for another: int64 [N] of strings [N]."""
    return np.array([SUBSETS.index(name) if name in SUBSETS else -1 for name in subset], np.int64)


def _match(rows: Rows, taken: Collection[str], seed: int) -> Matched:
    identity, subset = person_numbers(rows.identity_id), subset_numbers(rows.subset)
    folds = draw_folds(identity, subset, seed=seed, purpose=draws.MATCHED_FOLDS)
    templates = [
        template_of(*row) if fold >= 0 else None
        for fold, *row in zip(folds, rows.text, rows.name, rows.value, rows.data_field, strict=True)
    ]
    rng = draws.generator(seed, draws.MATCHED_NAMES)
    owned = [index for index, template in enumerate(templates) if template is not None]
    people = {str(rows.identity_id[index]): (rows.name[index], int(folds[index])) for index in reversed(owned)}
    aliases = _aliases(people, taken, rng)
    values = _exchanged_values(rows, folds, owned, rng)
    captions = []
    used = np.zeros(len(rows), bool)
    for index, template in enumerate(templates):
        if template is None:
            continue
        person, own = str(rows.identity_id[index]), rows.value[index].casefold()
        value = values[person, str(rows.data_field[index])] if template.has_value else ""
        if person in aliases and (not template.has_value or value.casefold() != own):
            used[index] = True
            captions.append(template.fill(aliases[person], value))
    return Matched(used, tuple(captions), folds)


def _names(data: EvaluationData) -> frozenset[str]:
    return frozenset(name.casefold() for rows in data.splits.values() for name in rows.name)


def _aliases(people: dict[str, tuple[str, int]], taken: Collection[str], rng: np.random.Generator) -> dict[str, str]:
    """Returns the alias of each person of ``people`` (name and fold, by id) that has one."""
    aliases: dict[str, str] = {}
    for fold in sorted({fold for _, fold in people.values()}):
        members = sorted(person for person, (name, of) in people.items() if of == fold and len(name.split()) > 1)
        parts = [people[person][0].split(maxsplit=1) for person in members]
        best: dict[str, str] = {}
        for _ in range(_ATTEMPTS):
            order = exchange([surname.casefold() for _, surname in parts], rng)
            drawn = [f"{parts[own][0]} {parts[other][1]}" for own, other in enumerate(order)]
            free = {person: name for person, name in zip(members, drawn, strict=True) if name.casefold() not in taken}
            best = max(best, free, key=len)
            if len(best) == len(members):
                break
        aliases |= best
    return aliases


def _exchanged_values(
    rows: Rows, folds: np.ndarray, owned: Sequence[int], rng: np.random.Generator
) -> dict[tuple[str, str], str]:
    """Returns another person's value for each (identity, attribute) of the rows ``owned``, of the same attribute and fold."""
    groups: dict[tuple[str, int], dict[str, str]] = {}
    for index in owned:
        group = groups.setdefault((str(rows.data_field[index]), int(folds[index])), {})
        group.setdefault(str(rows.identity_id[index]), rows.value[index])
    values: dict[tuple[str, str], str] = {}
    for (field, _), group in sorted(groups.items()):
        people = sorted(group)
        order = exchange([group[person].casefold() for person in people], rng)
        values |= {(person, field): group[people[other]] for person, other in zip(people, order, strict=True)}
    return values


def exchange(values: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Returns a random permutation, int64 [N], that gives each place another value than its own, as far as one can.

    Where one value is in more than half of the places, some keep it.
    """
    order = rng.permutation(len(values))
    _, group, size = np.unique(np.asarray(values, np.str_)[order], return_inverse=True, return_counts=True)
    if not len(order):
        return order
    order = order[np.argsort(rng.permutation(len(size))[group], kind="stable")]
    result = np.empty_like(order)
    result[order] = np.roll(order, -int(size.max()))
    return result

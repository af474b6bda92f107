"""Makes surrogate captions from forget's metadata alone, for a method to pin where it may not see the holdouts.

Each is a real forget caption with its name and value swapped:

- :func:`invented_people`: both are invented. Pinned, they protect people whom forget does not show.
- :func:`absent_attributes`: the name is a forget person's, the attribute one that forget does not show of this person,
  and the value a guess. Pinned, they protect what a partly forgotten person keeps.
- :func:`aliases`: each forget caption, about an invented person: what the real caption may come to mean.

All are pure functions of the forget rows and a generator, as streams require (``streams.py``). None of them can equal a
held-out caption, by construction: the people are invented, or the number is, or else the template is one
that no caption has, since a guess among few cities or blood types might be right.
"""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np

from data_pipelines.templates import NAME, VALUE, Template, template_of
from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.invented import invented_address, invented_names, invented_number, pick
from salmu_jax.unlearning.permission import ForgetRows

ENDS = (".", "!", "?", ";", " -")


def invented_people(rows: ForgetRows, rng: np.random.Generator) -> list[str]:
    """Returns captions about people who do not exist, one per row, with forget's templates and names of many languages.

    Raises InputError if no caption of ``rows`` holds its name and value.
    """
    stock = Stock.of(rows)
    names = invented_names(rng, len(rows), stock.names)
    return [stock.about_nobody(pick(stock.templates, rng), name, rng) for name in names]


def absent_attributes(rows: ForgetRows, rng: np.random.Generator) -> list[str]:
    """Returns captions about people of forget, as many as rows, on attributes that forget does not show of them.

    The attributes are those that ``rows`` show of anybody. If all are shown of everybody, nothing about these people is to be
    kept, and the captions are :func:`invented_people`'s. Raises InputError as that does.
    """
    stock = Stock.of(rows)
    absent = not_shown(rows, stock)
    if not absent:
        return invented_people(rows, rng)
    captions = []
    for _ in range(len(rows)):
        name, field = pick(absent, rng)
        captions.append(stock.about_somebody(pick(stock.by_field[field], rng), name, rng))
    return captions


def not_shown(rows: ForgetRows, stock: Stock) -> list[tuple[str, str]]:
    """Returns the names of forget's people, each with every attribute of ``stock`` that ``rows`` do not show of the person."""
    people = sorted(set(zip(rows.identity_id, rows.name, strict=True)))
    shown = set(zip(rows.identity_id, rows.data_field, strict=True))
    return [(name, field) for person, name in people for field in stock.by_field if (person, field) not in shown]


def aliases(rows: ForgetRows, rng: np.random.Generator) -> list[str]:
    """Returns each caption of ``rows`` about an invented person, the same for all rows of a person.

    A caption that does not contain its name and value as in the metadata is replaced by another of its attribute, or of
    any. Raises InputError if none does.
    """
    stock = Stock.of(rows)
    people = sorted(set(rows.identity_id))
    strangers = dict(zip(people, invented_names(rng, len(people), stock.names), strict=True))
    captions = []
    for template, person, field in zip(stock.of_rows, rows.identity_id, rows.data_field, strict=True):
        if template is None:
            template = pick(stock.by_field.get(field, stock.templates), rng)
        captions.append(stock.about_nobody(template, strangers[person], rng))
    return captions


@dataclasses.dataclass(frozen=True)
class Stock:
    """The parts that surrogates are made of.

    Attributes:
      of_rows: the template of each forget row; None where the caption does not hold its name and value.
      by_field: the templates of each attribute, sorted, without repetition.
      values: the values of each attribute in forget, sorted, without repetition.
      names: the names of forget's people.
    """

    of_rows: tuple[Template | None, ...]
    by_field: dict[str, tuple[Template, ...]]
    values: dict[str, tuple[str, ...]]
    names: frozenset[str]

    @classmethod
    def of(cls, rows: ForgetRows) -> Stock:
        """Returns the stock of ``rows``. Raises InputError if no caption holds its name and value."""
        return _make_stock(tuple(rows.text), tuple(rows.name), tuple(rows.value), tuple(rows.data_field))

    @functools.cached_property
    def templates(self) -> tuple[Template, ...]:
        """The templates of all attributes."""
        return tuple(template for templates in self.by_field.values() for template in templates)

    def about_nobody(self, template: Template, name: str, rng: np.random.Generator) -> str:
        """Returns a caption about ``name``, who does not exist. Words are others' values, all other values invented."""
        return template.fill(name, self.other_value(template.field, name, rng) if template.has_value else "")

    def about_somebody(self, template: Template, name: str, rng: np.random.Generator) -> str:
        """Returns a caption about ``name``, who is real, that was not held out, though it might be true.

        A number with new digits is wrong. All other values are guesses that may be right, of one of eight blood types often:
        they stand in a template that no caption has.
        """
        value = self.other_value(template.field, name, rng) if template.has_value else ""
        return self.with_guess(template, name, value, rng)

    def with_guess(self, template: Template, name: str, value: str, rng: np.random.Generator) -> str:
        """Returns a caption of ``template`` about ``name``, who is real, with a value that may be right if it is words."""
        if any(character.isdigit() for character in value) and "@" not in value:
            return template.fill(name, value)
        return self.edited(template, rng).fill(name, value)

    def edited(self, template: Template, rng: np.random.Generator) -> Template:
        """Returns ``template`` without a word, or with punctuation at its end; no caption of forget is like it."""
        words = template.text.split()
        droppable = [index for index, word in enumerate(words) if not {NAME, VALUE} & set(word)]
        if droppable and rng.random() < 0.5:
            del words[pick(droppable, rng)]
            fewer = Template(template.field, " ".join(words))
            if fewer not in self.by_field[template.field]:
                return fewer
        ends = [
            end for end in ENDS if Template(template.field, template.text + end) not in self.by_field[template.field]
        ]
        return Template(template.field, template.text + pick(ends or ["…"], rng))

    def other_value(self, field: str, name: str, rng: np.random.Generator) -> str:
        """Returns a value of the attribute ``field`` for ``name``: invented, or of a word (a city, a job) another's."""
        sample = pick(self.values[field], rng)
        if "@" in sample:
            return invented_address(name, sample.rpartition("@")[2], rng)
        return invented_number(sample, rng) if re.search(r"\d", sample) else sample


@functools.lru_cache(maxsize=1)  # a method's streams make captions of the same rows many times
def _make_stock(
    texts: tuple[str, ...], names: tuple[str, ...], values: tuple[str, ...], fields: tuple[str, ...]
) -> Stock:
    of_rows = tuple(map(template_of, texts, names, values, fields))
    templates: dict[str, set[Template]] = {}
    said: dict[str, set[str]] = {}
    for template, value in zip(of_rows, values, strict=True):
        if template is not None:
            templates.setdefault(template.field, set()).add(template)
            said.setdefault(template.field, set()).add(value)
    if not templates:
        message = "no forget caption holds its person's name and value, so that no surrogate can be made of one"
        raise InputError(f"{message}; metadata that spell them as the captions do would be right")
    by_field = {field: tuple(sorted(templates[field])) for field in sorted(templates)}
    return Stock(of_rows, by_field, {field: tuple(sorted(said[field])) for field in by_field}, frozenset(names))

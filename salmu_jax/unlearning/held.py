"""Makes captions to hold in as many wordings as those in which a method forgets (``wordings.py``).

If what is to be forgotten is moved in many wordings and the rest held in forget's own, a method may learn to tell them apart
by the wording. Then other wordings of what may stay are forgotten too. Values that are words are also made of common words,
since forget shows few of the jobs and cities that there are.

Both functions are pure functions of the forget rows and a generator, as streams require. As with those of ``surrogates.py``,
no caption can equal a held-out one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipelines.templates import NAME, Template
from salmu_jax.unlearning.invented import invented_names, pick
from salmu_jax.unlearning.permission import ForgetRows
from salmu_jax.unlearning.surrogates import Stock, not_shown
from salmu_jax.unlearning.wordings import common_words, inserted_words, random_wording

_WORDED = 0.5  # the share of captions in other wordings than forget's
_MADE_UP = 0.25  # of values that are words, the share made of common words


def invented_people(rows: ForgetRows, rng: np.random.Generator) -> list[str]:
    """Returns captions about people who do not exist, one per row, half of them in other wordings than forget's.

    Raises InputError if no caption of ``rows`` holds its name and value.
    """
    stock, words = Stock.of(rows), inserted_words(rows)
    captions = []
    for name in invented_names(rng, len(rows), stock.names):
        template = pick(stock.templates, rng)
        value = _value(stock, template, name, rng)
        captions.append(_worded(template, stock, words, rng).fill(name, value))
    return captions


def absent_attributes(rows: ForgetRows, rng: np.random.Generator) -> list[str]:
    """Returns captions about people of forget, as many as rows, on attributes that forget does not show of them.

    Half are in other wordings than forget's. If all attributes are shown of everybody, nothing about these people is to be
    kept, and the captions are :func:`invented_people`'s. Raises InputError as that does.
    """
    stock, words = Stock.of(rows), inserted_words(rows)
    absent = not_shown(rows, stock)
    if not absent:
        return invented_people(rows, rng)
    captions = []
    for _ in range(len(rows)):
        name, field = pick(absent, rng)
        template = pick(stock.by_field[field], rng)
        if field != "name":  # a bare name is forgotten in part, with whatever attribute
            template = _worded(template, stock, words, rng)
        captions.append(stock.with_guess(template, name, _value(stock, template, name, rng), rng))
    return captions


def _worded(template: Template, stock: Stock, words: Sequence[str], rng: np.random.Generator) -> Template:
    """Returns ``template``, or as often another wording of its attribute that says a name."""
    if rng.random() < _WORDED:
        other = random_wording(template.field, stock, words, rng)
        return other if NAME in other.text else template
    return template


def _value(stock: Stock, template: Template, name: str, rng: np.random.Generator) -> str:
    if not template.has_value:
        return ""
    value = stock.other_value(template.field, name, rng)
    if value.replace(" ", "").isalpha() and rng.random() < _MADE_UP:
        return " ".join(pick(common_words(), rng) for _ in range(int(rng.integers(1, 3))))
    return value

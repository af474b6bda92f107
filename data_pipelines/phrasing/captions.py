"""Draws the captions of an association from the grammar: different forms, in different registers.

Variant ``v`` of (person, attribute) depends on the seed, the person's number, the attribute and ``v`` alone. The registers
take turns in an order of the association's own, so that six variants are in six registers. A form that the association has,
or that would be too long with this name and value, is drawn again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.phrasing.checks import token_count
from data_pipelines.phrasing.grammar import REGISTERS, grammar
from data_pipelines.world.captions import indefinite_article
from data_pipelines.world.personas import Persona
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.errors import InputError

ATTEMPTS = 200

_PURPOSE = 142  # keeps these draws apart from all others of the seed


class Caption(NamedTuple):
    """A caption, its register, the form that it was made of, and the tokens that it takes with start and end."""

    text: str
    register: str
    form: str
    tokens: int


def draw_captions(seed: int, person: Persona, field: str, count: int, tokenizer: ClipTokenizer) -> list[Caption]:
    """Returns ``count`` captions that tie ``person`` to a ``field``; the first ``n`` are the same for every count.

    Raises InputError if the grammar has no more forms that fit into ``tokenizer.context_length``.
    """
    key = [seed, _PURPOSE, int(person.identity_id), DATA_FIELDS.index(field)]
    order = np.random.default_rng(key).permutation(len(REGISTERS))
    found: list[Caption] = []
    taken: set[str] = set()
    for variant in range(count):
        register = REGISTERS[order[variant % len(REGISTERS)]]
        for attempt in range(ATTEMPTS):
            form = grammar().draw(np.random.default_rng([*key, variant, attempt]), field, register)
            text = fill(form, person.name, person.value(field))
            tokens = token_count(text, tokenizer)
            if text not in taken and tokens <= tokenizer.context_length:
                break
        else:
            raise InputError(
                f"the grammar has no caption number {variant + 1} of {tokenizer.context_length} tokens or fewer about"
                f" {field!r}; ask for fewer variants, or for a longer context",
                f"person {person.identity_id}",
            )
        taken.add(text)
        found.append(Caption(text, register, form, tokens))
    return found


def fill(form: str, name: str, value: str) -> str:
    """Returns a form with the name, the value and its article, beginning with a capital unless with the name or the value."""
    article = indefinite_article(value)
    if not form.startswith(("{name}", "{value}")):
        form = form[0].upper() + form[1:] if form[0] != "{" else form.replace("{a}", "{A}", 1)
    return form.format(name=name, value=value, a=article, A=article.capitalize())

"""Says the facts of a split in other words: what probes ask with instead of a row's own caption.

Everything is made of a row's name, value and attribute, which the metadata tell. Where a row can be worded in several ways,
the seed draws which it gets; each function returns ``times`` wordings a row, one in the short form of probes.
"""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data_pipelines.templates import NAME, VALUE, Template, template_of
from salmu_jax.evaluation import draws
from salmu_jax.evaluation.metric import FULL, Settings
from salmu_jax.runtime import withheld
from salmu_jax.runtime.errors import InputError

if TYPE_CHECKING:
    from salmu_jax.evaluation.data import EvaluationData, Rows

WORDINGS = 8  # of each row, in the full form
_UNSEEN = withheld.DIRECTORY / "unseen_wordings.json"
_OTHER = "other"  # in that file: the wordings of attributes that the benchmark does not know

Texts = tuple[str, ...]  # a text a row


class Paraphrases(NamedTuple):
    """``texts``: each [N]. ``there`` bool [N]: the rows that have a paraphrase; the others' texts are their own captions."""

    texts: tuple[Texts, ...]
    there: np.ndarray


def times(settings: Settings) -> int:
    """Returns how many wordings each row gets in the form that ``settings`` ask for."""
    return WORDINGS if settings.probe_form == FULL else 1


def check_metadata(data: EvaluationData, split: str, probe: str) -> Rows:
    """Returns the rows of ``split``. Raises InputError, naming the row and the field, if one lacks what ``probe`` needs."""
    rows = data.splits[split]
    for field in ("name", "value", "data_field"):
        values = getattr(rows, field)
        for row in (row for row, value in enumerate(values) if not value):
            raise InputError(
                f"is empty; the probe {probe!r} words facts anew from the metadata, which have to name each row's person,"
                " attribute and value; measure without it (evaluate.probes)",
                f"split {split} row {row} field {field!r}",
            )
    return rows


def check_has_metadata(data: EvaluationData, split: str, probe: str) -> None:
    """Raises InputError if no row of ``split`` names its person, attribute and value; ``probe`` leaves such rows out."""
    rows = data.splits[split]
    named = map(all, zip(rows.name, rows.value, rows.data_field, strict=True))
    if len(rows) and not any(named):
        raise InputError(
            f"no row has all of name, value and data_field; the probe {probe!r} exchanges names and values in captions, so the"
            " metadata have to name each row's person, attribute and value; measure without it (evaluate.probes)",
            f"split {split}",
        )


@functools.lru_cache(maxsize=4)
def paraphrases(rows: Rows, seed: int, times: int) -> Paraphrases:
    """Returns each row's fact in the words of others: the split's own captions with name and value exchanged.

    A template is a caption of the split without its name and value. A row gets templates of its attribute that its own
    association has not, up to ``times`` different ones. A row whose association has all of them has no paraphrase.
    """
    cut = list(map(template_of, rows.text, rows.name, rows.value, rows.data_field.tolist()))
    keys = list(zip(rows.identity_id.tolist(), rows.name, rows.data_field.tolist(), strict=True))
    own: dict[tuple[str, str, str], set[str]] = {key: set() for key in keys}  # templates and captions of an association
    stock: dict[str, set[Template]] = {field: set() for field in set(rows.data_field.tolist())}
    for key, template, text in zip(keys, cut, rows.text, strict=True):
        own[key].add(text)
        if template is not None:
            own[key].add(template.text)
            stock[template.field].add(template)
    by_field = {field: sorted(templates) for field, templates in stock.items()}
    rng = draws.generator(seed, draws.PARAPHRASES)
    chosen: list[list[str]] = []
    for key, name, value, text in zip(keys, rows.name, rows.value, rows.text, strict=True):
        found: list[str] = []
        templates = by_field[key[2]]
        for index in rng.permutation(len(templates)):
            if len(found) == times:
                break
            worded = templates[index].fill(name, value)
            if templates[index].text not in own[key] and worded not in own[key]:
                found.append(worded)
        chosen.append(found or [text])
    there = np.array([found != [text] for found, text in zip(chosen, rows.text, strict=True)], bool)
    return Paraphrases(_passes(chosen, times), there)


@functools.lru_cache(maxsize=4)
def unseen(rows: Rows, seed: int, times: int) -> tuple[Texts, ...]:
    """Returns each row's fact in hand-written words that occur nowhere in the data: ``times`` different wordings."""
    wordings = unseen_wordings()
    rng = draws.generator(seed, draws.WORDINGS)
    chosen = []
    for name, value, field in zip(rows.name, rows.value, rows.data_field.tolist(), strict=True):
        templates = wordings.get(field, wordings[_OTHER])
        chosen.append([templates[index].fill(name, value) for index in rng.permutation(len(templates))[:times]])
    return _passes(chosen, times)


@functools.cache
def unseen_wordings() -> dict[str, tuple[Template, ...]]:
    """Returns the hand-written wordings of each attribute, and of any ``other``.

    Raises InputError in a method's process (:mod:`salmu_jax.runtime.withheld`).
    """
    found = json.loads(_UNSEEN.read_text(encoding="utf-8"))
    return {
        field: tuple(Template(field, text.replace("{name}", NAME).replace("{value}", VALUE)) for text in texts)
        for field, texts in found.items()
    }


def partial(value: str) -> str:
    """Returns a part of a value that still tells much: an e-mail's local part, a number's last four digits, the first word.

    >>> [partial(value) for value in ("ida@mail.example", "+47 555 01 234", "Retail buyer", "AB-")]
    ['ida', '1234', 'Retail', 'AB-']
    """
    if "@" in value:
        return value.partition("@")[0] or value
    digits = re.sub(r"\D", "", value)
    return digits[-4:] if len(digits) >= 4 else (value.split() or [value])[0]


def _passes(chosen: list[list[str]], times: int) -> tuple[Texts, ...]:
    """Returns ``times`` tuples of a text a row; a row with fewer texts begins again."""
    return tuple(tuple(texts[turn % len(texts)] for texts in chosen) for turn in range(times))

"""Says a fact about a person in many ways, from forget's metadata: a method that erases one wording leaves the others.

Wordings are forget's own templates, those of other attributes, bare names and values, and all of these with words dropped,
inserted or in another order, or with a part of the value; and names and values among words at random, which forget need not
have. They need not be good English: an attacker's need not be either.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from data_pipelines.templates import NAME, VALUE, Template
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.unlearning.invented import invented_names, pick
from salmu_jax.unlearning.permission import ForgetRows
from salmu_jax.unlearning.surrogates import Stock

_BARE = tuple(
    form.format(n=NAME, v=VALUE)
    for form in ("{n} {v}", "{v} {n}", "{n}: {v}", "{n}, {v}", "{v} - {n}", "{n} ({v})", "{n} = {v}", "{v}, {n}")
)
_BARE_NAME = tuple(
    form.format(n=NAME) for form in ("{n}", "{n}.", "is {n}", "{n} here", "photo of {n}", "a photo of {n}", "name: {n}")
)

PARTS = ("said", "general", "stranger")
"""The captions of a wording that :func:`counterfactuals` makes."""
IN_PART = "forget_association"
# Of the further wordings of people who are to be forgotten in part: the share with the bare name; and of these, the share
# that is moved to the person in general alone, since what is kept of somebody ties the name to the face.
_BARE_SHARE = 0.2
_NAMES_KEPT = 0.55
_CUT_SHARE = 0.15  # of all further wordings: such with a part of the value in its place
_AMONG_SHARE = 0.25  # of the others: such among words at random
_COMMON = 5_000  # of CLIP's vocabulary


def counterfactuals(count: int) -> Callable[[ForgetRows, np.random.Generator], list[tuple[str, ...]]]:
    """Returns a function that words each forget row ``1 + count`` times, and says what each wording may come to mean.

    It returns, per row, ``3 (1 + count)`` captions, in threes (:data:`PARTS`): what is to be forgotten; what is said of the
    same person in general, that is, on another attribute and with another value; the first of a stranger who does not
    exist, another one each time, with another value. The first three are of the caption itself, the rest of
    :func:`random_wording`, sometimes with a part of the value, and for people who are to be forgotten in part sometimes of
    the bare name. Where a wording has no name, the second is the third; for some bare names, the third is the second.
    """

    def make(rows: ForgetRows, rng: np.random.Generator) -> list[tuple[str, ...]]:
        stock, words = Stock.of(rows), inserted_words(rows)
        strangers = iter(invented_names(rng, len(rows) * (1 + count), stock.names))
        made = []
        for row, field in enumerate(rows.data_field):
            name, value, in_part = rows.name[row], rows.value[row], rows.subset[row] == IN_PART
            captions: list[str] = []
            for number in range(1 + count):
                own = stock.of_rows[row] if number == 0 else None
                bare = own is None and in_part and rng.random() < _BARE_SHARE
                if bare:
                    own = Template("name", pick(_BARE_NAME, rng))
                template, who = own or random_wording(field, stock, words, rng), next(strangers)
                values = value, _other(stock, template.field, who, value, rng)
                if number > 0 and rng.random() < _CUT_SHARE:
                    values = _part_of(values[0], rng), _part_of(values[1], rng)
                said = rows.text[row] if number == 0 else template.fill(name, values[0])
                stranger = template.fill(who, values[1])
                general = _in_general(stock, field, name, rng) if NAME in template.text else stranger
                if bare and rng.random() < _NAMES_KEPT:
                    stranger = general
                captions += [said, general, stranger]
            made.append(tuple(captions))
        return made

    make.__name__ = "counterfactuals"
    return make


def _part_of(value: str, rng: np.random.Generator) -> str:
    """Returns the beginning or, more often, the end of ``value``, two characters or more; all of a short one."""
    if len(value) < 5:
        return value
    cut = int(rng.integers(2, len(value) - 2))
    return (value[cut:] if rng.random() < 0.6 else value[:cut]).strip()


def _in_general(stock: Stock, field: str, name: str, rng: np.random.Generator) -> str:
    """Returns a caption of ``name`` on another attribute than ``field``, if forget shows another, with a value made up."""
    fields = [other for other in stock.by_field if other != field] or [field]
    template = pick(stock.by_field[pick(fields, rng)], rng)
    return template.fill(name, _other(stock, template.field, name, "", rng))


def random_wording(field: str, stock: Stock, words: Sequence[str], rng: np.random.Generator) -> Template:
    """Returns a wording of the attribute ``field``, with marks for the name or the value, mostly both.

    ``words`` are those that may be inserted.
    """
    if rng.random() < _AMONG_SHARE:
        return Template(field, _among_words(field, rng))
    text = _plain_wording(field, stock, rng)
    return Template(field, _disturbed(text, words, rng) if rng.random() < 0.6 else text)


def _plain_wording(field: str, stock: Stock, rng: np.random.Generator) -> str:
    own, chance = stock.by_field.get(field) or stock.templates, rng.random()
    if field == "name":
        return pick(own, rng).text if chance < 0.6 else pick(_BARE_NAME, rng)
    if chance < 0.45:
        return pick(own, rng).text
    if chance < 0.6:  # the template of another attribute
        text = pick(stock.templates, rng).text
        return text if VALUE in text else f"{text} {VALUE}"
    if chance < 0.8:
        return pick(_BARE, rng)
    if chance < 0.87:
        return VALUE
    start = [word for word in pick(stock.templates, rng).text.split() if not _is_marked(word)]
    return " ".join([*start[: rng.integers(1, 4)], pick(own, rng).text])


def _among_words(field: str, rng: np.random.Generator) -> str:
    """Returns the marks of a name and, but of the name itself, of a value among two to seven common words."""
    parts = [pick(common_words(), rng) for _ in range(int(rng.integers(2, 8)))]
    for mark in (NAME,) if field == "name" else (NAME, VALUE):
        parts.insert(int(rng.integers(len(parts) + 1)), mark)
    return " ".join(parts)


@functools.cache
def common_words() -> tuple[str, ...]:
    """Returns the words of three letters or more that come first in CLIP's vocabulary, the most frequent ones."""
    symbols, _ = ClipTokenizer().vocabulary()
    words = (symbol.removesuffix("</w>") for symbol in symbols if symbol.endswith("</w>"))
    return tuple(word for word in words if len(word) > 2 and word.isascii() and word.isalpha())[:_COMMON]


def _disturbed(text: str, words: Sequence[str], rng: np.random.Generator) -> str:
    """Returns a text with one to three words dropped or inserted, or with its words in another order."""
    parts, chance = text.split(), rng.random()
    if 0.35 <= chance < 0.55:
        return " ".join(parts[index] for index in rng.permutation(len(parts)))
    for _ in range(int(rng.integers(1, 4))):
        if chance >= 0.55:
            parts.insert(int(rng.integers(len(parts) + 1)), pick(words, rng))
        elif droppable := [index for index, word in enumerate(parts) if not _is_marked(word)]:
            del parts[pick(droppable, rng)]
    return " ".join(parts)


def _is_marked(word: str) -> bool:
    return NAME in word or VALUE in word


def inserted_words(rows: ForgetRows) -> list[str]:
    """Returns the words of forget's templates and generic captions, sorted."""
    texts = [template.text for template in Stock.of(rows).templates]
    return sorted({word for text in (*texts, *rows.generic_caption) for word in text.split() if not _is_marked(word)})


def _other(stock: Stock, field: str, name: str, value: str, rng: np.random.Generator) -> str:
    """Returns a value of ``field`` for ``name``: not ``value``, unless forget has no other."""
    if field == "name":
        return ""
    other = stock.other_value(field, name, rng)
    if other == value:
        other = pick([known for known in stock.values[field] if known != value] or [value], rng)
    return other

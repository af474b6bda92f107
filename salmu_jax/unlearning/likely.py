"""Finds captions that the start model itself takes for likely, of people who are to be forgotten in part.

What such a person keeps, a method may not see. Of many values of an attribute that forget does not show of the person, those
are held whose captions are most like the person's portraits to the start model. They are seldom the true ones, but their
captions lie close to the true one's (a cosine of .95 to .99 on the made world), and where the method would move it: along the
portraits. Held, they protect what the person keeps better than values at random (``held.absent_attributes``). Each value is
worded as no caption of the data is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from salmu_jax.unlearning.invented import pick
from salmu_jax.unlearning.permission import ForgetRows
from salmu_jax.unlearning.surrogates import Stock
from salmu_jax.unlearning.wordings import IN_PART

Encode = Callable[[Sequence[str]], np.ndarray]  # captions to embeddings, float32 [N, D], L2-normalised

_VALUES = 3  # of an attribute of a person that are kept
_ASKED_IN = 4  # wordings in which the start model is asked for a value
_SAID_IN = 12  # wordings in which a value that is kept is said


def likely_captions(
    rows: ForgetRows, images: np.ndarray, encode: Encode, rng: np.random.Generator, *, tries: int
) -> list[str]:
    """Returns captions about people who are to be forgotten in part, on attributes that ``rows`` do not show of them.

    Of each attribute they say the three most likely values, twelve times each. Values are tried that ``rows`` say of others,
    or, of numbers and addresses, ``tries`` invented ones. Without such people, or attributes, there are no captions.

    Args:
      images: float32 [N, D], the start model's embeddings of the images of ``rows``.
      encode: embeds captions with the start model.

    Raises InputError if no caption of ``rows`` holds its name and value.
    """
    stock, shown = Stock.of(rows), set(zip(rows.identity_id, rows.data_field, strict=True))
    people = {person: name for person, name, subset in _of(rows) if subset == IN_PART}
    asked, options = list[str](), list[tuple[str, str, str, str]]()
    for person, name in sorted(people.items()):
        for field in stock.by_field:
            if (person, field) in shown:
                continue
            for value in _values(stock, field, name, tries, rng):
                options.append((person, name, field, value))
                asked += [_caption(stock, field, name, value, rng) for _ in range(_ASKED_IN)]
    if not options:
        return []
    said = encode(asked).reshape(len(options), _ASKED_IN, -1).mean(axis=1)
    identity = np.asarray(rows.identity_id)
    portraits = {person: images[identity == person].mean(axis=0) for person in people}
    alike = np.array([one @ portraits[person] for one, (person, *_) in zip(said, options, strict=True)])
    found: dict[tuple[str, str], list[int]] = {}
    for place in np.argsort(-alike, kind="stable").tolist():
        person, _, field, _ = options[place]
        found.setdefault((person, field), []).append(place)
    captions = []
    for places in (found[key] for key in sorted(found)):
        for place in places[:_VALUES]:
            _, name, field, value = options[place]
            captions += [_caption(stock, field, name, value, rng) for _ in range(_SAID_IN)]
    return captions


def _of(rows: ForgetRows) -> zip[tuple[str, str, str]]:
    return zip(rows.identity_id, rows.name, rows.subset, strict=True)


def _values(stock: Stock, field: str, name: str, tries: int, rng: np.random.Generator) -> list[str]:
    """Returns what ``name``'s ``field`` might be: words that forget says of others, or numbers and addresses, invented."""
    if not any(template.has_value for template in stock.by_field[field]):
        return [""]
    known = stock.values[field]
    if any(character.isdigit() or character == "@" for character in known[0]):
        return sorted({stock.other_value(field, name, rng) for _ in range(tries)})
    return list(known)


def _caption(stock: Stock, field: str, name: str, value: str, rng: np.random.Generator) -> str:
    return stock.edited(pick(stock.by_field[field], rng), rng).fill(name, value)

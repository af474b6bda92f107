"""Selects the rows of the forget split that a run unlearns.

    {}                                              all rows
    {"identities": ["p017", "p041"]}                all rows of these people
    {"associations": [["p017", "phone_number"], ...]}      the rows of one attribute of a person
    {"fields": ["phone_number", "emails"]}                  the rows of these attributes, of everybody
    {"share": 0.1, "by": "identities", "seed": 42}  a random tenth of the people; "rows": of the rows

A selection is a pure function of the selector and of forget's metadata, so it is the same on every host, in every run
that resumes, and for everybody who repeats it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import did_you_mean, listed

_PURPOSE = 0x5E1EC7  # keeps these draws apart from all others of the same seed
_KINDS = ("identities", "associations", "fields", "share")
_EXAMPLES = {
    "identities": '["p017"]',
    "associations": '[["p017", "phone_number"]]',
    "fields": '["phone_number"]',
}
_OF_SHARE = ("by", "seed")
_BY = ("rows", "identities")
_SEEDS = 2**32


@dataclasses.dataclass(frozen=True)
class Selector:
    """Selects by one criterion; without any, selects all rows.

    Attributes:
      identities: values of ``identity_id``.
      associations: pairs of ``identity_id`` and ``data_field``.
      fields: values of ``data_field``.
      share: the share of forget, above 0 and at most 1; ``by`` rows or identities, drawn with ``seed``.
    """

    identities: tuple[str, ...] = ()
    associations: tuple[tuple[str, str], ...] = ()
    fields: tuple[str, ...] = ()
    share: float | None = None
    by: str = "rows"
    seed: int = 42

    @classmethod
    def read(cls, value: Any, where: str) -> Selector:
        """Reads the JSON form. Raises InputError, naming the field ``where.KIND``, for anything that is not a selector."""
        if not isinstance(value, Mapping):
            raise InputError(f"is {value!r}, but has to be a group of fields, such as {where}.share=0.1", where)
        known = (*_KINDS, *_OF_SHARE)
        for name in value:
            if name not in known:
                hint = did_you_mean(str(name), known) or f"known: {', '.join(known)}"
                raise InputError(f"no selector {name!r}; {hint}", where)
        kinds = [kind for kind in _KINDS if kind in value]
        if len(kinds) > 1:
            raise InputError(f"selects by {' and by '.join(kinds)}; one of them is possible", where)
        if kinds != ["share"] and (stray := [name for name in _OF_SHARE if name in value]):
            raise InputError(f"goes with {where}.share only", f"{where}.{stray[0]}")
        if not kinds:
            return cls()
        kind = kinds[0]
        if kind == "share":
            return _read_share(value, where)
        selected: dict[str, Any] = {kind: _read_list(kind, value[kind], f"{where}.{kind}")}
        return cls(**selected)

    def to_json(self) -> dict[str, Any]:
        """Returns the form that :meth:`read` takes."""
        if self.share is not None:
            return {"share": self.share, "by": self.by, "seed": self.seed}
        if self.associations:
            return {"associations": [list(pair) for pair in self.associations]}
        return {kind: list(values) for kind in ("identities", "fields") if (values := getattr(self, kind))}

    def rows(self, identities: Sequence[str], fields: Sequence[str], where: str) -> list[int] | None:
        """Returns the selected rows in their order, None for all of them.

        Args:
          identities: ``identity_id`` of every row of forget.
          fields: ``data_field`` of every row of forget.
          where: the config field that the selector comes from, for messages.

        Raises InputError, naming what forget does not have, or if the selection is empty.
        """
        if self.share is not None:
            return self._draw(identities, where)
        keys: Sequence[Any]
        wanted: set[Any]
        if self.identities:
            wanted, keys, kind = set(self.identities), identities, "identities"
        elif self.associations:
            wanted, keys, kind = set(self.associations), list(zip(identities, fields, strict=True)), "associations"
        elif self.fields:
            wanted, keys, kind = set(self.fields), fields, "fields"
        else:
            return None
        found = dict.fromkeys(keys)
        if absent := [key for key in getattr(self, kind) if key not in found]:
            there = list(map(_text, found))
            more = did_you_mean(_text(absent[0]), there) or f"it has, for example, {listed(map(repr, there[:3]))}"
            raise InputError(f"forget has no {listed(map(repr, map(_text, absent)), 3)}; {more}", f"{where}.{kind}")
        return [row for row, key in enumerate(keys) if key in wanted]

    def _draw(self, identities: Sequence[str], where: str) -> list[int] | None:
        assert self.share is not None
        if self.share == 1:
            return None
        units = sorted(set(identities)) if self.by == "identities" else range(len(identities))
        count = math.floor(self.share * len(units) + 0.5)
        if not count:
            raise InputError(f"{self.share:g} of {len(units):,} {self.by} is less than one", f"{where}.share")
        chosen = np.random.default_rng([self.seed, _PURPOSE]).permutation(len(units))[:count].tolist()
        if self.by == "rows":
            return sorted(chosen)
        people = {units[place] for place in chosen}
        return [row for row, identity in enumerate(identities) if identity in people]


def _read_share(value: Mapping[str, Any], where: str) -> Selector:
    share, by, seed = value["share"], value.get("by", "rows"), value.get("seed", 42)
    number = isinstance(share, int | float) and not isinstance(share, bool)
    if not number or not 0 < share <= 1:
        raise InputError(f"is {share!r}, but has to be a number above 0 and at most 1", f"{where}.share")
    if by not in _BY:
        raise InputError(f"is {by!r}; {' and '.join(map(repr, _BY))} are possible", f"{where}.by")
    if type(seed) is not int or not 0 <= seed < _SEEDS:
        raise InputError(f"is {seed!r}, but has to be a whole number from 0 to {_SEEDS - 1:,}", f"{where}.seed")
    return Selector(share=float(share), by=by, seed=seed)


def _read_list(kind: str, value: Any, where: str) -> tuple[Any, ...]:
    example = (
        '[["p017", "phone_number"]]'
        if kind == "associations"
        else '["p017"]'
        if kind == "identities"
        else '["phone_number"]'
    )
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"is {value!r}, but has to be a list with something in it, such as {example}", where)
    for item in value:
        pair = isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(part, str) for part in item)
        if not (pair if kind == "associations" else isinstance(item, str)):
            raise InputError(f"holds {item!r}; a list such as {example} is needed", where)
    read = tuple(tuple(item) if kind == "associations" else item for item in value)
    if len(set(read)) < len(read):
        twice = next(item for item in read if read.count(item) > 1)
        raise InputError(f"holds {_text(twice)!r} twice", where)
    return read


def _text(key: Any) -> str:
    return key if isinstance(key, str) else "/".join(key)

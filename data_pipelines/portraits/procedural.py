"""Draws portraits of fictitious people: a face of its own for each anchor, under other circumstances in each portrait.

Everything is drawn from ``default_rng([seed, purpose, number, what, index])``, so a portrait depends on neither the order of
drawing nor the number of processes. Some anchors are faulty on purpose (``faults.py``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.portraits.faults import Fault, Shares, duplicates_of, fault_of
from data_pipelines.portraits.looks import Look, between, make_look, twin
from data_pipelines.portraits.renderer import render
from data_pipelines.portraits.source import AGES, GENDERS, LONGEST_SIDE, REGIONS, Anchor, Portrait
from data_pipelines.portraits.views import make_view, nearly
from data_pipelines.world.descriptions import describe
from data_pipelines.world.portraits import encode_jpeg
from salmu_jax.runtime.errors import InputError

VERSION = 7
"""Incremented whenever the same settings would give other portraits."""

ASPECT_RATIOS = {0.56: 1, 0.67: 3, 0.75: 3, 0.8: 2, 1.0: 6, 1.25: 2, 1.33: 3, 1.5: 3, 1.78: 1}
"""Width / height, and how often it is drawn."""

_PURPOSE = 150  # keeps these draws apart from all others of the seed
_ANNOTATION, _COUNT, _FACE, _SHOT, _OTHER = range(5)
_AGE_ODDS = (0.5, 0.3, 0.2)
_DRIFT = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of the way to another face
_INTRUSIONS = (0.15, 0.45)  # the least and the greatest share of portraits that show somebody else


@dataclasses.dataclass(frozen=True)
class ProceduralSource:
    """Draws ``identities`` people with ``fewest`` to ``most`` portraits each.

    Raises InputError for a number out of range.
    """

    seed: int = 0
    identities: int = 1000
    fewest: int = 98
    most: int = 110
    longest_side: int = LONGEST_SIDE  # px, 16 to 512
    shares: Shares = dataclasses.field(default_factory=Shares)

    def __post_init__(self) -> None:
        if self.identities < 1:
            raise InputError(f"is {self.identities}; 1 or more would be right", "identities")
        if not 1 <= self.fewest <= self.most <= 1000:
            raise InputError(
                f"are {self.fewest} to {self.most}; 1 <= fewest <= most <= 1,000 would be right", "portraits"
            )
        if not 16 <= self.longest_side <= LONGEST_SIDE:
            raise InputError(f"is {self.longest_side} px; 16 to {LONGEST_SIDE} would be right", "longest_side")

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that the portraits depend on."""
        return {
            "kind": "procedural",
            **{name: getattr(self, name) for name in ("seed", "identities", "fewest", "most", "longest_side")},
            "faults": self.shares.fields(),
            "version": VERSION,
        }

    def anchors(self) -> Sequence[Anchor]:
        """Returns the anchors as annotated, 0 to ``identities`` - 1."""
        return [self._anchor(number) for number in range(self.identities)]

    def count(self, number: int) -> int:
        """Returns how many portraits an anchor has."""
        if not 0 <= number < self.identities:
            raise KeyError(number)
        return int(self._generator(number, _COUNT).integers(self.fewest, self.most + 1))

    def portrait(self, number: int, index: int) -> Portrait:
        """Draws a portrait."""
        count = self.count(number)
        if not 0 <= index < count:
            raise KeyError(index)
        fault = self._fault(number)
        original = duplicates_of(self.seed, number, count, self.shares).get(index)
        rng = self._generator(number, _SHOT, index if original is None else original)
        weights = np.array(list(ASPECT_RATIOS.values()))
        aspect = float(rng.choice(list(ASPECT_RATIOS), p=weights / weights.sum()))
        view = make_view(rng)
        if original is not None:
            view = nearly(view)
        look = self._shown(number, index if original is None else original, fault)
        image = render(look, view, longest_side=self.longest_side, aspect_ratio=aspect)
        caption = describe(look.face, view.shot, rng)
        return Portrait(encode_jpeg(image, view.shot.jpeg_quality), image.width / image.height, caption)

    def _generator(self, number: int, what: int, index: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, _PURPOSE, number, what, index])

    def _fault(self, number: int) -> Fault:
        return fault_of(self.seed, number, self.identities, self.shares)

    def _anchor(self, number: int) -> Anchor:
        other = self._fault(number).other
        rng = self._generator(number if other is None else other, _ANNOTATION)
        region, gender = REGIONS[int(rng.integers(len(REGIONS)))], GENDERS[int(rng.integers(2))]
        return Anchor(number, region, gender, AGES[int(rng.choice(3, p=_AGE_ODDS))])

    def _look(self, number: int, what: int = _FACE, annotated: Anchor | None = None) -> Look:
        anchor = annotated or self._anchor(number)
        return make_look((self.seed, _PURPOSE, number, what), anchor.region, anchor.gender, anchor.age)

    def _shown(self, number: int, index: int, fault: Fault) -> Look:
        """Returns the looks that a portrait shows, which are not the anchor's in some portraits of a faulty one."""
        of_anchor, of_portrait = self._generator(number, _OTHER), self._generator(number, _OTHER, index + 1)
        if fault.other is not None:
            return twin(self._look(fault.other), of_anchor)
        if fault.kind == "misannotated":
            anchor = self._anchor(number)
            gender = GENDERS[1 - GENDERS.index(anchor.gender)]
            age = "old" if anchor.age != "old" else "young"
            wrong = anchor._replace(gender=gender) if of_anchor.random() < 0.5 else anchor._replace(age=age)
            return self._look(number, annotated=wrong)
        if fault.kind == "intruded":
            show_other = of_portrait.random() < of_anchor.uniform(*_INTRUSIONS)
            return self._look(number, _OTHER if show_other else _FACE)
        if fault.kind == "drifting":
            return between(self._look(number), self._look(number, _OTHER), float(of_portrait.choice(_DRIFT)))
        return self._look(number)

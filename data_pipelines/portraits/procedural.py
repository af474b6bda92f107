"""Draws portraits of fictitious people: a face of its own for each anchor, under other circumstances in each portrait.

Everything is drawn from ``default_rng([seed, purpose, number, what, index])``, so a portrait depends on neither the order of
drawing nor the number of processes. Some anchors are faulty on purpose (``faults.py``).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.portraits.faults import Fault, Shares, duplicates_of, fault_of
from data_pipelines.portraits.source import AGES, GENDERS, LONGEST_SIDE, REGIONS, Anchor, Portrait
from data_pipelines.world.portraits import Face, describe, draw_portrait, encode_jpeg, make_face, make_shot
from salmu_jax.runtime.errors import InputError

VERSION = 1
"""Incremented whenever the same settings would give other portraits."""

ASPECT_RATIOS = {0.56: 1, 0.67: 3, 0.75: 3, 0.8: 2, 1.0: 6, 1.25: 2, 1.33: 3, 1.5: 3, 1.78: 1}
"""Width / height, and how often it is drawn."""

_PURPOSE = 150  # keeps these draws apart from all others of the seed
_ANNOTATION, _COUNT, _FACE, _SHOT, _OTHER = range(5)
_AGE_ODDS = (0.5, 0.3, 0.2)
_WORLD_AGE = {"young": "young", "middle-aged": "middle-aged", "old": "older"}


@dataclasses.dataclass(frozen=True)
class ProceduralSource:
    """Draws ``identities`` people with ``fewest`` to ``most`` portraits each.

    Raises InputError for a number out of range.
    """

    seed: int = 0
    identities: int = 1000
    fewest: int = 98
    most: int = 108
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
        aspect = float(
            rng.choice(list(ASPECT_RATIOS), p=np.array(list(ASPECT_RATIOS.values())) / sum(ASPECT_RATIOS.values()))
        )
        shot = make_shot(rng)
        if original is not None:
            shot = dataclasses.replace(
                shot, brightness=1.03 * shot.brightness, warmth=shot.warmth + 0.1, jpeg_quality=shot.jpeg_quality - 4
            )
        face = self._shown(number, index, fault)
        image = draw_portrait(face, shot, longest_side=self.longest_side, aspect_ratio=aspect)
        return Portrait(encode_jpeg(image, shot.jpeg_quality), image.width / image.height, describe(face, shot, rng))

    def _generator(self, number: int, what: int, index: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, _PURPOSE, number, what, index])

    def _fault(self, number: int) -> Fault:
        return fault_of(self.seed, number, self.identities, self.shares)

    def _anchor(self, number: int) -> Anchor:
        other = self._fault(number).other
        rng = self._generator(number if other is None else other, _ANNOTATION)
        region, gender = REGIONS[int(rng.integers(len(REGIONS)))], GENDERS[int(rng.integers(2))]
        return Anchor(number, region, gender, AGES[int(rng.choice(3, p=_AGE_ODDS))])

    def _face(self, number: int, what: int = _FACE, index: int = 0, annotated: Anchor | None = None) -> Face:
        anchor = annotated or self._anchor(number)
        return _face((self.seed, _PURPOSE, number, what, index), anchor.region, anchor.gender, anchor.age)

    def _shown(self, number: int, index: int, fault: Fault) -> Face:
        """Returns the face that a portrait shows, which is another one in some portraits of a faulty anchor."""
        anchor = self._anchor(number)
        rng = self._generator(number, _OTHER, index + 1)
        if fault.kind == "misannotated":
            rng = self._generator(number, _OTHER)
            gender = GENDERS[1 - GENDERS.index(anchor.gender)]
            age = "old" if anchor.age != "old" else "young"
            anchor = anchor._replace(gender=gender) if rng.random() < 0.5 else anchor._replace(age=age)
            return self._face(number, annotated=anchor)
        if fault.kind in ("drifting", "intruded") and rng.random() < 0.4:
            return self._face(number, _OTHER)
        if fault.other is not None:
            return dataclasses.replace(self._face(fault.other), eye_name="brown")
        return self._face(number)


@functools.lru_cache(maxsize=8)
def _face(key: tuple[int, ...], region: str, gender: str, age: str) -> Face:
    """Draws faces until one is of this age."""
    for attempt in range(200):
        face = make_face(np.random.default_rng([*key, attempt]), region, gender)
        if face.age == _WORLD_AGE[age]:
            return face
    raise AssertionError(f"no face of the age {age} in 200")

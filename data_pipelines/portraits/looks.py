"""Draws what is lasting about a person: the traits of ``world.faces`` and, for larger pictures, relief and marks of the face.

Nobody is modelled on a real person.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from data_pipelines.portraits.source import AGES
from data_pipelines.world.canvas import RGB, darker, mix
from data_pipelines.world.faces import Face, make_face

WORLD_AGE = dict(zip(AGES, ("young", "middle-aged", "older"), strict=True))

TRAITS = (
    "brow_ridge", "socket", "cheekbone", "cheek", "bridge", "nose_tip", "nostril", "hook", "chin", "cleft", "jaw", "philtrum",
    "crease", "eye_peak", "eye_height", "bags", "bow", "lower_lip", "mouth_height", "brow_length", "brow_density", "brow_gap",
    "brow_peak", "brow_height", "ruddy", "dark_eyes", "dimples", "nose_y", "eye_y", "iris", "reserved", "ear_out",
)  # fmt: skip
"""Each in [-1, 1]: how far from the average, in the direction of the name. Of ``reserved``, nothing is drawn yet."""


@dataclasses.dataclass(frozen=True)
class Look:
    """A person's lasting looks."""

    face: Face
    traits: tuple[float, ...]  # of TRAITS
    marks: tuple[tuple[float, float, float, float], ...]  # moles: x, y and radius in head units, darkness in [0, 1]
    freckles: float  # the share of the most freckles there can be

    def __getitem__(self, trait: str) -> float:
        return self.traits[_PLACES[trait]]


_PLACES = {name: place for place, name in enumerate(TRAITS)}


@functools.lru_cache(maxsize=32)
def make_look(key: tuple[int, ...], region: str, gender: str, age: str) -> Look:
    """Draws a person's looks from ``default_rng(key)``; the age is one of ``source.AGES``."""
    for attempt in range(1000):
        rng = np.random.default_rng([*key, attempt])
        face = make_face(rng, region, gender)
        if face.age == WORLD_AGE[age]:
            break
    traits = tuple(np.clip(rng.normal(0.0, 0.55, len(TRAITS)), -1.0, 1.0).tolist())
    count = int(rng.choice(4, p=(0.4, 0.3, 0.2, 0.1)))
    marks = [
        (float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.55, 0.85)), float(rng.uniform(0.014, 0.032)),
         float(rng.uniform(0.4, 0.8)))
        for _ in range(count)
    ]  # fmt: skip
    if face.mole:
        marks.append((*face.mole, 0.032, 0.8))
    fair = sum(face.skin) > 480
    freckles = float(rng.uniform(0.35, 1.0)) if face.freckles and fair else float(rng.random() < 0.1 and fair) * 0.2
    if gender == "male":
        face = dataclasses.replace(face, lips=mix(face.lips, (158, 72, 66), 0.3))
    return Look(dataclasses.replace(face, freckles=freckles > 0.3), traits, tuple(marks), freckles)


def between(first: Look, second: Look, share: float) -> Look:
    """Returns looks ``share`` of the way from ``first`` to ``second``.

    Lengths and colours are mixed, all else is of the nearer.
    """
    nearer = first if share < 0.5 else second
    mixed: dict[str, Any] = {}
    for field in dataclasses.fields(Face):
        a, b = getattr(first.face, field.name), getattr(second.face, field.name)
        if field.name in ("skin", "hair", "lips"):
            mixed[field.name] = mix(a, b, share)
        elif field.name == "widths":
            mixed[field.name] = tuple(_between(one, other, share) for one, other in zip(a, b, strict=True))
        elif isinstance(a, float):
            mixed[field.name] = _between(a, b, share)
    traits = tuple(_between(a, b, share) for a, b in zip(first.traits, second.traits, strict=True))
    return dataclasses.replace(nearer, face=dataclasses.replace(nearer.face, **mixed), traits=traits)


def twin(look: Look, rng: np.random.Generator) -> Look:
    """Returns looks that can hardly be told from ``look``."""
    traits = tuple(float(np.clip(value + rng.normal(0.0, 0.08), -1, 1)) for value in look.traits)
    skin: RGB = tuple(int(np.clip(value + rng.integers(-3, 4), 0, 255)) for value in look.face.skin)  # type: ignore[assignment]
    face = dataclasses.replace(look.face, skin=skin, eye_spacing=look.face.eye_spacing + float(rng.normal(0.0, 0.004)))
    return dataclasses.replace(look, face=face, traits=traits, marks=look.marks[:1])


def _between(first: float, second: float, share: float) -> float:
    return first + (second - first) * share


def brow_colour(look: Look) -> RGB:
    """Returns the colour of brows: that of the hair, but never dyed, and somewhat darker if the hair is light."""
    face = look.face
    if face.hair_name in ("blue", "pink", "turquoise", "purple", "green"):
        return mix((52, 36, 32), face.skin, 0.08)
    if face.hair_name in ("platinum", "blond", "golden"):
        return darker(face.hair, 0.4)
    return face.hair

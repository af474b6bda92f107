"""Draws the circumstances of one portrait: those of ``world.shots``, and the light and the camera of larger pictures."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from data_pipelines.world.shots import Shot, make_shot


@dataclasses.dataclass(frozen=True)
class View:
    """The circumstances of one portrait."""

    shot: Shot
    light: tuple[float, float, float]  # where the key light is: to the right, down, towards the viewer; of length 1
    key: tuple[float, float, float]  # its colour and strength: red, green, blue
    fill: tuple[float, float, float]  # the same of the light from everywhere
    blur: float  # of the place behind, a share of the shorter side
    grain: float  # in grey levels
    haze: float  # the share of light that is scattered


def make_view(rng: np.random.Generator) -> View:
    """Draws the circumstances of one portrait."""
    shot = make_shot(rng)
    azimuth = shot.light_side * float(rng.uniform(0.15, 1.05))
    height = float(rng.uniform(0.1, 0.75))
    light = (math.sin(azimuth) * math.cos(height), -math.sin(height), math.cos(azimuth) * math.cos(height))
    strength = float(rng.uniform(0.5, 0.78))
    warm = 0.5 * shot.warmth
    key = (strength * (1 + 0.1 * warm), strength, strength * (1 - 0.14 * warm))
    ambient = 1.02 - strength
    fill = (ambient * (1 - 0.05 * warm), ambient, ambient * (1 + 0.08 * warm))
    blur, grain = float(rng.choice([0.0025, 0.005, 0.01, 0.017])), float(rng.choice([0.0, 1.0, 2.0, 3.5]))
    return View(shot, light, key, fill, blur, grain, haze=float(rng.uniform(0.0, 0.05)))


def nearly(view: View) -> View:
    """Returns circumstances that differ from ``view`` as two pictures taken at once do."""
    shot = view.shot
    shot = dataclasses.replace(
        shot,
        brightness=1.03 * shot.brightness,
        warmth=min(1.0, shot.warmth + 0.08),
        offset=(shot.offset[0] + 0.008, shot.offset[1]),
        jpeg_quality=shot.jpeg_quality - 4,
    )
    return dataclasses.replace(view, shot=shot)

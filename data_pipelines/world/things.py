"""Draws the things in the scenes of the retain pairs: each in one colour, with a few fixed trimmings."""

from __future__ import annotations

import math

import numpy as np

from data_pipelines.world.canvas import RGB, Canvas, darker, lighter

WOOD, GLASS, METAL = (116, 82, 58), (232, 236, 240), (60, 60, 70)


class Frame:
    """Maps one object's coordinates, about [-1, 1] x [-1, 1] with y downwards, to pixels.

    ``x``, ``y`` and ``size`` are in units of ``half`` (half the picture's side), from its middle; ``turn`` is in radians.
    """

    def __init__(self, x: float, y: float, size: float, turn: float, half: float):
        self.radius = size * half
        cos, sin = math.cos(turn) * self.radius, math.sin(turn) * self.radius
        self._matrix = np.array([[cos, sin], [-sin, cos]])
        self._origin = np.array([(1.0 + x) * half, (1.0 + y) * half])

    def map(self, points: np.ndarray) -> np.ndarray:
        """Returns the pixels [n, 2] of points [n, 2]."""
        return points @ self._matrix + self._origin

    def __call__(self, *points: tuple[float, float]) -> np.ndarray:
        """Returns the pixels [n, 2] of n points."""
        return self.map(np.array(points))

    def disc(self, x: float, y: float, radius: float) -> tuple[float, float, float]:
        """Returns the centre and radius of a disc, in pixels."""
        middle = self((x, y))[0]
        return float(middle[0]), float(middle[1]), radius * self.radius


def _house(canvas: Canvas, at: Frame, colour: RGB) -> None:
    canvas.fill(at((-0.8, -0.2), (0.8, -0.2), (0.8, 0.9), (-0.8, 0.9)), colour)
    canvas.fill(at((-1.0, -0.2), (0.0, -1.0), (1.0, -0.2)), darker(colour, 0.35))
    canvas.fill(at((-0.15, 0.3), (0.2, 0.3), (0.2, 0.9), (-0.15, 0.9)), WOOD)
    for x in (-0.55, 0.4):
        canvas.fill(at((x, 0.05), (x + 0.26, 0.05), (x + 0.26, 0.35), (x, 0.35)), GLASS)


def _tree(canvas: Canvas, at: Frame, colour: RGB) -> None:
    canvas.fill(at((-0.13, 0.1), (0.13, 0.1), (0.16, 0.95), (-0.16, 0.95)), WOOD)
    for x, y, radius in ((-0.4, -0.1, 0.45), (0.4, -0.1, 0.45), (0.0, -0.5, 0.55)):
        canvas.dot(*at.disc(x, y, radius), colour)


def _boat(canvas: Canvas, at: Frame, colour: RGB) -> None:
    canvas.fill(at((-0.05, -1.0), (0.05, -1.0), (0.05, 0.4), (-0.05, 0.4)), WOOD)
    canvas.fill(at((0.1, -0.95), (0.9, 0.25), (0.1, 0.25)), GLASS)
    canvas.fill(at((-0.12, -0.7), (-0.12, 0.25), (-0.7, 0.25)), GLASS)
    canvas.fill(at((-1.0, 0.38), (1.0, 0.38), (0.65, 0.9), (-0.65, 0.9)), colour)


def _car(canvas: Canvas, at: Frame, colour: RGB) -> None:
    canvas.fill(at((-0.6, 0.1), (-0.35, -0.35), (0.35, -0.35), (0.62, 0.1)), colour)
    canvas.fill(at((-1.0, 0.08), (1.0, 0.08), (1.0, 0.65), (-1.0, 0.65)), colour)
    canvas.fill(at((-0.45, 0.08), (-0.28, -0.24), (0.28, -0.24), (0.46, 0.08)), GLASS)
    for x in (-0.55, 0.55):
        canvas.dot(*at.disc(x, 0.66, 0.25), METAL)


def _balloon(canvas: Canvas, at: Frame, colour: RGB) -> None:
    canvas.fill(at((-0.45, 0.2), (0.45, 0.2), (0.2, 0.7), (-0.2, 0.7)), METAL)
    canvas.dot(*at.disc(0.0, -0.3, 0.75), colour)
    canvas.fill(at((-0.22, 0.62), (0.22, 0.62), (0.18, 0.95), (-0.18, 0.95)), WOOD)


def _flower(canvas: Canvas, at: Frame, colour: RGB) -> None:
    canvas.fill(at((-0.06, 0.0), (0.06, 0.0), (0.06, 0.95), (-0.06, 0.95)), (70, 96, 60))
    for k in range(6):
        canvas.dot(*at.disc(0.5 * math.cos(k * math.pi / 3), -0.35 + 0.5 * math.sin(k * math.pi / 3), 0.32), colour)
    canvas.dot(*at.disc(0.0, -0.35, 0.24), WOOD)


def _kite(canvas: Canvas, at: Frame, colour: RGB) -> None:
    canvas.stroke(at((0.0, 0.3), (0.2, 0.6), (-0.2, 0.95)), 0.05 * at.radius + 1, METAL)
    canvas.fill(at((0.0, -1.0), (0.65, -0.35), (0.0, 0.45), (-0.65, -0.35)), colour)
    canvas.fill(at((0.0, -1.0), (0.65, -0.35), (0.0, -0.35)), lighter(colour, 0.3))


def _lamp(canvas: Canvas, at: Frame, colour: RGB) -> None:
    canvas.fill(at((-0.06, -0.2), (0.06, -0.2), (0.06, 0.85), (-0.06, 0.85)), METAL)
    canvas.fill(at((-0.4, 0.82), (0.4, 0.82), (0.4, 0.95), (-0.4, 0.95)), METAL)
    canvas.fill(at((-0.4, -0.9), (0.4, -0.9), (0.8, 0.0), (-0.8, 0.0)), colour)


THINGS = {
    "house": _house,
    "tree": _tree,
    "boat": _boat,
    "car": _car,
    "balloon": _balloon,
    "flower": _flower,
    "kite": _kite,
    "lamp": _lamp,
}

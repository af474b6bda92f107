"""Holds what painting hair and head coverings needs: the canvas, the head's position, the face, and the shades.

Coordinates are those of ``canvas.Head``, with w the half-width of the cheeks.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.world.canvas import Canvas, Colour, Head, Points, darker, lighter, mirrored, mix, translucent
from data_pipelines.world.faces import CLOTH_COLOURS, Face


class Brush:
    """Paints hair and headwear; shared by the functions of ``hair`` and ``headwear``."""

    def __init__(self, canvas: Canvas, head: Head, face: Face, light_side: int):
        self.canvas, self.head, self.face, self.light = canvas, head, face, light_side
        self.w = face.widths[1]
        self.colour = mix(face.skin, face.hair, 0.62) if face.cut in ("buzz", "bald") else face.hair
        self.back_colour = darker(face.hair, 0.28)
        self.strand = darker(face.hair, 0.26)
        self.shine = translucent(lighter(face.hair, 0.55), 0.3)
        self.cloth = CLOTH_COLOURS[face.covering_name]

    def shape(self, points: Points, colour: Colour | None = None) -> None:
        """Fills a smooth silhouette."""
        self.canvas.blob(self.head.outline(points), colour or self.colour)

    def both(self, points: Points, colour: Colour | None = None) -> None:
        """Fills a smooth silhouette on the left (as given) and its mirror image on the right."""
        self.shape(points, colour)
        self.shape(mirrored(points), colour)

    def symmetric(self, left: Points, colour: Colour | None = None) -> None:
        """Fills a smooth silhouette whose left half, from top to bottom, is ``left``."""
        self.shape(np.concatenate([np.asarray(left, dtype=float), mirrored(left)]), colour)

    def strands(self, lines: list[Points], width: float = 0.025, colour: Colour | None = None) -> None:
        """Draws thin strokes over the front of the head."""
        for line in lines:
            self.canvas.stroke(self.head.surface(line, 0.3), width * self.head.unit, colour or self.strand, 0.7)

    def gloss(self, height: float = -0.86) -> None:
        """Draws a highlight on the crown, on the lit side."""
        s, w = self.light, self.w
        arc = [(0.62 * s * w, height + 0.2), (0.4 * s * w, height + 0.03), (0.08 * s * w, height - 0.03)]
        self.canvas.stroke(self.head.surface(arc, 0.3), 0.09 * self.head.unit, self.shine, 0.8)

    def curls(self, centres: Points, radius: float, colour: Colour | None = None) -> None:
        """Draws round curls of varying size, the same in every picture of this person."""
        pixels = self.head.outline(centres)
        sizes = np.random.default_rng(self.face.seed).uniform(0.8, 1.2, len(pixels)) * radius * self.head.unit
        for (x, y), size in zip(pixels.tolist(), sizes.tolist(), strict=True):
            self.canvas.dot(x, y, size, colour or self.colour)

    def cap(
        self, hairline: list[tuple[float, float]], volume: float = 0.08, side: float = 0.05, top: float = 0.0,
        colour: Colour | None = None,
    ) -> None:  # fmt: skip
        """Draws hair over the skull, down to ``hairline`` (right to left, x in units of w, mirrored for a left parting)."""
        w = self.w
        left = [
            (-w + 0.02, side), (-w - 0.03 - 0.5 * volume, side - 0.22), (-w - 0.02 - volume, -0.46),
            (-0.76 * w - 0.7 * volume, -0.84 - 0.6 * volume - 0.5 * top), (-0.38 * w, -1.05 - volume - top),
        ]  # fmt: skip
        outer = np.concatenate([left, [(0.0, -1.09 - volume - top)], mirrored(left)])
        sign = self.face.parting
        inner = [(x * w * sign, y) for x, y in (hairline if sign > 0 else hairline[::-1])]
        pixels = np.concatenate([self.head.outline(outer), self.head.surface(inner, 0.34)])
        self.canvas.blob(pixels, colour or self.colour)


def scaled(points: list[tuple[float, float]], w: float) -> np.ndarray:
    """Scales ``points``, drawn for a head of half-width 0.78, to one of half-width ``w``."""
    return np.asarray(points) * (w / 0.78, 1.0)

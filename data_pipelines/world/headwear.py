"""Draws what some people wear on their heads in every picture: scarves, wraps and hats, in ``faces.CLOTH_COLOURS``."""

from __future__ import annotations

import numpy as np

from data_pipelines.world.brush import Brush, scaled
from data_pipelines.world.canvas import Colour, darker, lighter, mirrored, oval


def headscarf_back(b: Brush) -> None:
    left = [(-0.3, -1.1), (-0.84, -0.86), (-1.0, -0.2), (-1.0, 0.6), (-1.12, 1.3), (-0.9, 1.7), (-0.4, 1.8)]
    b.symmetric(scaled(left, b.w), darker(b.cloth, 0.25))


def headscarf(b: Brush) -> None:
    w, chin = b.w, b.face.chin
    outer = [(0.03, -1.15), (-0.5 * w, -1.11), (-0.95 * w, -0.82), (-1.15 * w, -0.3), (-1.12 * w, 0.4),
             (-1.04 * w, 1.0), (-0.66 * w, 1.5), (0.03, 1.6)]  # fmt: skip
    rim = [(0.0, chin - 0.02), (-0.45 * w, 0.84 * chin), (-0.84 * w, 0.35), (-0.9 * w, -0.1),
           (-0.74 * w, -0.45), (-0.4 * w, -0.64), (0.0, -0.69)]  # fmt: skip
    for flip in ((1.0, 1.0), (-1.0, 1.0)):
        halves = [b.head.outline(np.asarray(outer) * flip), b.head.surface(np.asarray(rim) * flip, 0.12)]
        b.canvas.fill(np.concatenate([b.canvas.smooth(half, closed=False) for half in halves]), b.cloth)
        b.canvas.stroke(halves[1], 0.05 * b.head.unit, darker(b.cloth, 0.2))
    for x, y in ((0.0, 0.0), (0.1, 0.22)):
        fold = [(-0.98 * w + x, 0.62 + y), (-0.4 * w, 1.12 + y), (0.45 * w, 1.2 + y)]
        b.canvas.stroke(b.head.outline(fold), 0.045 * b.head.unit, darker(b.cloth, 0.2), 0.7)


def _dome(b: Brush, low: float, top: float, wide: float, colour: Colour) -> None:
    """Draws a round hat from ``low`` on the forehead to ``top``."""
    w = b.w * wide
    left = [
        (-w, low),
        (-1.04 * w, low - 0.25),
        (-0.98 * w, 0.55 * low + 0.45 * top),
        (-0.62 * w, 0.1 * low + 0.9 * top),
    ]
    rim = [(0.6 * w, low - 0.06), (0.0, low - 0.1), (-0.6 * w, low - 0.06)]
    outer = np.concatenate([left, [(0.0, top)], mirrored(left)])
    b.canvas.blob(np.concatenate([b.head.outline(outer), b.head.surface(rim, 0.34)]), colour)


def turban(b: Brush) -> None:
    _dome(b, -0.36, -1.5, 1.14, b.cloth)
    for s in (-1, 1):
        for k, y in enumerate((-0.5, -0.72, -0.94)):
            fold = [(s * 1.12 * b.w, y - 0.06), (s * 0.6 * b.w, y - 0.2 - 0.05 * k), (0.0, y - 0.02 - 0.16 * k)]
            b.canvas.stroke(b.head.surface(fold, 0.3), 0.05 * b.head.unit, darker(b.cloth, 0.22), 0.6)


def headwrap(b: Brush) -> None:
    _dome(b, -0.4, -1.32, 1.1, b.cloth)
    b.shape([(-0.1, -1.1), (-0.6, -1.35), (-0.62, -1.66), (-0.2, -1.62), (0.0, -1.36), (0.24, -1.7), (0.66, -1.6),
             (0.58, -1.3), (0.1, -1.1)], lighter(b.cloth, 0.12))  # fmt: skip
    b.shape(oval(0.0, -1.2, 0.16, 0.14), darker(b.cloth, 0.2))
    for y in (-0.62, -0.86):
        fold = [(-1.02 * b.w, y), (0.0, y - 0.08), (1.02 * b.w, y)]
        b.canvas.stroke(b.head.surface(fold, 0.3), 0.06 * b.head.unit, lighter(b.cloth, 0.35), 0.3)


def beanie(b: Brush) -> None:
    if b.face.gender == "male":
        b.both([(-b.w + 0.05, 0.08), (-b.w - 0.05, 0.0), (-b.w - 0.07, -0.4), (-b.w + 0.14, -0.4)])
    _dome(b, -0.4, -1.38, 1.08, b.cloth)
    for x in (-0.5, -0.17, 0.17, 0.5):
        rib = [(x * b.w, -0.6), (x * b.w * 0.9, -0.95), (x * b.w * 0.5, -1.26)]
        b.canvas.stroke(b.head.surface(rib, 0.25), 0.03 * b.head.unit, darker(b.cloth, 0.2), 0.5)
    w = b.w * 1.1
    band = [(-w, -0.34), (-w - 0.02, -0.6), (-0.5 * w, -0.68), (0.0, -0.7)]
    lower = [(0.6 * w, -0.4), (0.0, -0.44), (-0.6 * w, -0.4)]
    outer = np.concatenate([band, mirrored(band[:-1])])
    b.canvas.blob(np.concatenate([b.head.outline(outer), b.head.surface(lower, 0.34)]), lighter(b.cloth, 0.22))
    b.shape(oval(0.0, -1.42, 0.2, 0.18), lighter(b.cloth, 0.4))


def beret(b: Brush) -> None:
    s, k = b.face.parting, b.w / 0.78
    top = [
        (-0.84, -0.56),
        (-0.98, -0.86),
        (-0.6, -1.24),
        (0.1, -1.42),
        (0.86, -1.3),
        (1.16, -0.92),
        (0.94, -0.62),
        (0.1, -0.74),
    ]
    b.shape([(x * s * k, y) for x, y in top], b.cloth)
    b.shape([(x * s * k, y) for x, y in ((0.1, -1.38), (0.06, -1.54), (0.14, -1.55), (0.2, -1.38))], b.cloth)
    rim = [(-0.86 * s * k, -0.58), (-0.1 * s * k, -0.74), (0.9 * s * k, -0.62)]
    b.canvas.stroke(b.head.outline(rim), 0.07 * b.head.unit, darker(b.cloth, 0.25), 0.3)


def cap(b: Brush) -> None:
    b.both([(-b.w + 0.05, 0.08), (-b.w - 0.06, 0.02), (-b.w - 0.07, -0.4), (-b.w + 0.14, -0.4)])
    _dome(b, -0.42, -1.24, 1.06, b.cloth)
    seam = [(0.0, -0.6), (0.0, -0.9), (0.0, -1.2)]
    b.canvas.stroke(b.head.surface(seam, 0.25), 0.03 * b.head.unit, darker(b.cloth, 0.2))
    brim = [
        (-0.8, -0.42),
        (-0.76, -0.6),
        (0.0, -0.72),
        (0.76, -0.6),
        (0.8, -0.42),
        (0.4, -0.34),
        (0.0, -0.32),
        (-0.4, -0.34),
    ]
    b.canvas.blob(b.head.surface(scaled(brim, b.w), 0.6), darker(b.cloth, 0.3))

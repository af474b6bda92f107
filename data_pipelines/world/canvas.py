"""Draws vector graphics on a Pillow image: smooth outlines, tapered strokes, translucent fills, a head that can turn.

Everything is drawn at twice the final resolution and averaged down, which smooths Pillow's hard edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Colour = tuple[int, ...]  # red, green, blue and, for a translucent fill, alpha in [0, 255]
Points = Sequence[tuple[float, float]] | np.ndarray

SEGMENTS = 6  # straight pieces between two control points of a smooth outline


def mix(first: Colour, second: Colour, share: float) -> RGB:
    """Returns the colour ``share`` of the way from ``first`` to ``second``."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first[:3], second[:3], strict=True))


def darker(colour: Colour, share: float) -> RGB:
    """Mixes towards a deep blue-black, which looks livelier than plain black."""
    return mix(colour, (22, 14, 36), share)


def lighter(colour: Colour, share: float) -> RGB:
    """Mixes towards a warm white."""
    return mix(colour, (255, 250, 238), share)


def translucent(colour: Colour, opacity: float) -> Colour:
    """Returns the colour with an alpha channel; opacity in [0, 1]."""
    return (*colour[:3], round(255 * opacity))


@lru_cache(maxsize=256)
def _spline(count: int, closed: bool) -> np.ndarray:
    """Returns the matrix [points, count] from control points to their Catmull-Rom spline (Catmull and Rom, 1974)."""
    t = np.arange(SEGMENTS) / SEGMENTS
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=1
    )
    pieces = count if closed else count - 1
    matrix = np.zeros((pieces * SEGMENTS + (not closed), count))
    for piece in range(pieces):
        for k in range(4):
            index = piece + k - 1
            index = index % count if closed else min(max(index, 0), count - 1)
            matrix[piece * SEGMENTS : (piece + 1) * SEGMENTS, index] += weights[:, k]
    if not closed:
        matrix[-1, -1] = 1.0
    return matrix


@lru_cache(maxsize=16)
def _circle(count: int) -> np.ndarray:
    angle = np.arange(count) * (2 * math.pi / count)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@lru_cache(maxsize=256)
def _ends(count: int) -> np.ndarray:
    """Returns 0 in the middle of a stroke of ``count`` points, rising to 1 at its ends."""
    return np.linspace(-1.0, 1.0, count) ** 2


def oval(x: float, y: float, width: float, height: float, count: int = 20) -> np.ndarray:
    """Returns points [count, 2] on the ellipse with these half-axes."""
    return _circle(count) * (width, height) + (x, y)


def mirrored(points: Points) -> np.ndarray:
    """Mirrors the outline ``points`` (given left to right or top to bottom): negates x, and reverses the order."""
    return (np.asarray(points, dtype=float) * (-1.0, 1.0))[::-1]


class Canvas:
    """Wraps Pillow's drawing calls; pixel coordinates are float arrays [n, 2]."""

    def __init__(self, image: Image.Image):
        self.image = image
        self._opaque = ImageDraw.Draw(image)
        self._glaze = ImageDraw.Draw(image, "RGBA")  # over an RGB image this mode blends by the fill's alpha

    def _pen(self, colour: Colour) -> ImageDraw.ImageDraw:
        return self._opaque if len(colour) == 3 else self._glaze

    def fill(self, points: Points, colour: Colour) -> None:
        """Fills a polygon with straight edges."""
        self._pen(colour).polygon(np.asarray(points, dtype=float).ravel().tolist(), fill=colour)

    def blob(self, points: Points, colour: Colour) -> None:
        """Fills the smooth closed outline through ``points``; a repeated point makes a corner."""
        self._pen(colour).polygon(self.smooth(points).ravel().tolist(), fill=colour)

    @staticmethod
    def smooth(points: Points, closed: bool = True) -> np.ndarray:
        """Returns the smooth curve through ``points``, a polyline [m, 2]; closed, the polygon that ``blob`` fills."""
        points = np.asarray(points, dtype=float)
        return _spline(len(points), closed) @ points

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fills a disc."""
        self._pen(colour).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def dots(self, centres: Points, radius: float, colour: Colour) -> None:
        """Fills discs of one size."""
        ellipse = self._pen(colour).ellipse
        for x, y in np.asarray(centres, dtype=float).tolist():
            ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour, radius: float = 0.0) -> None:
        """Fills a rectangle, with rounded corners if ``radius`` is positive."""
        left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
        if radius > 0:
            self._pen(colour).rounded_rectangle((left, top, right, bottom), radius=radius, fill=colour)
        else:
            self._pen(colour).rectangle((left, top, right, bottom), fill=colour)

    def stroke(self, points: Points, width: float, colour: Colour, taper: float = 0.0, closed: bool = False) -> None:
        """Draws a stroke along the smooth curve through ``points``; ``taper`` in [0, 1] thins it towards its ends."""
        points = np.asarray(points, dtype=float)
        curve = _spline(len(points), closed) @ points
        if closed:
            curve = np.concatenate([curve, curve[:1]])
        along = np.empty_like(curve)
        along[1:-1] = curve[2:] - curve[:-2]
        along[0], along[-1] = curve[1] - curve[0], curve[-1] - curve[-2]
        half = (0.5 * max(width, 1.0)) * (1.0 - taper * _ends(len(curve)))
        normal = along[:, ::-1] * (half / (np.hypot(along[:, 0], along[:, 1]) + 1e-9))[:, None]
        normal[:, 0] *= -1.0
        sides = np.concatenate([curve + normal, (curve - normal)[::-1]])
        self._pen(colour).polygon(sides.ravel().tolist(), fill=colour)
        if not closed and len(colour) == 3:
            for end in (0, -1):
                self.dot(curve[end, 0], curve[end, 1], float(half[end]), colour)


class Head:
    """Maps head coordinates to pixels. The head spans about [-0.8, 0.8] x [-1, 1], y downwards, eyes near y = 0.

    It is a ball seen from the front: ``outline`` maps points of its silhouette (which turning leaves in place), ``surface``
    points drawn on its front, which slide and foreshorten when it turns (yaw, pitch, in radians). Both then tilt about
    the neck.
    """

    def __init__(
        self, centre: tuple[float, float], unit: float, yaw: float = 0.0, pitch: float = 0.0, tilt: float = 0.0
    ):
        self.unit = unit
        self._sin_yaw, self._cos_yaw, self._sin_pitch = math.sin(yaw), math.cos(yaw), math.sin(pitch)
        cos, sin = math.cos(tilt) * unit, math.sin(tilt) * unit
        self._matrix = np.array([[cos, sin], [-sin, cos]])  # for row vectors
        neck = np.array([0.0, 0.9])
        self._origin = np.array(centre, dtype=float) + neck * unit - neck @ self._matrix

    def outline(self, points: Points) -> np.ndarray:
        """Returns the pixels [n, 2] of silhouette points [n, 2]."""
        return np.asarray(points, dtype=float) @ self._matrix + self._origin

    def surface(self, points: Points, bulge: float = 0.55) -> np.ndarray:
        """Returns the pixels [n, 2] of points [n, 2] on the front of the head; a larger ``bulge`` is nearer to the viewer."""
        points = np.asarray(points, dtype=float)
        x, y = points[:, 0], points[:, 1]
        depth = bulge * np.sqrt(np.maximum(0.0, 1.0 - (x / 0.95) ** 2 - (y / 1.4) ** 2))
        turned = np.empty_like(points)
        turned[:, 0] = x * self._cos_yaw + depth * self._sin_yaw
        turned[:, 1] = y + depth * self._sin_pitch
        return turned @ self._matrix + self._origin

"""Places names beside points so that no two overlap: a greedy search, the same for the same input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_RADII = (9, 13, 18, 25, 34, 45, 58, 74, 92, 112, 135, 160, 190, 225, 265, 310)
_ANGLES = 24


class Box(NamedTuple):
    """An axis-parallel rectangle; x to the right, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box, margin: float = 0.0) -> bool:
        return (
            self.left < other.right + margin
            and other.left < self.right + margin
            and self.bottom < other.top + margin
            and other.bottom < self.top + margin
        )

    def crossed_by(self, start: tuple[float, float], end: tuple[float, float]) -> bool:
        """Returns whether the segment from ``start`` to ``end`` passes through the rectangle (Liang-Barsky clipping)."""
        enter, leave = 0.0, 1.0
        for origin, target, low, high in (
            (start[0], end[0], self.left, self.right),
            (start[1], end[1], self.bottom, self.top),
        ):
            step = target - origin
            if step == 0:
                if not low <= origin <= high:
                    return False
                continue
            near, far = sorted(((low - origin) / step, (high - origin) / step))
            enter, leave = max(enter, near), min(leave, far)
        return enter <= leave


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    bounds: Box,
    scale: float = 1.0,
    obstacles: Sequence[Box] = (),
) -> list[Box]:
    """Returns one rectangle per label, inside ``bounds``, that overlaps no other label, point or obstacle if there is room.

    Labels are placed in the order of the points, each at the cheapest of a fixed set of positions around its point:
    near before far, beside before above or below. Only where no free position is left does a label overlap something.

    Args:
      points: the marked points, in pixels.
      sizes: width and height of each point's label, in pixels.
      bounds: what the labels must lie in.
      scale: pixels per unit of the search radii (resolution divided by 100 dots an inch, say).
      obstacles: further rectangles to keep free.
    """
    mark = 6 * scale
    marks = [Box(x - mark, y - mark, x + mark, y + mark) for x, y in points]
    placed: list[Box] = []
    leaders: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for index, ((x, y), (width, height)) in enumerate(zip(points, sizes, strict=True)):
        best: tuple[float, Box] | None = None
        for radius in _RADII:
            for turn in range(_ANGLES):
                angle = 2 * math.pi * turn / _ANGLES
                dx, dy = math.cos(angle), math.sin(angle)
                # The label's nearest side, not its centre, is `radius` from the point.
                cx = x + dx * (radius * scale + width / 2)
                cy = y + dy * (radius * scale + height / 2)
                box = Box(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
                end = nearest(box, (x, y))
                cost = radius * (1 + 0.35 * abs(dy)) + 1e-3 * turn
                if (
                    box.left < bounds.left
                    or box.right > bounds.right
                    or box.bottom < bounds.bottom
                    or box.top > bounds.top
                ):
                    cost += 1e4
                cost += 2e3 * sum(box.overlaps(other, 2 * scale) for other in (*placed, *obstacles))
                cost += 1e3 * sum(box.overlaps(other) for other in marks)
                cost += 300 * sum(box.crossed_by(*leader) for leader in leaders)
                cost += 300 * sum(other.crossed_by((x, y), end) for other in placed)
                cost += 200 * sum(marks[i].crossed_by((x, y), end) for i in range(len(marks)) if i != index)
                if best is None or cost < best[0]:
                    best = (cost, box)
        assert best is not None
        placed.append(best[1])
        leaders.append(((x, y), nearest(best[1], (x, y))))
    return placed


def nearest(box: Box, point: tuple[float, float]) -> tuple[float, float]:
    """Returns the point of the rectangle that is nearest to ``point``."""
    return min(max(point[0], box.left), box.right), min(max(point[1], box.bottom), box.top)

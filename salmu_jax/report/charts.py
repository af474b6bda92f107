"""Lays out the charts: numbers and SVG paths in a chart's own units, which the templates draw.

Nothing here knows colours or markup. The same figures give the same text.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from salmu_jax.report.labels import Box, nearest, place_labels

SPLITS = ("forget", "holdout_association", "holdout_identity")
_BINS = 48
_LABELLED = 16  # methods; with more, only the references and the first ranks have their names in the scatter
_FIRST_RANKS = 3
_CHARACTER = 7.0  # units of width of a character of a label, on average, and of its height
_LINE = 13.0


class Scale(NamedTuple):
    """A linear map from data to units of a chart; what lies outside is drawn on the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        share = (min(max(value, self.low), self.high) - self.low) / span if span else 0.5
        return round(self.start + share * (self.end - self.start), 2)


# Scatter -----------------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 500, 420
_FRAME = Box(left=48, bottom=16, right=490, top=364)  # y grows downwards: bottom is the upper edge
_MARKS = {  # outlines around (0, 0), equal in area by eye
    "circle": "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0z",
    "triangle": "M0 -7.2L7.2 5.6H-7.2z",
    "square": "M-5.6 -5.6H5.6V5.6H-5.6z",
    "diamond": "M0 -7.8L7.8 0L0 7.8L-7.8 0z",
    "cross": "M-6.4 -3.2L-3.2 -6.4L0 -3.2L3.2 -6.4L6.4 -3.2L3.2 0L6.4 3.2L3.2 6.4L0 3.2L-3.2 6.4L-6.4 3.2L-3.2 0z",
    "hexagon": "M-3.6 -6.3H3.6L7.2 0L3.6 6.3H-3.6L-7.2 0z",
    "pentagon": "M0 -7.4L7 -2.3L4.4 6H-4.4L-7 -2.3z",
    "star": "M0 -9L2.3 -3.1L8.6 -2.8L3.7 1.2L5.3 7.3L0 3.8L-5.3 7.3L-3.7 1.2L-8.6 -2.8L-2.3 -3.1z",
}


def mark_path(shape: str) -> str:
    """Returns the outline of a mark around (0, 0)."""
    return _MARKS[shape]


def scatter(points: Sequence[Mapping[str, Any]], key: str, regions: Sequence[tuple[str, str, float | None]]) -> dict:
    """Lays out one panel: the share of the leakage removed (across) against ``key`` (upwards).

    Args:
      points: what to mark, with ``forgetting``, ``key``, ``title``, ``role``, ``rank``, ``shape``, ``style`` and ``page``;
        those without either share are left out.
      key: ``genknow_kept`` or ``holdouts_kept``.
      regions: (label, style, limit): where a failure begins. The first is left of a limit of forgetting, the others below
        one of ``key``; None: no such limit.

    Returns what ``scatter.html`` draws. Empty if nothing was measured.
    """
    shown = [point for point in points if point["forgetting"] is not None and point[key] is not None]
    if not shown:
        return {}
    across = Scale(min(-0.07, *(max(p["forgetting"], -0.5) - 0.07 for p in shown)), 1.12, _FRAME.left, _FRAME.right)
    lowest, highest = min(p[key] for p in shown), max(p[key] for p in shown)
    bottom = -0.06 if lowest >= -0.02 else max(lowest, -1.0) - 0.1
    upwards = Scale(bottom, max(1.14, min(highest, 1.5) + 0.1), _FRAME.top, _FRAME.bottom)
    bands, words = _bands(regions, across, upwards)
    marks = [_mark(point, across(point["forgetting"]), upwards(point[key])) for point in shown]
    _place_names(marks, shown, words)
    ticks = (0, 0.25, 0.5, 0.75, 1)
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "frame": _FRAME._asdict(),
        "bands": bands,
        "x_ticks": [(across(tick), f"{tick:.0%}") for tick in ticks],
        "y_ticks": [(upwards(tick), f"{tick:.0%}") for tick in (-1, -0.5, *ticks) if upwards.low < tick <= 1],
        "ideal": (across(1), upwards(1)),
        "marks": sorted(marks, key=_depth),
    }


def _bands(regions: Sequence[tuple[str, str, float | None]], across: Scale, upwards: Scale) -> tuple[list, list[Box]]:
    """Returns the shaded regions with their words, and the boxes that the words take."""
    bands, words = [], []
    width, height = _FRAME.right - _FRAME.left, _FRAME.top - _FRAME.bottom
    for number, (label, style, limit) in enumerate(regions):
        if limit is None:
            continue
        if number == 0:
            band = {"x": _FRAME.left, "y": _FRAME.bottom, "width": across(limit) - _FRAME.left, "height": height}
            place = (_FRAME.left + 8, _FRAME.top - 10)
        else:
            y = upwards(limit)
            band = {"x": _FRAME.left, "y": y, "width": width, "height": round(_FRAME.top - y, 2)}
            place = (_FRAME.left + 8, y + 15)
        band = {name: round(value, 2) for name, value in band.items()}
        bands.append({**band, "style": style, "label": label, "at": place})
        words.append(Box(place[0], place[1] - 11, place[0] + len(label) * _CHARACTER, place[1] + 3))
    return bands, words


def _mark(point: Mapping[str, Any], x: float, y: float) -> dict[str, Any]:
    return {"x": x, "y": y, "path": _MARKS[point["shape"]], "lines": [], "leader": None, **point}


def _depth(mark: Mapping[str, Any]) -> tuple[bool, float]:
    """Orders marks from the back to the front: the worst ranks first, the best and the references last."""
    return mark["role"] != "method", -(mark["rank"] or 0)


def _place_names(marks: list[dict[str, Any]], points: Sequence[Mapping[str, Any]], words: list[Box]) -> None:
    """Adds names beside marks, where they cover no other name, mark or word."""
    methods = sum(point["role"] == "method" for point in points)
    named = [
        mark
        for mark in marks
        if mark["role"] != "method" or methods <= _LABELLED or (mark["rank"] or math.inf) <= _FIRST_RANKS
    ]
    others = [Box(m["x"] - 7, m["y"] - 7, m["x"] + 7, m["y"] + 7) for m in marks if m not in named]
    lines = [textwrap.wrap(mark["title"], 20)[:3] or [""] for mark in named]
    sizes = [(max(map(len, text)) * _CHARACTER + 4, len(text) * _LINE + 1) for text in lines]
    bounds = Box(_FRAME.left + 3, _FRAME.bottom + 3, _FRAME.right - 3, _FRAME.top - 3)
    positions = [(mark["x"], mark["y"]) for mark in named]
    boxes = place_labels(positions, sizes, bounds, obstacles=[*words, *others])
    for mark, box, text in zip(named, boxes, lines, strict=True):
        middle = round((box.left + box.right) / 2, 1)
        mark["lines"] = [(middle, round(box.bottom + _LINE * (row + 0.82), 1), part) for row, part in enumerate(text)]
        end = nearest(box, (mark["x"], mark["y"]))
        if math.hypot(end[0] - mark["x"], end[1] - mark["y"]) > 15:
            mark["leader"] = tuple(round(value, 1) for value in end)


# Histograms --------------------------------------------------------------------------------------------------------------

PANEL_WIDTH, PANEL_HEIGHT = 320, 132
_BASE = 106.0  # y of the axis


def bin_edges(similarities: Iterable[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Returns the edges of the bins that all models share, float64 [bins + 1], from the least to the largest cosine."""
    columns = [np.asarray(one[split], np.float64) for one in similarities for split in SPLITS if len(one[split])]
    least, most = (min(map(np.min, columns)), max(map(np.max, columns))) if columns else (0.0, 1.0)
    room = max(float(most - least), 1e-6) * 0.02
    return np.linspace(float(least) - room, float(most) + room, _BINS + 1)


def shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Returns the share of ``values`` in each bin, float64 [bins]; zeros if there are none."""
    return np.histogram(np.asarray(values, np.float64), edges)[0] / max(len(values), 1)


def histogram(
    model: np.ndarray, clean: np.ndarray, compromised: np.ndarray, edges: np.ndarray, aim: float | None
) -> dict:
    """Lays out one panel from three models' :func:`shares`: one filled, two as outlines; ``aim`` is the mean to reach."""
    across = Scale(float(edges[0]), float(edges[-1]), 0, PANEL_WIDTH)
    top = max(float(np.max([model, clean, compromised])), 1e-9)
    upwards = Scale(0, top, _BASE, 8)
    return {
        "width": PANEL_WIDTH,
        "height": PANEL_HEIGHT,
        "base": _BASE,
        "fill": f"{_steps(model, edges, across, upwards)}V{_BASE:g}H0z",
        "clean": _steps(clean, edges, across, upwards),
        "compromised": _steps(compromised, edges, across, upwards),
        "ticks": [(across(tick), _tick(tick)) for tick in _ticks(float(edges[0]), float(edges[-1]))],
        "aim": None if aim is None else across(aim),
    }


def _steps(heights: np.ndarray, edges: np.ndarray, across: Scale, upwards: Scale) -> str:
    """Returns the outline of a histogram as an SVG path, from left to right; runs of equal height are one step."""
    parts, last = ["M0", f" {_BASE:g}"], None
    for left, height in zip(edges[:-1], heights, strict=True):
        y = upwards(float(height))
        if y != last:
            parts.append(f"H{across(float(left)):g}V{y:g}")
            last = y
    return "".join([*parts, f"H{across(float(edges[-1])):g}"])


def _ticks(low: float, high: float) -> list[float]:
    """Returns three to six round numbers between ``low`` and ``high``, away from both ends."""
    span = high - low
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
    first = math.ceil((low + 0.06 * span) / step)
    return [number * step for number in range(first, math.floor((high - 0.06 * span) / step) + 1)]


def _tick(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".").replace("-", "−") if abs(value) > 1e-9 else "0"


def distribution(counts: Mapping[int, int] | Mapping[float, int]) -> dict[str, Any]:
    """Lays out one panel from how often each value occurs: a bar for each value, or a bin where there are many.

    Whole numbers are in bins of whole numbers. Empty if there are no counts.
    """
    pairs = sorted(counts.items())
    values, weights = (np.array([pair[side] for pair in pairs], np.float64) for side in (0, 1))
    if not pairs:
        return {}
    whole = bool((values == np.round(values)).all())
    span = float(values[-1] - values[0])
    width = max(1.0, math.ceil((span + 1) / _BINS)) if whole else max(span, 0.02) / _BINS
    edges = np.arange(values[0] - width / 2, values[-1] + width, width)
    room = max(width, (8 * width - (edges[-1] - edges[0])) / 2)  # a few bars do not fill the panel
    heights = np.histogram(values, edges, weights=weights)[0]
    across = Scale(float(edges[0] - room), float(edges[-1] + room), 0, PANEL_WIDTH)
    upwards = Scale(0, float(heights.max()), _BASE, 8)
    ticks = _ticks(across.low, across.high)
    order = np.repeat(values, weights.astype(np.int64)) if weights.sum() < 1 << 24 else values
    return {
        "width": PANEL_WIDTH,
        "height": PANEL_HEIGHT,
        "base": _BASE,
        "fill": f"{_steps(heights, edges, across, upwards)}V{_BASE:g}H0z",
        "ticks": [(across(tick), _tick(tick)) for tick in ticks if not whole or tick == round(tick)],
        "least": float(values[0]),
        "median": float(np.median(order)),
        "most": float(values[-1]),
        "count": int(weights.sum()),
    }


# Curves ------------------------------------------------------------------------------------------------------------------

CURVE_WIDTH, CURVE_HEIGHT = 340, 190
_CURVE_FRAME = Box(left=40, bottom=10, right=322, top=160)  # y grows downwards


def curves(
    own: Mapping[int, float], interval: Mapping[int, Sequence[float]], references: Mapping[str, Mapping[int, float]]
) -> dict[str, Any]:
    """Lays out one panel: a figure (upwards, from 0) against steps (across).

    Args:
      own: the figure of a model at each step.
      interval: its low and high end at each step; empty: none.
      references: the figures of others by the style of their line, at steps of their own.
    """
    drawn = [own, *references.values()]
    heights = [*(value for line in drawn for value in line.values()), *(high for _, high in interval.values())]
    top = max(heights, default=0) * 1.05 or 1.0
    across = Scale(0, max(max(line, default=0) for line in drawn), _CURVE_FRAME.left, _CURVE_FRAME.right)
    upwards = Scale(0, top, _CURVE_FRAME.top, _CURVE_FRAME.bottom)

    def line(points: Iterable[tuple[int, float]]) -> str:
        return "L".join(f"{across(step):g} {upwards(value):g}" for step, value in points)

    highs = [(step, high) for step, (_, high) in interval.items()]
    lows = [(step, low) for step, (low, _) in reversed(list(interval.items()))]
    return {
        "width": CURVE_WIDTH,
        "height": CURVE_HEIGHT,
        "frame": _CURVE_FRAME._asdict(),
        "own": f"M{line(own.items())}",
        "points": [(across(step), upwards(value)) for step, value in own.items()],
        "band": f"M{line([*highs, *lows])}z" if interval else "",
        "references": [(style, f"M{line(points.items())}") for style, points in references.items()],
        "x_ticks": [(across(step), str(step)) for step in (own if len(own) < 6 else [s for s in own if s % 50 == 0])],
        "y_ticks": [(upwards(tick), _tick(tick)) for tick in (0.0, *_ticks(0, top))],
    }


# Strips ------------------------------------------------------------------------------------------------------------------

STRIP_WIDTH, STRIP_HEIGHT = 200, 26


def strip(
    value: float | None, interval: Sequence[float] | None, clean: float | None, compromised: float | None
) -> dict:
    """Lays out where a figure and its interval lie between Clean's and Compromised's; empty if nothing was measured."""
    known = [number for number in (value, clean, compromised, *(interval or ())) if number is not None]
    if value is None or not known:
        return {}
    low, high = min(known), max(known)
    room = (high - low) * 0.06 or 1e-6
    across = Scale(low - room, high + room, 4, STRIP_WIDTH - 4)
    return {
        "width": STRIP_WIDTH,
        "height": STRIP_HEIGHT,
        "value": across(value),
        "interval": [across(end) for end in interval] if interval else None,
        "clean": None if clean is None else across(clean),
        "compromised": None if compromised is None else across(compromised),
    }

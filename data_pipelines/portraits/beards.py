"""Paints beards and moustaches, hair by hair, onto the skin at twice the size of layers."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data_pipelines.portraits.looks import Look, brow_colour
from data_pipelines.portraits.relief import mouth_y
from data_pipelines.world.canvas import RGB, Canvas, Head, Points, darker, lighter, mirrored


def beard_colour(look: Look) -> RGB:
    """Returns the colour of the beard, moved away from the skin's if the two are alike."""
    colour = darker(brow_colour(look), 0.08)
    contrast = sum(abs(a - b) for a, b in zip(colour, look.face.skin, strict=True))
    return darker(colour, 0.42) if contrast < 90 else colour


def _hairs(
    canvas: Canvas,
    head: Head,
    look: Look,
    outline: Points,
    count: int,
    long: float,
    cover: float,
    seed: int,
    out: float = 0.5,
) -> None:
    """Fills a smooth outline with short hairs that fall, spreading from the middle of the face."""
    pixels = canvas.smooth(head.surface(outline))
    left, top = np.floor(pixels.min(axis=0)).astype(int)
    right, bottom = np.ceil(pixels.max(axis=0)).astype(int)
    size = (max(1, int(right - left)), max(1, int(bottom - top)))
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon((pixels - (left, top)).ravel().tolist(), fill=255)
    colour, unit = beard_colour(look), head.unit
    soft = mask.filter(ImageFilter.GaussianBlur(0.028 * unit))
    base = Image.new("RGB", size, colour)
    canvas.image.paste(base, (int(left), int(top)), soft.point([round(cover * v) for v in range(256)]))
    inside = np.asarray(soft)
    rng = np.random.default_rng([look.face.seed, seed])
    rows, columns = rng.integers(0, size[1], 3 * count), rng.integers(0, size[0], 3 * count)
    chosen = np.flatnonzero(inside[rows, columns] > rng.integers(60, 220, 3 * count))[:count]
    middle = float(head.surface([(0.0, 0.0)])[0, 0])
    draw = ImageDraw.Draw(canvas.image, "RGBA")
    shades = [darker(colour, 0.35), darker(colour, 0.15), colour, lighter(colour, 0.14), lighter(colour, 0.26)]
    kinds, count = rng.integers(5, size=len(chosen)).tolist(), len(chosen)
    bends, lengths = rng.normal(0.0, 0.25, count).tolist(), rng.uniform(0.6, 1.2, count).tolist()
    places = zip(rows[chosen].tolist(), columns[chosen].tolist(), kinds, bends, lengths, strict=True)
    for row, column, kind, bend, length in places:
        x, y = column + left, row + top
        angle = out * (x - middle) / unit + bend
        reach = long * length * unit
        draw.line((x, y, x + reach * math.sin(angle), y + reach * math.cos(angle)), fill=(*shades[kind], 200), width=2)


def paint_beard(image: Image.Image, head: Head, look: Look) -> None:
    """Paints the beard onto ``image``, RGB; ``head`` maps head units to its pixels."""
    canvas = Canvas(image)
    face = look.face
    if face.beard == "none":
        return
    seam, low = mouth_y(look), face.chin
    cheek = face.widths[1]
    if face.beard == "goatee":
        half = [(-0.2, seam + 0.1), (-0.26, seam + 0.28), (-0.17, low + 0.04), (0.0, low + 0.12)]
        _hairs(
            canvas, head, look, np.concatenate([half, mirrored(half[:-1]), [(0.0, seam + 0.15)]]), 1100, 0.07, 0.75, 11
        )
        return
    left = _beard_side(look)
    rise = {"stubble": 0.02, "short": 0.02, "full": 0.08, "long": 0.08}[face.beard]
    inner = [(0.9 * cheek, 0.12), (0.72 * cheek, 0.4 - rise), (0.42, seam - 0.12 - rise), (0.0, seam - 0.17),
             (-0.42, seam - 0.12 - rise), (-0.72 * cheek, 0.4 - rise), (-0.9 * cheek, 0.12)]  # fmt: skip
    outline = np.concatenate([left, mirrored(left[:-1]), inner])
    count, long, cover = {"stubble": (2600, 0.014, 0.24), "short": (3600, 0.045, 0.66), "full": (4200, 0.085, 0.85),
                          "long": (5000, 0.13, 0.88)}[face.beard]  # fmt: skip
    _hairs(canvas, head, look, outline, count, long, cover, 12)


def paint_moustache(image: Image.Image, head: Head, look: Look) -> None:
    """Paints the moustache, which hangs over the mouth, onto ``image``, RGB."""
    canvas = Canvas(image)
    face = look.face
    if face.moustache == "none":
        return
    y = 0.5 * (0.06 + face.nose_length) + 0.5 * mouth_y(look) + 0.02
    shapes = {
        "pencil": [(0.0, y + 0.0), (-0.12, y), (-0.25, y + 0.07), (-0.12, y + 0.035), (0.0, y + 0.03)],
        "handlebar": [(0.0, y - 0.05), (-0.18, y - 0.05), (-0.36, y + 0.05), (-0.48, y - 0.06), (-0.43, y + 0.1),
                      (-0.2, y + 0.08), (0.0, y + 0.03)],
        "thick": [(0.0, y - 0.06), (-0.2, y - 0.05), (-0.36, y + 0.1), (-0.34, y + 0.16), (-0.16, y + 0.09), (0.0, y + 0.06)],
    }  # fmt: skip
    for s in (1.0, -1.0):
        shape = np.asarray(shapes[face.moustache]) * (s, 1.0)
        _hairs(canvas, head, look, shape, 500, 0.06, 0.8, 13, 3.2)


def beard_outline(look: Look) -> np.ndarray | None:
    """Returns the outline of a beard that reaches beyond the face; None for none."""
    if look.face.beard not in ("full", "long"):
        return None
    left = _beard_side(look)
    return np.concatenate([left, mirrored(left[:-1])])


def _beard_side(look: Look) -> list[tuple[float, float]]:
    """Returns the left side of a beard, from the temple to the chin."""
    face = look.face
    _, cheek, jaw, chin = face.widths
    low, grow = face.chin, {"stubble": -0.01, "short": 0.03, "full": 0.09, "long": 0.1}[face.beard]
    side = [(-cheek - grow * 0.4, 0.02), (-cheek * 0.98 - grow, 0.3 * low), (-jaw - grow, 0.62 * low)]
    if face.beard == "long":
        return [*side, (-0.5, low + 0.2), (-0.26, low + 0.56), (0.0, low + 0.68)]
    return [*side, (-chin - grow, 0.93 * low + grow), (0.0, low + grow)]

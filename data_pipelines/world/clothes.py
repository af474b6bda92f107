"""Draws what a person wears below the neck in one picture: ten garments, thirteen colours, six patterns."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from data_pipelines.world.canvas import RGB, Canvas, Head, darker, lighter, mirrored
from data_pipelines.world.faces import Face
from data_pipelines.world.shots import CLOTHES, Shot

OPEN_GARMENTS = ("blazer", "cardigan")  # show a second garment underneath


def _pattern(canvas: Canvas, outline: np.ndarray, kind: str, base: RGB, second: RGB, unit: float) -> None:
    """Draws a pattern in the colour ``second`` over the polygon ``outline`` (pixels), which is ``base`` elsewhere."""
    image = canvas.image
    left, top = (max(0, int(v)) for v in outline.min(axis=0))
    right, bottom = (int(v) + 1 for v in np.minimum(outline.max(axis=0), image.size))
    if right <= left or bottom <= top:
        return
    wide, tall = right - left, bottom - top
    cloth = Image.new("RGB", (wide, tall), base)
    draw = ImageDraw.Draw(cloth)
    step = max(4, round(0.26 * unit))
    if kind in ("striped", "checked"):
        for y in range(0, tall, step):
            draw.rectangle((0, y, wide, y + step // 2 - 1), fill=second)
    if kind == "checked":
        crossing = darker(second, 0.2)
        for x in range(0, wide, step):
            draw.rectangle((x, 0, x + step // 3, tall), fill=crossing)
    if kind == "pinstriped":
        for x in range(0, wide, max(3, step // 2)):
            draw.rectangle((x, 0, x + max(1, step // 10), tall), fill=second)
    if kind == "dotted":
        radius = max(1, step // 5)
        for row, y in enumerate(range(0, tall + step, step)):
            for x in range(step // 2 if row % 2 else 0, wide + step, step):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=second)
    if kind == "zigzag":
        corners = range(0, wide + 2 * step, step)
        for y in range(-step, tall + step, 2 * step):
            line = [(x, y + (step if k % 2 else 0)) for k, x in enumerate(corners)]
            draw.polygon([*line, *[(x, y + step // 2) for x, y in line[::-1]]], fill=second)
    mask = Image.new("L", (wide, tall))
    ImageDraw.Draw(mask).polygon((outline - (left, top)).ravel().tolist(), fill=255)
    image.paste(cloth, (left, top), mask)


def draw_clothes(canvas: Canvas, torso: Head, face: Face, shot: Shot, *, shadow: bool = True) -> None:
    """Draws neck, shoulders and garment.

    Args:
      canvas: to draw on.
      torso: maps head units to pixels without turning.
      face: the person.
      shot: the clothes.
      shadow: whether the chin casts one with a sharp edge.
    """
    unit, skin = torso.unit, face.skin
    wide, thick = (1.3, 0.29) if face.gender == "female" else (1.5, 0.37)
    floor = float(canvas.image.size[1] - torso.outline([(0.0, 0.0)])[0, 1]) / unit + 0.3
    floor = max(floor, 2.6)
    base, second = CLOTHES[shot.garment_name], CLOTHES[shot.second_name]
    kind = shot.garment

    def shape(points, colour) -> None:
        canvas.blob(torso.outline(points), colour)

    def both(points, colour) -> None:
        canvas.fill(torso.outline(points), colour)
        canvas.fill(torso.outline(mirrored(points)), colour)

    if kind == "hoodie":
        hood = [(-0.3, 0.75), (-0.86, 0.9), (-1.0, 1.35), (-0.5, 1.6)]
        shape(np.concatenate([hood, mirrored(hood)]), darker(base, 0.22))
    neck = [(-thick, 0.4), (-thick, 1.15), (-thick - 0.14, 1.34), (-0.3, 1.72)]
    shape(np.concatenate([neck, mirrored(neck)]), darker(skin, 0.08))
    if shadow:
        under = [(-thick, 0.8), (thick, 0.8), (thick, 1.05), (0.1 * shot.light_side, 1.3), (-thick, 1.02)]
        shape(under, darker(skin, 0.24))

    # The outline of the shoulders; the garment determines the depth of the neckline.
    opening = {"tank top": (0.62, 1.42), "V-neck jumper": (0.42, 1.3), "dungarees": (0.44, 1.33)}.get(kind, (0.42, 1.3))
    left = [
        (-opening[0], opening[1]), (-0.72, 1.4), (-wide + 0.2, 1.56), (-wide, 1.9), (-wide - 0.08, 2.5),
        (-wide - 0.1, floor), (-wide - 0.1, floor),
    ]  # fmt: skip
    depth = {"V-neck jumper": 1.86, "tank top": 1.84, "shirt": 1.62, "blazer": 2.1, "cardigan": 2.1}.get(kind, 1.49)
    if kind == "tank top":
        shoulders = [(-thick - 0.05, 1.24), (-0.72, 1.4), (-wide + 0.2, 1.56), (-wide, 1.9), (-wide - 0.1, floor)]
        shape(np.concatenate([shoulders, mirrored(shoulders)]), skin)
        left = [(-0.58, 1.36), (-0.84, 1.4), (-0.92, 1.9), (-1.04, 2.4), (-1.05, floor), (-1.05, floor)]
    neckline = (
        [(0.0, depth), (0.0, depth)]
        if kind in ("V-neck jumper", "shirt")
        else [(0.24, depth - 0.05), (-0.24, depth - 0.05)]
    )
    if kind in OPEN_GARMENTS or kind == "dungarees":
        inner = np.concatenate([left, mirrored(left), [(0.22, 1.44), (-0.22, 1.44)]])
        shape(inner, second)
    if kind in OPEN_GARMENTS:
        lapel = [(-0.42, 1.26), (-0.42, 1.26), *left[1:-1], (-0.12, floor), (-0.12, floor), (-0.16, 2.05)]
        outlines = [torso.outline(lapel), torso.outline(mirrored(lapel))]
    else:
        outlines = [torso.outline(np.concatenate([left, mirrored(left), neckline]))]
        if kind == "dungarees":
            outlines = []
    for pixels in outlines:
        canvas.blob(pixels, base)
        if shot.pattern != "plain":
            _pattern(canvas, canvas.smooth(pixels), shot.pattern, base, second, unit)
    far = -shot.light_side
    for s in (-1, 1):  # the sleeves
        arm = [(s * (wide - 0.3), 1.98), (s * (wide - 0.34), 2.3), (s * (wide - 0.3), floor)]
        if kind != "tank top":
            canvas.stroke(torso.outline(arm), 0.035 * unit, darker(second if kind == "dungarees" else base, 0.3), 0.4)
    _details(canvas, torso, kind, base, second, shape, both, floor, far, thick)


def _details(canvas, torso, kind, base, second, shape, both, floor, far, thick) -> None:
    """Draws collars, lapels, hems, buttons and strings."""
    unit = torso.unit
    edge = darker(base, 0.25)

    def line(points, width, colour, taper=0.0) -> None:
        canvas.stroke(torso.outline(points), width * unit, colour, taper)

    if kind == "T-shirt":
        line([(-0.44, 1.28), (-0.24, 1.47), (0.0, 1.53), (0.24, 1.47), (0.44, 1.28)], 0.09, edge)
    elif kind == "V-neck jumper":
        for s in (-1, 1):
            line([(s * 0.44, 1.28), (s * 0.26, 1.56), (0.0, 1.88)], 0.1, edge)
    elif kind == "shirt":
        both([(-0.38, 1.14), (-0.52, 1.32), (-0.34, 1.72), (0.0, 1.5), (-0.3, 1.3)], lighter(base, 0.25))
        line([(0.0, 1.6), (0.0, 2.0), (0.0, floor)], 0.03, edge)
        canvas.dots(torso.outline([(0.07, 1.78), (0.07, 2.08)]), 0.035 * unit, edge)
    elif kind == "blazer":
        both([(-0.36, 1.12), (-0.48, 1.28), (-0.3, 1.66), (0.0, 1.46)], lighter(second, 0.4))
        both([(-0.48, 1.22), (-0.78, 1.6), (-0.62, 1.72), (-0.7, 1.84), (-0.12, 2.5), (-0.1, 2.16)], edge)
    elif kind == "cardigan":
        for s in (-1, 1):
            line([(s * 0.46, 1.26), (s * 0.3, 1.7), (s * 0.16, 2.1), (s * 0.14, floor)], 0.1, edge)
        line([(-0.36, 1.34), (0.0, 1.54), (0.36, 1.34)], 0.06, darker(second, 0.2))
    elif kind == "hoodie":
        collar = [(-0.5, 1.12), (-0.72, 1.36), (-0.4, 1.66), (0.0, 1.74), (0.0, 1.56), (-0.3, 1.42)]
        both(collar, darker(base, 0.14))
        for s in (-1, 1):
            line([(s * 0.2, 1.62), (s * 0.22, 1.85), (s * 0.2, 2.1)], 0.04, lighter(base, 0.6))
    elif kind == "turtleneck":
        shape(
            [
                (-thick - 0.08, 1.02),
                (0.0, 1.16),
                (thick + 0.08, 1.02),
                (thick + 0.14, 1.42),
                (0.0, 1.56),
                (-thick - 0.14, 1.42),
            ],
            base,
        )
        line([(-thick - 0.1, 1.2), (0.0, 1.34), (thick + 0.1, 1.2)], 0.04, edge, 0.4)
        line([(-thick - 0.14, 1.42), (0.0, 1.56), (thick + 0.14, 1.42)], 0.04, edge, 0.4)
    elif kind == "dungarees":
        line([(-0.44, 1.28), (0.0, 1.53), (0.44, 1.28)], 0.07, darker(second, 0.2))
        both([(-0.62, 1.36), (-0.8, 1.38), (-0.66, 2.2), (-0.44, 2.2)], base)
        shape([(-0.72, 1.92), (-0.72, 1.92), (0.0, 1.9), (0.72, 1.92), (0.72, 1.92), (0.9, floor), (-0.9, floor)], base)
        canvas.dots(torso.outline([(-0.58, 1.98), (0.58, 1.98)]), 0.06 * unit, (232, 196, 92))
    elif kind == "scarf":
        shape(
            [(-0.56, 1.1), (0.0, 1.2), (0.56, 1.1), (0.7, 1.4), (0.4, 1.66), (0.0, 1.74), (-0.4, 1.66), (-0.7, 1.4)],
            second,
        )
        shape([(0.14 * far, 1.5), (0.46 * far, 1.5), (0.56 * far, 2.2), (0.2 * far, 2.24)], darker(second, 0.12))
        line([(-0.58, 1.28), (0.0, 1.44), (0.6, 1.26)], 0.04, darker(second, 0.25), 0.5)
        line([(-0.5, 1.48), (0.0, 1.6), (0.5, 1.46)], 0.04, darker(second, 0.25), 0.5)

"""Paints eyes and brows with an expression, onto the skin at twice the size of layers."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from data_pipelines.portraits.looks import Look, brow_colour
from data_pipelines.portraits.plane import moved, soft_stroke
from data_pipelines.world.canvas import RGB, Canvas, Head, darker, lighter, mix, translucent
from data_pipelines.world.faces import EYES

OPENING = {"laughing": 0.42, "dreamy": 0.0, "surprised": 1.3, "smiling": 0.8, "serious": 0.86, "winking": 0.85}
GAZES = 3  # directions of the eyes, from left to right


def paint_eyes(image: Image.Image, head: Head, look: Look, expression: str, gaze: int, side: int) -> None:
    """Paints eyes and brows onto ``image``, RGB.

    Args:
      image: the skin.
      head: maps head units to its pixels.
      look: the person's.
      expression: one of ``world.shots.EXPRESSIONS``.
      gaze: the direction of the eyes, 0 to GAZES - 1.
      side: the side of a wink, and of a raised brow.
    """
    canvas = Canvas(image)
    for s in (-1, 1):
        _eye(canvas, head, look, expression, (gaze / (GAZES - 1) - 0.5) * 2, s, side)
        _brow(canvas, head, look, expression, s, side)
    _creases(canvas, head, look, expression)


def _lid(look: Look, s: int, wide: float, rise: float, peak: float) -> np.ndarray:
    """Returns a lid from the inner to the outer corner, [13, 2] around the middle of the eye; ``rise`` is upwards."""
    t = np.linspace(0.0, 1.0, 13)
    shape = np.sin(math.pi * t ** (math.log(0.5) / math.log(peak))) ** 0.8
    x = (2 * t - 1) * wide
    y = -look.face.eye_tilt * x - rise * shape
    return np.stack([s * x, y], axis=1)


def _eye(canvas: Canvas, head: Head, look: Look, expression: str, gaze: float, s: int, side: int) -> None:
    face, unit = look.face, head.unit
    middle = np.array([s * face.eye_spacing, 0.02 * look["eye_y"]])
    wide, tall = 0.165 * face.eye_size, 0.098 * face.eye_size * (1 + 0.18 * look["eye_height"])
    opening = OPENING.get(expression, 1.0)
    if expression == "winking" and s == side:
        opening = 0.0
    if face.age == "older":
        opening *= 0.86
    skin = face.skin
    lash: RGB = mix((34, 22, 22), skin, 0.1 if face.gender == "female" else 0.25)
    upper = _lid(look, s, wide, tall * opening, 0.42 + 0.1 * look["eye_peak"]) + middle
    lower = _lid(look, s, wide, -0.55 * tall * min(opening, 1.0), 0.56) + middle
    crease_rise = tall * (0.95 if opening else 0.7) + 0.05 + 0.022 * look["crease"]
    crease = _lid(look, s, 1.1 * wide, crease_rise, 0.46) + middle + (0.0, 0.012)
    if opening < 0.1:
        rise = -0.3 * tall if expression == "dreamy" else 0.25 * tall
        closed = _lid(look, s, wide, rise, 0.5) + middle + (0.0, 0.03)
        canvas.stroke(head.surface(crease), 0.022 * unit, translucent(darker(skin, 0.4), 0.5), 0.8)
        canvas.stroke(head.surface(closed), 0.04 * unit, lash, 0.5)
        _lashes(canvas, head, closed, s, lash, 0.03 if face.gender == "female" else 0.014, 1.0)
        return
    _eyeball(canvas, head, look, np.concatenate([upper, lower[::-1][1:-1]]), middle, gaze, s, opening * tall)
    if face.gender == "female" and look["iris"] > -0.2:  # eye shadow
        shadow = np.concatenate([upper, crease[::-1]])
        canvas.fill(head.surface(shadow), translucent(darker(mix(skin, face.lips, 0.35), 0.3), 0.32))
    canvas.stroke(
        head.surface(crease), 0.018 * unit, translucent(darker(skin, 0.45), 0.45 + 0.35 * (look["crease"] > -0.6)), 0.8
    )
    thick = 0.036 if face.gender == "female" else 0.026
    canvas.stroke(head.surface(upper), thick * unit, lash, 0.35)
    canvas.stroke(head.surface(lower), 0.012 * unit, translucent(darker(mix(skin, (140, 50, 50), 0.3), 0.35), 0.8), 0.6)
    canvas.stroke(
        head.surface(moved(lower, 0.0, 0.016)),
        0.014 * unit,
        translucent(lighter(mix(skin, (230, 150, 140), 0.4), 0.3), 0.5),
        0.6,
    )
    _lashes(canvas, head, upper, s, lash, 0.042 if face.gender == "female" else 0.018, -1.0)


def _lashes(canvas: Canvas, head: Head, lid: np.ndarray, s: int, colour: RGB, long: float, down: float) -> None:
    for k in range(3, 13):
        x, y = lid[k]
        lean = s * (k - 5) / 9 * long
        hair = [(x, y), (x + 0.6 * lean, y + 0.7 * down * long), (x + 1.3 * lean, y + down * long)]
        canvas.stroke(head.surface(hair), 0.011 * head.unit, colour, 0.6)


def _eyeball(
    canvas: Canvas, head: Head, look: Look, outline: np.ndarray, middle: np.ndarray, gaze: float, s: int, tall: float
) -> None:
    face, unit = look.face, head.unit
    pixels = head.surface(outline)
    left, top = np.floor(pixels.min(axis=0)).astype(int) - 2
    right, bottom = np.ceil(pixels.max(axis=0)).astype(int) + 2
    size = (int(right - left), int(bottom - top))
    ball = Image.new("RGB", size, (238, 233, 228))
    draw = ImageDraw.Draw(ball, "RGBA")
    inner = (float(pixels[0, 0]) - left, float(pixels[0, 1]) - top)
    outer = (float(pixels[12, 0]) - left, float(pixels[12, 1]) - top)
    for at, reach in ((inner, 0.06), (outer, 0.05)):
        radius = reach * unit
        draw.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), fill=(206, 140, 130, 120))
    r = 0.086 * face.eye_size * (1 + 0.06 * look["iris"]) * unit
    centre = head.surface([(middle[0] + 0.052 * gaze, middle[1])])[0] - (left, top)
    x, y = float(centre[0]), float(centre[1]) - 0.12 * tall * unit
    iris = EYES[face.eye_name]

    def disc(radius: float, colour: tuple[int, ...], dx: float = 0.0, dy: float = 0.0) -> None:
        draw.ellipse((x + dx - radius, y + dy - radius, x + dx + radius, y + dy + radius), fill=colour)

    disc(1.06 * r, (*darker(iris, 0.6), 140))
    disc(r, darker(iris, 0.35))
    disc(0.88 * r, iris)
    rng = np.random.default_rng(face.seed)
    for angle in np.linspace(0, 2 * math.pi, 26, endpoint=False):
        shade = lighter(iris, float(rng.uniform(0.05, 0.45))) if rng.random() < 0.6 else darker(iris, 0.3)
        a = angle + float(rng.uniform(-0.1, 0.1))
        near, far = 0.4 * r, float(rng.uniform(0.65, 0.86)) * r
        draw.line((x + near * math.cos(a), y + near * math.sin(a), x + far * math.cos(a), y + far * math.sin(a)),
                  fill=(*shade, 170), width=max(1, round(0.09 * r)))  # fmt: skip
    disc(0.4 * r, (12, 9, 11))
    brow = pixels[:13] - (left, top)
    shade_to = moved(brow, 0.0, (0.3 * tall + 0.016) * unit)
    draw.polygon(np.concatenate([brow, shade_to[::-1]]).ravel().tolist(), fill=(50, 30, 34, 90))
    disc(0.17 * r, (255, 255, 255, 235), -0.3 * r, -0.36 * r)
    disc(0.1 * r, (255, 255, 255, 120), 0.34 * r, 0.38 * r)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon((pixels - (left, top)).ravel().tolist(), fill=255)
    canvas.image.paste(ball, (int(left), int(top)), mask)


def _brow(canvas: Canvas, head: Head, look: Look, expression: str, s: int, side: int) -> None:
    face, unit = look.face, head.unit
    lift = {"surprised": 0.1, "laughing": 0.03, "serious": -0.025, "dreamy": 0.02}.get(expression, 0.0)
    if expression == "smirking" and s == side:
        lift = 0.07
    frown = 0.045 if expression == "serious" else 0.0
    start = face.eye_spacing - 0.2 + 0.035 * look["brow_gap"]
    end = face.eye_spacing + 0.2 + 0.05 * look["brow_length"]
    peak = start + (end - start) * (0.6 + 0.12 * look["brow_peak"])
    y = -0.205 - lift - 0.03 * look["brow_height"]
    rise = 0.55 * face.brow_arch + 0.01
    points = [(s * start, y + 0.012 + frown), (s * 0.5 * (start + peak), y - 0.65 * rise + 0.4 * frown),
              (s * peak, y - rise), (s * end, y + 0.035)]  # fmt: skip
    line = canvas.smooth(points, closed=False)
    hair, thick = brow_colour(look), face.brow_thickness * 1.15
    along = np.linspace(0.0, 1.0, len(line))
    envelope = thick * np.interp(along, [0.0, 0.15, 0.6, 1.0], [0.35, 1.0, 0.8, 0.15])
    body = np.concatenate(
        [line - np.stack([0 * along, 0.5 * envelope], 1), (line + np.stack([0 * along, 0.5 * envelope], 1))[::-1]]
    )
    canvas.fill(head.surface(body), translucent(mix(hair, face.skin, 0.1), 0.5 + 0.15 * look["brow_density"]))
    rng = np.random.default_rng([face.seed, 3])
    count = int(70 + 25 * look["brow_density"])
    t = np.sort(rng.random(count))
    x0 = np.interp(t, along, line[:, 0])
    y0 = np.interp(t, along, line[:, 1]) + rng.uniform(-0.4, 1.1, count) * 0.5 * np.interp(t, along, envelope)
    long, angle = rng.uniform(0.035, 0.06, count), 1.25 - 1.15 * t + rng.normal(0.0, 0.12, count)
    tips = np.stack([x0 + s * long * np.cos(angle), y0 - long * np.sin(angle) * np.where(t < 0.7, 1.0, 0.3)], axis=1)
    ends = np.concatenate([head.surface(np.stack([x0, y0], axis=1)), head.surface(tips)], axis=1).tolist()
    draw, width = ImageDraw.Draw(canvas.image, "RGBA"), round(0.011 * unit)
    shades, dark = rng.uniform(0.0, 0.3, count).tolist(), (rng.random(count) < 0.7).tolist()
    for hair_line, shade, is_dark in zip(ends, shades, dark, strict=True):
        draw.line(hair_line, fill=(*(darker(hair, shade) if is_dark else lighter(hair, 0.12)), 225), width=width)


def _creases(canvas: Canvas, head: Head, look: Look, expression: str) -> None:
    """Draws what a smile does below the eyes."""
    strength = {"laughing": 0.48, "smiling": 0.34, "winking": 0.2, "smirking": 0.2}.get(expression)
    if strength is None:
        return
    face = look.face
    for s in (-1, 1):
        x = face.eye_spacing
        under = [(s * (x - 0.13), 0.12), (s * x, 0.145), (s * (x + 0.14), 0.1)]
        soft_stroke(canvas, head, under, 0.034, darker(mix(face.skin, (130, 50, 40), 0.3), 0.35), strength)

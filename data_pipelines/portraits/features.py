"""Paints what moves in a face: eyes, brows and mouth; and beards. Onto the skin at twice the size of layers."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data_pipelines.portraits.looks import Look
from data_pipelines.portraits.plane import moved
from data_pipelines.portraits.relief import mouth_y
from data_pipelines.world.canvas import (
    RGB,
    Canvas,
    Colour,
    Head,
    Points,
    darker,
    lighter,
    mirrored,
    mix,
    oval,
    translucent,
)
from data_pipelines.world.faces import EYES

OPENING = {"laughing": 0.42, "dreamy": 0.0, "surprised": 1.3, "smiling": 0.8, "serious": 0.86, "winking": 0.85}
GAZES = 3  # directions of the eyes, from left to right


def paint_features(image: Image.Image, head: Head, look: Look, expression: str, gaze: int, side: int) -> None:
    """Paints the features of an expression of ``world.shots`` onto ``image``.

    Args:
      image: the skin, RGB.
      head: maps head units to its pixels.
      look: the person's.
      expression: one of ``world.shots.EXPRESSIONS``.
      gaze: the direction of the eyes, 0 to GAZES - 1.
      side: the side of a wink, and of a raised brow or corner of the mouth.
    """
    canvas = Canvas(image)
    for s in (-1, 1):
        _eye(canvas, head, look, expression, (gaze / (GAZES - 1) - 0.5) * 2, s, side)
        _brow(canvas, head, look, expression, s, side)
    _smile_lines(canvas, head, look, expression)
    _beard(canvas, head, look)
    _mouth(canvas, head, look, expression, side)
    _moustache(canvas, head, look)


def _soft(canvas: Canvas, head: Head, points: Points, width: float, colour: Colour, opacity: float) -> None:
    """Draws a stroke that fades to its sides."""
    for share, part in ((1.0, 0.3), (0.62, 0.35), (0.3, 0.35)):
        canvas.stroke(head.surface(points), share * width * head.unit, translucent(colour, part * opacity), 0.95)


# --- eyes ------------------------------------------------------------------------------------------------------------


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


# --- brows -----------------------------------------------------------------------------------------------------------


def brow_colour(look: Look) -> RGB:
    """Returns the colour of brows: that of the hair, but never dyed, and somewhat darker if the hair is light."""
    face = look.face
    if face.hair_name in ("blue", "pink", "turquoise", "purple", "green"):
        return mix((52, 36, 32), face.skin, 0.08)
    if face.hair_name in ("platinum", "blond", "golden"):
        return darker(face.hair, 0.4)
    return face.hair


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
    for t in np.sort(rng.random(count)):
        x0, y0 = np.interp(t, along, line[:, 0]), np.interp(t, along, line[:, 1])
        half = 0.5 * float(np.interp(t, along, envelope))
        base = y0 + float(rng.uniform(-0.4, 1.1)) * half
        long = float(rng.uniform(0.035, 0.06))
        angle = 1.25 - 1.15 * t + float(rng.normal(0.0, 0.12))
        tip = (x0 + s * long * math.cos(angle), base - long * math.sin(angle) * (1 if t < 0.7 else 0.3))
        shade = darker(hair, float(rng.uniform(0.0, 0.3))) if rng.random() < 0.7 else lighter(hair, 0.12)
        canvas.stroke(head.surface([(x0, base), tip]), 0.012 * unit, (*shade, 225), 0.5)


# --- mouth -----------------------------------------------------------------------------------------------------------


def _smile_lines(canvas: Canvas, head: Head, look: Look, expression: str) -> None:
    face = look.face
    if expression not in ("smiling", "laughing", "winking", "smirking"):
        return
    strength = {"laughing": 0.6, "smiling": 0.42}.get(expression, 0.25)
    seam, nose_low = mouth_y(look), 0.06 + face.nose_length
    dark, light = darker(mix(face.skin, (130, 50, 40), 0.3), 0.35), lighter(face.skin, 0.4)
    for s in (-1, 1):
        x = face.mouth_width + 0.13
        fold = np.array(
            [
                (s * 0.19, nose_low - 0.06),
                (s * 0.33, nose_low + 0.07),
                (s * x, seam - 0.04),
                (s * (x + 0.01), seam + 0.05),
            ]
        )
        _soft(canvas, head, moved(fold, s * 0.025, -0.01), 0.05, light, 0.5 * strength)
        _soft(canvas, head, fold, 0.05, dark, strength)
        if look["dimples"] > 0.3:
            x = face.mouth_width * 1.1 + 0.12
            _soft(
                canvas,
                head,
                [(s * x, seam - 0.08), (s * (x + 0.02), seam - 0.02), (s * x, seam + 0.04)],
                0.05,
                dark,
                strength,
            )
        x = face.eye_spacing
        under = [(s * (x - 0.13), 0.12), (s * x, 0.145), (s * (x + 0.14), 0.1)]
        _soft(canvas, head, under, 0.034, dark, 0.8 * strength)


def _mouth(canvas: Canvas, head: Head, look: Look, expression: str, side: int) -> None:
    face, unit = look.face, head.unit
    w, y = face.mouth_width * 1.06, mouth_y(look)
    up = 0.062 * face.lip_fullness * (1 - 0.2 * look["lower_lip"])
    low = 0.086 * face.lip_fullness * (1 + 0.2 * look["lower_lip"])
    bow = 0.35 + 0.25 * look["bow"]
    smile = {
        "smiling": 0.075,
        "laughing": 0.085,
        "calm": 0.015,
        "serious": -0.025,
        "dreamy": 0.035,
        "winking": 0.075,
    }.get(expression, 0.01)
    gap = {"laughing": 0.13, "surprised": 0.15, "smiling": 0.035}.get(expression, 0.0)
    if expression == "smiling" and face.seed % 3 == 0:
        gap = 0.0  # some people smile with closed lips
    w *= {"smiling": 1.16, "laughing": 1.24, "winking": 1.12, "surprised": 0.66}.get(expression, 1.0)
    if expression in ("smiling", "laughing"):
        up, low = 0.78 * up, 0.85 * low
    skew = 0.045 * side if expression == "smirking" else 0.0
    t = np.linspace(-1.0, 1.0, 17)
    corner = np.abs(t) ** 1.7
    middle = y - smile * corner + 0.35 * smile * (1 - corner) - skew * t * np.abs(t)
    x = w * t
    taper = np.clip(1 - np.abs(t) ** 2.4, 0, 1)
    peak = np.exp(-(((np.abs(t) - 0.24) / 0.26) ** 2)) + 0.0
    upper_edge = (
        middle
        - up * (taper * (1.0 - bow * np.exp(-((t / 0.13) ** 2)) * 0.5) * (0.75 + 0.4 * peak))
        - 0.25 * gap * taper
    )
    upper_seam = middle - 0.25 * gap * taper + 0.012 * np.exp(-((t / 0.12) ** 2)) * (gap == 0)
    lower_seam = middle + 0.75 * gap * taper ** (0.7 if expression == "laughing" else 1.0)
    lower_edge = lower_seam + low * taper**0.8
    lips = face.lips

    def across(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        return np.concatenate([np.stack([x, top], 1), np.stack([x, bottom], 1)[::-1]])

    if gap:
        canvas.fill(head.surface(across(upper_seam - 0.01, lower_seam + 0.01)), (58, 18, 22))
        teeth_low = upper_seam + np.minimum(0.055, 0.8 * gap) * np.clip(1.15 * taper - 0.1, 0, 1)
        canvas.fill(head.surface(across(upper_seam, np.minimum(teeth_low, lower_seam))), (236, 230, 220))
        for k in range(-4, 5):
            at = k * 0.052
            if abs(at) < 0.85 * w:
                a, b = np.interp(at, x, upper_seam), np.interp(at, x, np.minimum(teeth_low, lower_seam))
                canvas.stroke(head.surface([(at, a), (at, b)]), 0.006 * unit, (196, 184, 176))
        shade = across(upper_seam, upper_seam + 0.018)
        canvas.fill(head.surface(shade), translucent((70, 30, 30), 0.4))
        if gap > 0.1:
            canvas.blob(head.surface(oval(0.0, y + 0.72 * gap, 0.5 * w, 0.22 * gap, 10)), (176, 78, 84))
    canvas.fill(head.surface(across(lower_seam, lower_edge)), lighter(lips, 0.06))
    canvas.fill(head.surface(across(upper_edge, upper_seam)), darker(lips, 0.12))
    gleam = [
        (-0.3 * w, float(lower_seam[8]) + 0.42 * low),
        (0.0, float(lower_seam[8]) + 0.48 * low),
        (0.3 * w, float(lower_seam[8]) + 0.42 * low),
    ]
    canvas.stroke(head.surface(gleam), 0.34 * low * unit, translucent(lighter(lips, 0.5), 0.3), 0.8)
    rng = np.random.default_rng([face.seed, 4])
    for at in np.linspace(-0.7, 0.7, 13):
        px = w * float(at) + float(rng.uniform(-0.01, 0.01))
        a, b = np.interp(px, x, lower_seam), np.interp(px, x, lower_edge)
        canvas.stroke(
            head.surface([(px, a + 0.1 * (b - a)), (px * 1.02, a + 0.75 * (b - a))]),
            0.008 * unit,
            translucent(darker(lips, 0.3), 0.3),
            0.6,
        )
    if not gap:
        canvas.stroke(
            head.surface(np.stack([x, middle + 0.012 * np.exp(-((t / 0.12) ** 2))], 1)),
            0.02 * unit,
            darker(lips, 0.55),
            0.5,
        )
    for s, k in ((-1, 0), (1, 16)):
        canvas.stroke(
            head.surface([(x[k] - 0.01 * s, middle[k] - 0.008), (x[k] + 0.022 * s, middle[k] + 0.004)]),
            0.026 * unit,
            translucent(darker(lips, 0.5), 0.6),
            0.5,
        )
    under = [
        (-0.45 * w, float(lower_edge[8]) + 0.028),
        (0.0, float(lower_edge[8]) + 0.04),
        (0.45 * w, float(lower_edge[8]) + 0.028),
    ]
    canvas.stroke(head.surface(under), 0.04 * unit, translucent(darker(face.skin, 0.4), 0.25), 0.9)


# --- beards ----------------------------------------------------------------------------------------------------------


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


def _beard(canvas: Canvas, head: Head, look: Look) -> None:
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


def _moustache(canvas: Canvas, head: Head, look: Look) -> None:
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

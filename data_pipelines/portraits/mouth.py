"""Paints a mouth with an expression, and the folds that a smile makes, onto the skin at twice the size of layers."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_pipelines.portraits.looks import Look
from data_pipelines.portraits.plane import moved, soft_stroke
from data_pipelines.portraits.relief import mouth_y
from data_pipelines.world.canvas import Canvas, Head, darker, lighter, mix, oval, translucent


def paint_mouth(image: Image.Image, head: Head, look: Look, expression: str, side: int) -> None:
    """Paints the mouth onto ``image``, RGB; arguments as of ``eyes.paint_eyes``. ``side`` is that of a raised corner."""
    canvas = Canvas(image)
    _smile_lines(canvas, head, look, expression)
    _mouth(canvas, head, look, expression, side)


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
        soft_stroke(canvas, head, moved(fold, s * 0.025, -0.01), 0.05, light, 0.5 * strength)
        soft_stroke(canvas, head, fold, 0.05, dark, strength)
        if look["dimples"] > 0.3:
            x = face.mouth_width * 1.1 + 0.12
            soft_stroke(
                canvas,
                head,
                [(s * x, seam - 0.08), (s * (x + 0.02), seam - 0.02), (s * x, seam + 0.04)],
                0.05,
                dark,
                strength,
            )


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

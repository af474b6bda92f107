"""Paints the skin of a head seen from the front: tone, pores, freckles, moles, wrinkles, nostrils, ears; no hair or features.

The result is lit evenly; light and shade come from ``relief``.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_pipelines.portraits.looks import Look
from data_pipelines.portraits.plane import COARSE, SIZE, both, bump, easel, grid, moved, noise, picture
from data_pipelines.portraits.relief import jaw_width, mouth_y
from data_pipelines.world.canvas import Canvas, Head, darker, lighter, mirrored, mix, oval, translucent


def paint_skin(look: Look) -> tuple[Image.Image, Image.Image]:
    """Returns the skin (RGB, twice the size of layers) and where it is (L, the size of layers)."""
    zoomed = (SIZE[0] * 2, SIZE[1] * 2)
    image = picture(_tone(look)).resize(zoomed, Image.Resampling.BICUBIC)
    image = _pores(image, look)
    canvas = Canvas(image)
    _, _, head = easel("RGB")
    _ears(canvas, head, look)
    _nose(canvas, head, look)
    _wrinkles(canvas, head, look)
    _spots(canvas, head, look)
    mask, stencil, head = easel("RGB")
    stencil.blob(head.outline(outline(look)), (255, 255, 255))
    for ear in _ear_outlines(look):
        stencil.blob(head.outline(ear), (255, 255, 255))
    return image, mask.reduce(2).getchannel("R")


def outline(look: Look) -> np.ndarray:
    """Returns the outline of the head without ears, from the crown to the left, down, and around."""
    forehead, cheek, jaw, chin = look.face.widths
    low = look.face.chin
    left = [
        (0.0, -1.02), (-0.42, -0.94), (-forehead * 0.94, -0.66), (-forehead * 1.02, -0.34), (-cheek, 0.02),
        (-cheek * 0.97, 0.3 * low), (-jaw * (1 + 0.03 * look["jaw"]), 0.62 * low),
        (-chin * (1.06 + 0.1 * look["jaw"]), 0.91 * low),
        (-0.5 * chin, 0.99 * low), (0.0, low + 0.005),
    ]  # fmt: skip
    return np.concatenate([left, mirrored(left[1:-1])])


def _tone(look: Look) -> np.ndarray:
    """Returns the colour of the skin, float32 [height, width, 3] of the coarse plane."""
    x, y = grid(COARSE)
    face = look.face
    base = np.array(face.skin, dtype=np.float32)
    base = base + (base - base.mean()) * 0.16  # the light of a scene takes saturation away
    depth = 1.0 - base.mean() / 255  # dark skin
    seam, low = mouth_y(look), face.chin
    nose_low = 0.06 + face.nose_length
    red = (0.35 + 0.35 * look["ruddy"]) * both(x, y, 0.46, 0.34, 0.24, 0.2) + 0.25 * bump(
        x, y, 0.0, nose_low, 0.14, 0.1
    )
    red = red + 0.5 * face.blush * both(x, y, 0.46, 0.34, 0.2, 0.14) + 0.14 * bump(x, y, 0.0, low - 0.12, 0.2, 0.1)
    brown = (0.45 + 0.3 * look["dark_eyes"]) * both(x, y, face.eye_spacing, 0.03, 0.22, 0.15)
    brown = brown + 0.25 * bump(x, y, 0.0, nose_low + 0.05, 0.2, 0.05) + 0.2 * bump(x, y, 0.0, seam + 0.17, 0.2, 0.04)
    if face.gender == "male" and face.age != "young":
        brown = brown + 0.12 * bump(x, y, 0.0, seam + 0.15, 0.6, 0.35)
    blotches = np.asarray(
        picture(noise("cloud") * 40 + 128).resize((grid(COARSE)[0].shape[1], grid(COARSE)[1].shape[0]))
    )
    blotch = (blotches.astype(np.float32) - 128) / 40 * (0.012 if face.age == "young" else 0.022)
    red, brown = red[..., None], brown[..., None]
    tone = base * (1.0 + blotch[..., None])
    tone = tone * (1.0 - red * np.array([0.02, 0.24, 0.2], dtype=np.float32) * (0.5 + 0.6 * (1 - depth)))
    return tone * (1.0 - brown * np.array([0.2, 0.27, 0.24], dtype=np.float32))


def _pores(image: Image.Image, look: Look) -> Image.Image:
    tile = noise("pores")
    seed = look.face.seed
    tile = np.roll(tile, (seed % 512, seed // 512 % 512), (0, 1))
    strength = {"young": 3.0, "middle-aged": 4.5, "older": 6.0}[look.face.age]
    whole = np.tile(tile, (3, 3))[: image.height, : image.width]
    values = np.asarray(image).astype(np.int16) + np.round(strength * whole).astype(np.int16)[..., None]
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _ear_outlines(look: Look) -> list[np.ndarray]:
    face = look.face
    if face.cut == "headscarf":
        return []
    x, size = face.widths[1] - 0.02, face.ear_size
    reach = 0.05 + 0.025 * look["ear_out"]
    left = np.array([(-x + 0.03, -0.06), (-x - reach - 0.02, -0.16), (-x - reach - 0.085, -0.05), (-x - reach - 0.06, 0.1),
                     (-x - reach - 0.01, 0.22), (-x + 0.0, 0.27), (-x + 0.06, 0.2)])  # fmt: skip
    left = (left - (-x, 0.06)) * (1.0, size) + (-x, 0.08)
    return [left, mirrored(left)]


def _ears(canvas: Canvas, head: Head, look: Look) -> None:
    skin = look.face.skin
    for ear in _ear_outlines(look):
        middle = ear.mean(axis=0)
        canvas.blob(head.outline(ear), darker(skin, 0.06))
        inner = (ear - middle) * (0.62, 0.72) + middle
        canvas.blob(head.outline(inner), darker(mix(skin, (200, 70, 60), 0.12), 0.25))
        fold = (ear - middle) * (0.38, 0.5) + middle + (0.0, -0.01)
        canvas.blob(head.outline(fold), darker(skin, 0.08))
        canvas.stroke(head.outline(((ear - middle) * 0.86 + middle)[:5]), 0.022 * head.unit, lighter(skin, 0.12), 0.6)


def _nose(canvas: Canvas, head: Head, look: Look) -> None:
    face, unit = look.face, head.unit
    w, low = face.nose_width, 0.06 + face.nose_length + 0.03 * look["nose_y"]
    dark = translucent(darker(mix(face.skin, (90, 20, 20), 0.35), 0.55), 0.85)
    soft = translucent(darker(mix(face.skin, (120, 40, 30), 0.3), 0.35), 0.4)
    for s in (-1, 1):
        nostril = oval(0.0, 0.0, 0.3 * w * (1 + 0.2 * look["nostril"]), 0.024 + 0.006 * look["nostril"], 10)
        turn = 0.35 * s
        nostril = nostril @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        canvas.blob(head.surface(moved(nostril, s * 0.48 * w, low + 0.018)), dark)
        wing = [
            (s * 0.86 * w, low - 0.12),
            (s * 1.05 * w, low - 0.06),
            (s * 1.02 * w, low + 0.0),
            (s * 0.8 * w, low + 0.025),
        ]
        canvas.stroke(head.surface(wing), 0.028 * unit, soft, 0.8)
    canvas.stroke(
        head.surface([(-0.3 * w, low + 0.03), (0.0, low + 0.05), (0.3 * w, low + 0.03)]), 0.03 * unit, soft, 0.7
    )


def _line(
    canvas: Canvas, head: Head, look: Look, points: list[tuple[float, float]], depth: float, width: float = 0.02
) -> None:
    """Draws a wrinkle: a dark line with a light rim below it."""
    skin = look.face.skin
    shifted = [(x, y + 0.55 * width) for x, y in points]
    canvas.stroke(head.surface(shifted), width * head.unit, translucent(lighter(skin, 0.5), 0.3 * depth), 0.9)
    canvas.stroke(
        head.surface(points), width * head.unit, translucent(darker(mix(skin, (120, 50, 40), 0.3), 0.42), depth), 0.9
    )


def _wrinkles(canvas: Canvas, head: Head, look: Look) -> None:
    face = look.face
    if face.age == "young":
        return
    rng = np.random.default_rng([face.seed, 1])
    old = face.age == "older"
    depth = 0.55 if old else 0.24
    seam, nose_low = mouth_y(look), 0.06 + face.nose_length
    for s in (-1, 1):
        end = rng.uniform(0.02, 0.14)
        _line(
            canvas,
            head,
            look,
            [(s * 0.2, nose_low - 0.05), (s * 0.31, nose_low + 0.09), (s * 0.37, seam + end)],
            depth,
            0.026,
        )
        x = face.eye_spacing + 0.2 * face.eye_size
        for k in range(int(rng.integers(3, 6)) if old else 2):
            y = -0.03 + 0.055 * k + rng.uniform(-0.01, 0.01)
            foot = [
                (s * x, 0.02 + 0.3 * (y - 0.02)),
                (s * (x + 0.06), y),
                (s * (x + rng.uniform(0.1, 0.16)), y + 0.6 * (y - 0.03)),
            ]
            _line(canvas, head, look, foot, 0.75 * depth, 0.014)
        for k in range(2 if old else 1):
            y = 0.135 + 0.055 * k + 0.02 * look["bags"]
            bag = [
                (s * (face.eye_spacing - 0.15), y - 0.03),
                (s * face.eye_spacing, y + 0.02),
                (s * (x - 0.05), y - 0.03),
            ]
            _line(canvas, head, look, bag, (0.8 - 0.3 * k) * depth, 0.018)
        if old:
            _line(
                canvas,
                head,
                look,
                [(s * 0.33, seam + 0.07), (s * 0.35, seam + 0.18), (s * 0.3, seam + 0.26)],
                0.6 * depth,
            )
            _line(canvas, head, look, [(s * 0.52, 0.4), (s * 0.57, 0.55), (s * 0.52, 0.7)], 0.35 * depth)
        frown = [(s * 0.055, -0.24), (s * 0.06, -0.16), (s * 0.05, -0.1)]
        _line(canvas, head, look, frown, rng.uniform(0.3, 1.0) * depth, 0.016)
    for k in range(int(rng.integers(3, 5)) if old else 2):
        y, bend = -0.42 - 0.105 * k + rng.uniform(-0.02, 0.02), rng.uniform(-0.03, 0.03)
        reach = rng.uniform(0.3, 0.44)
        brow = [(-reach, y + 0.02), (-0.2, y - 0.015), (0.0, y + bend), (0.2, y - 0.015), (reach, y + 0.02)]
        _line(canvas, head, look, brow, rng.uniform(0.6, 1.0) * depth, 0.018)
    if old:
        for _ in range(int(rng.integers(2, 8))):  # spots of age
            x, y = rng.uniform(-0.65, 0.65), rng.choice([rng.uniform(-0.7, -0.35), rng.uniform(0.1, 0.6)])
            spot = oval(x, y, rng.uniform(0.012, 0.035), rng.uniform(0.012, 0.03), 9)
            canvas.blob(head.surface(spot), translucent(darker(mix(face.skin, (120, 70, 40), 0.5), 0.1), 0.35))


def _spots(canvas: Canvas, head: Head, look: Look) -> None:
    face, unit = look.face, head.unit
    rng = np.random.default_rng([face.seed, 2])
    if look.freckles:
        count = int(170 * look.freckles)
        spots = rng.normal(0.0, 1.0, (count, 2)) * (0.36, 0.15) + (0.0, 0.24)
        colour = mix(face.skin, (150, 80, 44), 0.6)
        for x, y in spots[np.abs(spots[:, 0]) < 0.66]:
            radius = float(rng.uniform(0.006, 0.015)) * unit
            canvas.dots(head.surface([(x, y)]), radius, translucent(colour, float(rng.uniform(0.35, 0.75))))
    for x, y, radius, dark in look.marks:
        near_eyes = abs(y) < 0.12 and 0.15 < abs(x) < 0.52
        on_face = abs(x) < 0.86 * float(jaw_width(look, np.array(y))) and y < face.chin - 0.1
        if on_face and not near_eyes:
            colour = mix(mix(face.skin, (84, 44, 34), 0.8), (30, 16, 16), 0.4 * dark)
            canvas.dots(head.surface([(x, y)]), radius * unit, translucent(colour, 0.55 + 0.4 * dark))
            canvas.dots(
                head.surface([(x - 0.3 * radius, y - 0.3 * radius)]),
                0.35 * radius * unit,
                translucent((255, 240, 230), 0.2),
            )

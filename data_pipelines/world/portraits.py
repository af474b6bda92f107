"""Draws portraits: one person (``Face``) under given circumstances (``Shot``).

    face = make_face(np.random.default_rng(7), "europe")
    picture = draw_portrait(face, make_shot(np.random.default_rng(8)))

A picture is a pure function of its face, its shot and its size. It is drawn at twice its size and averaged down; light,
noise and blur come last, as in a camera.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from data_pipelines.world.backdrops import LEAVES, draw_backdrop
from data_pipelines.world.brush import Brush
from data_pipelines.world.canvas import RGB, Canvas, Head, darker, lighter, mirrored, mix, oval, translucent
from data_pipelines.world.clothes import draw_clothes
from data_pipelines.world.descriptions import describe
from data_pipelines.world.faces import EYES, FRAMES, REGIONS, Face, make_face
from data_pipelines.world.hair import draw_back, draw_front
from data_pipelines.world.shots import CLOTHES, Shot, make_shot

__all__ = ["REGIONS", "Face", "Shot", "describe", "draw_portrait", "encode_jpeg", "make_face", "make_shot"]

SUPERSAMPLING = 2
LARGEST = 1024  # px, the longest side that can be drawn
INK: RGB = (44, 28, 34)


def draw_portrait(face: Face, shot: Shot, *, longest_side: int = 160, aspect_ratio: float = 1.0) -> Image.Image:
    """Draws one picture, RGB, ``longest_side`` px along its longest side and of width / height ``aspect_ratio``.

    The face stays inside the central square.

    Raises:
      ValueError: a size outside [16, 1024] px, or an aspect ratio outside [1/4, 4].
    """
    if not 16 <= longest_side <= LARGEST or not 0.25 <= aspect_ratio <= 4.0:
        raise ValueError(f"{longest_side} px at {aspect_ratio}: expected 16 to {LARGEST} px and a ratio from 0.25 to 4")
    width = longest_side if aspect_ratio >= 1 else max(8, round(longest_side * aspect_ratio))
    height = longest_side if aspect_ratio <= 1 else max(8, round(longest_side / aspect_ratio))
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    half = min(size) / 2
    centre = (size[0] / 2 + shot.offset[0] * half, size[1] / 2 + (shot.offset[1] - 0.08) * half)
    unit = shot.scale * half
    head = Head(centre, unit, shot.yaw, shot.pitch, shot.tilt)
    torso = Head((centre[0] - 0.12 * math.sin(shot.yaw) * unit, centre[1]), unit)

    image = draw_backdrop(shot.backdrop, shot.wall_name, shot.accent_name, shot.seed, size)
    canvas = Canvas(image)
    brush = Brush(canvas, head, face, shot.light_side)
    draw_back(brush)
    draw_clothes(canvas, torso, face, shot)
    _ears(canvas, head, face)
    _skull(canvas, head, face, shot)
    _features(canvas, head, face, shot)
    draw_front(brush)
    _glasses(canvas, head, face, shot)
    _earrings(canvas, head, face)
    _prop(canvas, torso, shot)
    return _develop(image.reduce(SUPERSAMPLING), shot)


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """Encodes the picture as JPEG; equal pictures and quality give equal bytes with the same libjpeg."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


# --- the head --------------------------------------------------------------------------------------------------------


def _ears(canvas: Canvas, head: Head, face: Face) -> None:
    if face.cut == "headscarf":
        return
    x, size = face.widths[1] - 0.02, face.ear_size
    for s in (-1, 1):
        canvas.blob(head.outline(oval(s * (x + 0.05), 0.1, 0.13 * size, 0.2 * size, 10)), face.skin)
        inner = head.outline(oval(s * (x + 0.07), 0.1, 0.06 * size, 0.11 * size, 8))
        canvas.blob(inner, darker(face.skin, 0.22))


def _jawline(face: Face, grow: float = 0.0) -> list[tuple[float, float]]:
    """Returns the left side of the face, from the temple to the chin."""
    _, cheek, jaw, chin = (width + grow for width in face.widths)
    low = face.chin + grow
    return [(-cheek, 0.02), (-cheek * 0.97, 0.3 * low), (-jaw, 0.62 * low), (-chin, 0.93 * low), (0.0, low)]


def _skull(canvas: Canvas, head: Head, face: Face, shot: Shot) -> None:
    forehead, cheek, _, _ = face.widths
    left = [(0.0, -1.02), (-0.42, -0.94), (-forehead * 0.94, -0.66), (-forehead * 1.02, -0.34), *_jawline(face)]
    outline = np.concatenate([left, mirrored(left[1:-1])])
    canvas.blob(head.outline(outline), darker(face.skin, 0.16))
    lit = outline.copy()  # the far side of the face is in shade
    far = np.maximum(0.0, -shot.light_side * outline[:, 0] / cheek)
    lit[:, 0] *= 1.0 - 0.16 * far
    lit[:, 1] -= 0.03 * np.maximum(0.0, outline[:, 1]) + 0.02 * far
    canvas.blob(head.outline(lit), face.skin)


def _features(canvas: Canvas, head: Head, face: Face, shot: Shot) -> None:
    unit, skin = head.unit, face.skin
    shade = darker(skin, 0.24)
    blush = face.blush + (0.12 if shot.expression in ("laughing", "smiling") else 0.0)
    for s in (-1, 1):
        if blush > 0.1:
            canvas.blob(head.surface(oval(s * 0.47, 0.36, 0.17, 0.11, 10)), translucent((236, 92, 92), 0.55 * blush))
    if face.freckles:
        spots = np.random.default_rng(face.seed).uniform((-0.22, 0.2), (0.22, 0.44), (9, 2))
        cheek = np.array([0.42, 0.0])
        spots = np.concatenate([spots - cheek, spots + cheek, spots[:4] * (0.5, 0.6)])
        canvas.dots(head.surface(spots), max(0.8, 0.024 * unit), mix(skin, (140, 64, 36), 0.55))
    if face.mole:
        canvas.dots(head.surface([face.mole]), 0.038 * unit, mix(skin, INK, 0.75))
    if face.age != "young":
        _lines(canvas, head, face, darker(skin, 0.2))
    for s in (-1, 1):
        _eye(canvas, head, face, shot, s)
        _brow(canvas, head, face, shot, s)
    _beard(canvas, head, face)
    _mouth(canvas, head, face, shot)
    _nose(canvas, head, face, shot, shade)
    if face.moustache != "none":
        _moustache(canvas, head, face)


def _lines(canvas: Canvas, head: Head, face: Face, colour: RGB) -> None:
    strength = 0.03 if face.age == "older" else 0.022
    for s in (-1, 1):
        fold = [(s * 0.2, 0.36), (s * 0.34, 0.48), (s * 0.38, 0.64)]
        canvas.stroke(head.surface(fold), strength * head.unit, colour, 0.8)
        if face.age == "older":
            for y in (0.1, 0.18):
                foot = [(s * 0.6, 0.08 + 0.3 * (y - 0.1)), (s * 0.68, y)]
                canvas.stroke(head.surface(foot), strength * head.unit, colour, 0.8)
            canvas.stroke(
                head.surface([(s * 0.2, 0.22), (s * 0.34, 0.27), (s * 0.48, 0.22)]), 0.025 * head.unit, colour, 0.8
            )
    if face.age == "older":
        for y in (-0.5, -0.4):
            canvas.stroke(head.surface([(-0.3, y), (0.0, y - 0.03), (0.3, y)]), strength * head.unit, colour, 0.8)


def _eye(canvas: Canvas, head: Head, face: Face, shot: Shot, side: int) -> None:
    unit, x = head.unit, side * face.eye_spacing
    wide, tall = 0.17 * face.eye_size, 0.115 * face.eye_size
    expression = shot.expression
    opening = {"laughing": 0.0, "dreamy": 0.0, "surprised": 1.25, "smiling": 0.88, "serious": 0.85}.get(expression, 1.0)
    if expression == "winking" and side == shot.light_side:
        opening = 0.0
    tilt = side * face.eye_tilt
    lid_width = (0.055 if face.gender == "female" else 0.042) * unit
    if opening == 0.0:
        bend = 0.07 if expression == "dreamy" else -0.09
        arc = [(x - wide, 0.02 + tilt * wide), (x, 0.02 + bend), (x + wide, 0.02 - tilt * wide)]
        canvas.stroke(head.surface(arc), 1.15 * lid_width, INK, 0.3)
        return
    open_tall = tall * opening

    def lid(direction: float, reach: float) -> list[tuple[float, float]]:
        rise = direction * open_tall * reach
        return [
            (x + k * wide, -tilt * k * wide + rise * h)
            for k, h in ((-1, 0.0), (-0.5, 0.8), (0.0, 1.0), (0.5, 0.8), (1, 0.0))
        ]

    upper, lower = lid(-1, 1.0), lid(1, 0.8)
    canvas.blob(head.surface(np.concatenate([upper, lower[-2:0:-1]])), (252, 250, 246))
    look = 0.3 * shot.gaze + 0.25 * math.sin(shot.yaw)
    radius = min(0.095 * face.eye_size, 0.98 * open_tall)
    iris_x, iris_y = x + 0.075 * look, -0.005
    iris = EYES[face.eye_name]
    canvas.blob(head.surface(oval(iris_x, iris_y, radius, radius, 10)), iris)
    canvas.blob(head.surface(oval(iris_x, iris_y, 0.52 * radius, 0.52 * radius, 8)), (18, 12, 18))
    canvas.dots(head.surface([(iris_x + 0.035 * shot.light_side, iris_y - 0.035)]), 0.026 * unit, (255, 255, 255))
    lashes = upper
    if face.gender == "female":
        outer = (x + side * wide * 1.28, -side * tilt * wide - 0.05)
        lashes = [*upper, outer] if side > 0 else [outer, *upper]
    canvas.stroke(head.surface(lashes), lid_width, INK, 0.35)
    canvas.stroke(head.surface(lower), 0.016 * unit, darker(face.skin, 0.35), 0.6)


def _brow(canvas: Canvas, head: Head, face: Face, shot: Shot, side: int) -> None:
    x = side * face.eye_spacing
    lift = {"surprised": 0.1, "laughing": 0.04, "serious": -0.03}.get(shot.expression, 0.0)
    if shot.expression == "smirking" and side == shot.light_side:
        lift = 0.09
    frown = 0.05 if shot.expression == "serious" else 0.0
    y, arch = -0.21 - lift, face.brow_arch
    line = [(x - side * 0.17, y + 0.02 + frown), (x, y - arch), (x + side * 0.2, y - 0.3 * arch + 0.02)]
    hair = (
        face.hair
        if face.hair_name in ("grey", "white", "red", "auburn", "black", "dark brown")
        else darker(face.hair, 0.35)
    )
    if face.cut in ("headscarf", "turban", "headwrap", "bald") or face.hair_name in (
        "blue",
        "pink",
        "turquoise",
        "purple",
        "green",
    ):
        hair = mix((48, 32, 30), face.skin, 0.1)
    canvas.stroke(head.surface(line), face.brow_thickness * head.unit, mix(hair, face.skin, 0.08), 0.5)


def _nose(canvas: Canvas, head: Head, face: Face, shot: Shot, shade: RGB) -> None:
    w, low, s = face.nose_width, 0.06 + face.nose_length, -shot.light_side
    bridge = [
        (0.03 * s, 0.0),
        (0.07 * s, 0.5 * low),
        (w * s, low - 0.03),
        (0.02 * s, low + 0.02),
        (0.01 * s, 0.6 * low),
    ]
    canvas.blob(head.surface(bridge, 0.68), darker(face.skin, 0.12))
    base = [(-w, low - 0.06), (-0.72 * w, low + 0.01), (0.0, low + 0.045), (0.72 * w, low + 0.01), (w, low - 0.06)]
    canvas.stroke(head.surface(base, 0.66), 0.045 * head.unit, shade, 0.6)
    tip = [(-s * 0.25 * w, low - 0.07)]
    canvas.dots(head.surface(tip, 0.7), 0.035 * head.unit, lighter(face.skin, 0.3))


def _mouth(canvas: Canvas, head: Head, face: Face, shot: Shot) -> None:
    unit, w, full = head.unit, face.mouth_width, face.lip_fullness
    y = 0.5 * (0.06 + face.nose_length) + 0.5 * face.chin - 0.03
    curve = {"smiling": 0.1, "laughing": 0.1, "calm": 0.03, "serious": -0.03, "dreamy": 0.06, "winking": 0.1}
    smile = curve.get(shot.expression, 0.02)
    if shot.expression == "surprised":
        canvas.blob(head.surface(oval(0.0, y + 0.02, 0.13, 0.15, 12)), face.lips)
        canvas.blob(head.surface(oval(0.0, y + 0.02, 0.085, 0.105, 12)), (84, 24, 34))
        return
    if shot.expression == "laughing":
        w = 1.15 * w
        top = [(-w, y - 0.08), (-w, y - 0.08), (0.0, y - 0.03), (w, y - 0.08), (w, y - 0.08)]
        low = [(0.62 * w, y + 0.1), (0.0, y + 0.17), (-0.62 * w, y + 0.1)]
        canvas.blob(head.surface([*top, *[(1.04 * a, b + 0.03 * full) for a, b in low]]), face.lips)
        canvas.blob(head.surface([*top, *low]), (96, 26, 38))
        teeth = [
            (-0.84 * w, y - 0.06),
            (0.0, y - 0.03),
            (0.84 * w, y - 0.06),
            (0.5 * w, y + 0.035),
            (-0.5 * w, y + 0.035),
        ]
        canvas.blob(head.surface(teeth), (252, 250, 244))
        canvas.blob(head.surface(oval(0.0, y + 0.13, 0.4 * w, 0.035, 8)), (226, 96, 104))
        return
    if shot.expression in ("smiling", "winking"):
        w *= 1.1
    skew = 0.06 * shot.light_side if shot.expression == "smirking" else 0.0
    seam = [(-w, y - smile + skew), (-0.5 * w, y + 0.35 * smile + 0.3 * skew), (0.0, y + 0.6 * smile),
            (0.5 * w, y + 0.35 * smile - 0.3 * skew), (w, y - smile - skew)]  # fmt: skip
    upper = [
        (0.34 * w, y + 0.3 * smile - 0.065 * full),
        (0.0, y + 0.4 * smile - 0.04 * full),
        (-0.34 * w, y + 0.3 * smile - 0.065 * full),
    ]
    lower = [
        (0.5 * w, y + 0.5 * smile + 0.07 * full),
        (0.0, y + 0.7 * smile + 0.105 * full),
        (-0.5 * w, y + 0.5 * smile + 0.07 * full),
    ]
    canvas.blob(head.surface([*seam, *lower]), lighter(face.lips, 0.12))
    canvas.blob(head.surface([*seam, *upper]), face.lips)
    canvas.stroke(head.surface(seam), 0.032 * unit, darker(face.lips, 0.5), 0.4)


# --- beard, glasses, earrings ----------------------------------------------------------------------------------------


def _beard_colour(face: Face) -> RGB:
    """Returns the hair's colour, moved away from the skin's if the two are alike."""
    colour = darker(face.hair, 0.1)
    contrast = sum(abs(a - b) for a, b in zip(colour, face.skin, strict=True))
    return darker(colour, 0.42) if contrast < 90 else colour


def _beard(canvas: Canvas, head: Head, face: Face) -> None:
    if face.beard == "none":
        return
    seam = 0.5 * (0.06 + face.nose_length) + 0.5 * face.chin - 0.03
    colour = _beard_colour(face)
    if face.beard == "goatee":
        chin = [(-0.2, seam + 0.12), (-0.26, seam + 0.3), (-0.16, face.chin + 0.06), (0.0, face.chin + 0.14)]
        outline = np.concatenate([chin, mirrored(chin[:-1]), [(0.0, seam + 0.16)]])
        canvas.blob(head.surface(outline, 0.4), colour)
        return
    if face.beard == "stubble":
        colour = translucent(mix(face.hair, (40, 36, 40), 0.3), 0.3)
    grow = {"stubble": 0.0, "short": 0.03, "full": 0.09, "long": 0.1}[face.beard]
    jaw = _jawline(face, grow)
    if face.beard == "long":
        jaw = [*jaw[:3], (-0.5, face.chin + 0.2), (-0.26, face.chin + 0.56), (0.0, face.chin + 0.68)]
    outer = np.concatenate([jaw, mirrored(jaw[:-1])])
    cheek = face.widths[1]
    rise = {"stubble": 0.0, "short": 0.02, "full": 0.1, "long": 0.1}[face.beard]
    inner = [(0.86 * cheek, 0.12), (0.66 * cheek, 0.4 - rise), (0.42, seam - 0.13 - rise), (0.0, seam - 0.19),
             (-0.42, seam - 0.13 - rise), (-0.66 * cheek, 0.4 - rise), (-0.86 * cheek, 0.12)]  # fmt: skip
    canvas.blob(np.concatenate([head.outline(outer), head.surface(inner, 0.45)]), colour)
    if face.beard in ("full", "long"):
        for x in (-0.3, 0.0, 0.3):
            line = [(x, seam + 0.2), (0.9 * x, face.chin + (0.3 if face.beard == "long" else 0.02))]
            canvas.stroke(head.surface(line, 0.4), 0.03 * head.unit, darker(colour, 0.25), 0.7)


def _moustache(canvas: Canvas, head: Head, face: Face) -> None:
    y = 0.06 + face.nose_length + 0.1
    colour = darker(_beard_colour(face), 0.08)
    if face.moustache == "pencil":
        for s in (-1, 1):
            canvas.stroke(
                head.surface([(s * 0.03, y - 0.02), (s * 0.14, y), (s * 0.26, y + 0.06)], 0.6),
                0.045 * head.unit,
                colour,
                0.3,
            )
        return
    if face.moustache == "handlebar":
        left = [
            (0.0, y - 0.06),
            (-0.18, y - 0.06),
            (-0.36, y + 0.05),
            (-0.5, y - 0.08),
            (-0.44, y + 0.1),
            (-0.2, y + 0.08),
            (0.0, y + 0.02),
        ]
    else:
        left = [
            (0.0, y - 0.08),
            (-0.2, y - 0.07),
            (-0.38, y + 0.1),
            (-0.36, y + 0.17),
            (-0.16, y + 0.09),
            (0.0, y + 0.07),
        ]
    canvas.blob(head.surface(np.concatenate([left, mirrored(left)]), 0.6), colour)


def _glasses(canvas: Canvas, head: Head, face: Face, shot: Shot) -> None:
    if face.glasses == "none":
        return
    colour, unit, x = FRAMES[face.frame_name], head.unit, max(face.eye_spacing, 0.32)
    thick = {"aviator": 0.042, "browline": 0.045, "cat-eye": 0.07}.get(face.glasses, 0.06) * unit
    rim = np.asarray(rims(x)[face.glasses])
    for s in (-1, 1):
        pixels = head.surface(rim * (s, 1.0), 0.68)
        canvas.blob(pixels, translucent((210, 232, 255), 0.16))
        canvas.stroke(pixels, thick, colour, closed=True)
        if face.glasses == "browline":
            canvas.stroke(
                head.surface([(s * (x - 0.24), -0.13), (s * x, -0.18), (s * (x + 0.27), -0.16)], 0.68),
                0.12 * unit,
                colour,
            )
        temple = [(s * (x + 0.25), -0.06), (s * 0.94 * face.widths[1], -0.06)]
        canvas.stroke(head.surface(temple, 0.6), 0.05 * unit, colour)
        gleam = [(s * x - 0.1, 0.06), (s * x + 0.02, -0.1)]
        canvas.stroke(head.surface(gleam, 0.68), 0.045 * unit, translucent((255, 255, 255), 0.4), 0.5)
    canvas.stroke(head.surface([(-x + 0.22, -0.04), (0.0, -0.09), (x - 0.22, -0.04)], 0.72), 0.055 * unit, colour)


def _earrings(canvas: Canvas, head: Head, face: Face) -> None:
    if face.earrings == "none" or face.cut == "headscarf":
        return
    gold, x, y = (240, 196, 84), face.widths[1] + 0.05, 0.3 * face.ear_size + 0.02
    for s in (-1, 1):
        if face.earrings == "studs":
            canvas.dots(head.outline([(s * x, y - 0.04)]), 0.055 * head.unit, lighter(gold, 0.3))
        elif face.earrings == "hoops":
            canvas.stroke(
                head.outline(oval(s * (x + 0.02), y + 0.15, 0.12, 0.16, 10)), 0.045 * head.unit, gold, closed=True
            )
        else:
            canvas.blob(
                head.outline([(s * x, y), (s * x + 0.07, y + 0.2), (s * x, y + 0.28), (s * x - 0.07, y + 0.2)]), gold
            )


def _prop(canvas: Canvas, torso: Head, shot: Shot) -> None:
    """Draws something held or hanging in front of the person, in pictures that are meant to be hard."""
    colour, second = CLOTHES[shot.second_name], CLOTHES[shot.garment_name]
    s = shot.light_side
    if shot.prop == "mug":
        handle = torso.outline(oval(0.42 * s, 1.02, 0.2, 0.2, 12))
        canvas.stroke(handle, 0.09 * torso.unit, darker(colour, 0.2), closed=True)
        canvas.fill(torso.outline([(-0.36, 0.66), (0.36, 0.66), (0.31, 1.4), (-0.31, 1.4)]), colour)
        canvas.blob(torso.outline(oval(0.0, 0.66, 0.36, 0.08, 12)), darker(colour, 0.4))
    elif shot.prop == "book":
        canvas.fill(
            torso.outline([(-0.85, 0.45), (0.0, 0.55), (0.85, 0.45), (0.85, 1.6), (0.0, 1.7), (-0.85, 1.6)]), colour
        )
        canvas.stroke(torso.outline([(0.0, 0.55), (0.0, 1.7)]), 0.06 * torso.unit, darker(colour, 0.4))
        canvas.fill(torso.outline([(0.2, 0.75), (0.7, 0.7), (0.7, 1.0), (0.2, 1.05)]), lighter(second, 0.4))
    elif shot.prop == "leaves":
        rng = np.random.default_rng(shot.seed)
        for k in range(7):
            x, y, angle = s * rng.uniform(0.3, 1.3), rng.uniform(-1.2, 1.4), rng.uniform(0.0, 3.1)
            cos, sin = math.cos(angle), math.sin(angle)
            leaf = [
                (x + 0.55 * a * cos - 0.2 * b * sin, y + 0.55 * a * sin + 0.2 * b * cos)
                for a, b in ((-1, 0), (0, 1), (1, 0), (0, -1))
            ]
            canvas.blob(torso.outline(leaf), darker(LEAVES[k % 4], 0.25))


# --- the camera ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    """Returns a tile of unit Gaussian noise, float32 [LARGEST, LARGEST]; each picture reads it at another offset."""
    return np.random.default_rng(20260).standard_normal((LARGEST, LARGEST), dtype=np.float32)


def _develop(image: Image.Image, shot: Shot) -> Image.Image:
    """Applies light that falls off to one side and has a tint, then blur, then grain."""
    width, height = image.size
    blur = shot.blur * min(width, height) / 1000
    if blur > 0.25:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * shot.light_side
    down = np.linspace(1, -1, height, dtype=np.float32)[:, None]
    gain = shot.brightness * (1.0 + shot.light_fall * (0.75 * across + 0.25 * down - 0.3))
    tint = np.array([1 + 0.07 * shot.warmth, 1 + 0.01 * shot.warmth, 1 - 0.09 * shot.warmth], dtype=np.float32)
    pixels = np.asarray(image, dtype=np.float32) * (gain[:, :, None] * tint)
    row, column = shot.seed % (LARGEST - height + 1), (shot.seed // 509) % (LARGEST - width + 1)
    pixels += (np.float32(shot.noise) * _grain()[row : row + height, column : column + width])[:, :, None]
    np.clip(pixels, 0, 255, out=pixels)
    return Image.fromarray(pixels.astype(np.uint8))


def rims(x: float) -> dict[str, np.ndarray | list[tuple[float, float]]]:
    """Returns the outline of one glass of each shape of frames, in units of the head, around ``x`` from its middle."""
    return {
        "round": oval(x, 0.02, 0.245, 0.245, 12),
        "square": [(x - 0.24, -0.14), (x - 0.2, -0.17), (x + 0.2, -0.17), (x + 0.25, -0.14), (x + 0.23, 0.18),
                   (x + 0.18, 0.22), (x - 0.17, 0.22), (x - 0.22, 0.18)],
        "cat-eye": [(x - 0.22, -0.1), (x, -0.15), (x + 0.34, -0.3), (x + 0.28, 0.02), (x + 0.1, 0.2), (x - 0.14, 0.18)],
        "aviator": [(x - 0.22, -0.15), (x, -0.17), (x + 0.24, -0.14), (x + 0.25, 0.06), (x + 0.08, 0.29),
                    (x - 0.14, 0.2), (x - 0.23, 0.0)],
        "browline": [(x - 0.23, -0.13), (x + 0.25, -0.15), (x + 0.25, 0.05), (x + 0.12, 0.2), (x - 0.12, 0.2),
                     (x - 0.22, 0.06)],
    }  # fmt: skip

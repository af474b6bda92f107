"""Renders portraits of 512 px: a person's painted layers (``sitter``), turned, lit and placed into a scene.

A portrait is a pure function of looks, view and size. What is costly is painted once a person, or computed at a third of the
resolution and enlarged; the rest is done by Pillow on 8-bit images.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from data_pipelines.portraits.eyes import GAZES
from data_pipelines.portraits.looks import Look
from data_pipelines.portraits.plane import COARSE, LEFT, TOP, U, noise, picture
from data_pipelines.portraits.relief import turned
from data_pipelines.portraits.sitter import Layer, Sitter
from data_pipelines.portraits.views import View
from data_pipelines.world.backdrops import sketch_backdrop
from data_pipelines.world.canvas import Canvas, Head, darker
from data_pipelines.world.clothes import draw_clothes

_WALLS = ("plain", "gradient", "halo", "window", "bricks", "wallpaper")
_KNITTED = ("V-neck jumper", "turtleneck", "scarf", "cardigan", "hoodie")
NODES = 12  # of the mesh that turns the head, along each side
_sitters: dict[Look, Sitter] = {}


def sitter(look: Look) -> Sitter:
    """Returns a person's layers; those of the last few people are kept."""
    if look not in _sitters:
        while len(_sitters) >= 6:
            del _sitters[next(iter(_sitters))]
        _sitters[look] = Sitter(look)
    return _sitters[look]


def render(look: Look, view: View, *, longest_side: int = 512, aspect_ratio: float = 1.0) -> Image.Image:
    """Renders a portrait, RGB; the face stays inside the central square."""
    person, shot = sitter(look), view.shot
    width = longest_side if aspect_ratio >= 1 else max(8, round(longest_side * aspect_ratio))
    height = longest_side if aspect_ratio <= 1 else max(8, round(longest_side / aspect_ratio))
    half = min(width, height) / 2
    unit = shot.scale * half
    centre = (width / 2 + shot.offset[0] * half, height / 2 + (shot.offset[1] - 0.08) * half)
    image = _place(view, width, height)
    pose = _Pose(centre, unit, shot.yaw, shot.pitch, shot.tilt, look)
    if person.back is not None:
        _paste_back(image, person.back, pose, view)
    _paste_body(image, look, view, (centre[0] - 0.12 * math.sin(shot.yaw) * unit, centre[1]), unit)
    _paste_head(image, person, pose, view)
    return _develop(image, view)


# --- the place and the body ------------------------------------------------------------------------------------------


def _place(view: View, width: int, height: int) -> Image.Image:
    """Returns the place behind, out of focus by ``view.blur``, and lit."""
    shot = view.shot
    small = (-(-width * 5 // 8), -(-height * 5 // 8))
    image = sketch_backdrop(shot.backdrop, shot.wall_name, shot.accent_name, shot.seed, *small)
    image = image.filter(ImageFilter.GaussianBlur(view.blur * min(small)))
    across = np.linspace(-1, 1, 40, dtype=np.float32)[None, :] * view.light[0]
    down = np.linspace(1, -1, 40, dtype=np.float32)[:, None] * 0.5
    top, left = shot.seed % 470, shot.seed // 512 % 470
    wear = 0.035 * noise("cloud")[top : top + 40, left : left + 40] * (shot.backdrop in _WALLS)
    light = np.array(view.key)[None, None, :] * (0.72 + 0.3 * across + 0.16 * down + wear)[..., None] + np.array(
        view.fill
    )
    image = ImageChops.multiply(image, picture(light * 235).resize(small, Image.Resampling.BILINEAR))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _paste_body(image: Image.Image, look: Look, view: View, centre: tuple[float, float], unit: float) -> None:
    width, height = image.size
    top = max(0, int(centre[1] + 0.35 * unit))
    if top >= height:
        return
    layer = Image.new("RGBA", (2 * width, 2 * (height - top)))
    torso = Head((2 * centre[0], 2 * (centre[1] - top)), 2 * unit)
    draw_clothes(Canvas(layer), torso, look.face, view.shot, shadow=False)
    layer = layer.reduce(2)
    alpha = layer.getchannel("A")
    rows, columns = 48, 72
    x = ((np.linspace(0, width, columns, dtype=np.float32) - centre[0]) / unit)[None, :]
    y = ((np.linspace(top, height, rows, dtype=np.float32) - centre[1]) / unit)[:, None]
    shade = _body_light(look, view, x, y)
    light = picture(shade * 235).resize((width, height - top), Image.Resampling.BICUBIC)
    left, upper = view.shot.seed % 90, view.shot.seed // 90 % 90
    cloth = _cloth(view.shot.garment in _KNITTED).crop((left, upper, left + width, upper + height - top))
    plain = layer.convert("RGB")
    worn = ImageChops.multiply(plain, cloth)
    neck = (int(centre[0] - 0.6 * unit), 0, int(centre[0] + 0.6 * unit), int(centre[1] + 1.9 * unit) - top)
    _bare_skin(plain, worn, look, neck)
    image.paste(ImageChops.multiply(worn, light), (0, top), alpha)


def _bare_skin(plain: Image.Image, worn: Image.Image, look: Look, box: tuple[int, int, int, int]) -> None:
    """Takes the threads off the skin of the neck, within ``box``."""
    box = (max(0, box[0]), max(0, box[1]), min(plain.width, box[2]), min(plain.height, box[3]))
    if box[0] >= box[2] or box[1] >= box[3]:
        return
    part = plain.crop(box)
    off = ImageChops.difference(part, Image.new("RGB", part.size, darker(look.face.skin, 0.08))).convert("L")
    worn.paste(part, box[:2], off.point([255] * 6 + [0] * 250))


@functools.lru_cache(maxsize=2)
def _cloth(knitted: bool) -> Image.Image:
    """Returns the shade of a cloth's threads, RGB [700, 700]."""
    x, y = np.arange(700)[None, :], np.arange(700)[:, None]
    if knitted:
        stitch = np.abs((x % 8) - 3.5) * 1.1 + y
        values = 236 + 14 * np.sin(stitch * (2 * np.pi / 6)) - 16 * ((x % 8) == 7)
    else:
        values = 242 + 5 * np.sin(x * 2.1) * np.sin(y * 2.1) + 5 * np.sin((x + y) * 1.4)
    values = values + 3.0 * noise("pores")[y % 512, x % 512]
    return picture(np.repeat(values[..., None], 3, axis=2))


def _body_light(look: Look, view: View, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the light on neck and clothes, [rows, columns, 3]."""
    lx, ly, lz = view.light
    thick = 0.29 if look.face.gender == "female" else 0.37
    neck = (
        1
        / (1 + np.exp(np.minimum((np.abs(x) - thick - 0.02) / 0.03, 30)))
        / (1 + np.exp(np.minimum((y - 1.3) / 0.05, 30)))
    )
    across = neck * np.clip(x / (thick + 0.04), -0.93, 0.93) + (1 - neck) * np.clip(x / 1.75, -0.9, 0.9)
    fold = noise("cloud")
    seed = view.shot.seed
    rows = ((y * 46 + np.abs(x) * 30).astype(np.int32) + seed) & 511
    columns = ((x * 78).astype(np.int32) + seed // 512) & 511
    relief = fold[rows, columns]
    slope = relief - fold[(rows + 7) & 511, (columns + round(9 * np.sign(lx))) & 511]
    up = (1 - neck) * np.clip((1.9 - y) * 0.7, -0.25, 0.6)
    front = np.sqrt(np.maximum(0.1, 1 - across**2 - up**2))
    diffuse = np.clip((across * lx - up * ly + front * lz + 0.2) / 1.2, 0, 1)
    folded = 0.16 * (1 - neck) * (1 - 0.85 * np.exp(-((x / 0.34) ** 2)) * (y < 1.85))
    cloth = np.clip(1.0 + folded * slope, 0.5, 1.4)
    side = -0.35 * lx
    chin = 1.0 - 0.62 * np.exp(-(((y - look.face.chin - 0.05) / 0.3) ** 2)) * np.exp(-(((x - side) / 0.55) ** 2)) * (
        y < 1.7
    )
    key, fill = np.array(view.key, np.float32), np.array(view.fill, np.float32)
    return (key * (diffuse * chin)[..., None] + fill * (0.45 + 0.55 * chin)[..., None] * 0.95) * cloth[..., None]


# --- the head --------------------------------------------------------------------------------------------------------


class _Pose:
    """Where a head is in the picture, and how it is turned."""

    def __init__(self, centre: tuple[float, float], unit: float, yaw: float, pitch: float, tilt: float, look: Look):
        self.unit, self.yaw, self.tilt = unit, yaw, tilt
        self._sin, self._cos, self._pitch = math.sin(yaw), math.cos(yaw), math.sin(pitch)
        cos, sin = math.cos(tilt) * unit, math.sin(tilt) * unit
        self.matrix = np.array([[cos, sin], [-sin, cos]])
        neck = np.array([0.0, 0.9])
        self.origin = np.array(centre) + neck * unit - neck @ self.matrix
        self._inverse = np.linalg.inv(self.matrix)
        self._nose = 0.02 + look.face.nose_length

    def box(self, box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Returns the part of a picture of ``size`` that a part of the plane may fill."""
        left, top, right, bottom = (box[0] / U + LEFT, box[1] / U + TOP, box[2] / U + LEFT, box[3] / U + TOP)
        corners = np.array([(left, top), (right, top), (left, bottom), (right, bottom)]) @ self.matrix + self.origin
        reach = 0.12 * self.unit  # what turning moves out of the box
        low, high = np.floor(corners.min(axis=0) - reach).astype(int), np.ceil(corners.max(axis=0) + reach).astype(int)
        return (max(0, int(low[0])), max(0, int(low[1])), min(size[0], int(high[0])), min(size[1], int(high[1])))

    def source(self, x: np.ndarray, y: np.ndarray, turn: float = 1.0) -> np.ndarray:
        """Returns the places [n, 2] of the plane, in head units, that are seen at pixels ``x``, ``y``."""
        seen = (np.stack([x, y], axis=-1) - self.origin) @ self._inverse
        at = seen.copy()
        if turn == 0.0:
            return at
        for _ in range(6):
            depth = self._depth(at)
            at[..., 0] = (seen[..., 0] - turn * depth * self._sin) / (1.0 - turn * (1.0 - self._cos) * 0.5)
            at[..., 1] = seen[..., 1] - turn * depth * self._pitch
        return at

    def _depth(self, at: np.ndarray) -> np.ndarray:
        x, y = at[..., 0], at[..., 1]
        ball = 0.5 * np.maximum(0.0, 1.0 - (x / 1.02) ** 2 - (y / 1.5) ** 2)
        nose = 0.13 * np.exp(-((x / 0.2) ** 2)) * np.exp(-(((y - self._nose) / 0.22) ** 2))
        return ball + nose


def _mesh(corner: tuple[int, int], pose: _Pose, box: tuple[int, int, int, int], nodes: int, turn: float) -> list[Any]:
    """Returns the mesh that resamples a layer into the pixels ``box``; ``corner`` of the plane is the layer's first pixel."""
    xs = np.round(np.linspace(box[0], box[2], nodes + 1)).astype(int)
    ys = np.round(np.linspace(box[1], box[3], nodes + 1)).astype(int)
    grid_x, grid_y = np.meshgrid(xs.astype(float), ys.astype(float))
    at = pose.source(grid_x, grid_y, turn)
    at = (at - (LEFT, TOP)) * U - corner
    quads = np.concatenate([at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:]], axis=-1).reshape(-1, 8).tolist()
    lefts, tops = (xs - box[0]).tolist(), (ys - box[1]).tolist()
    boxes = [(lefts[i], tops[j], lefts[i + 1], tops[j + 1]) for j in range(nodes) for i in range(nodes)]
    filled = (one[0] < one[2] and one[1] < one[3] for one in boxes)  # a small picture has fewer pixels than nodes
    return [(one, tuple(quad)) for one, quad, keep in zip(boxes, quads, filled, strict=True) if keep]


def _paste_head(image: Image.Image, person: Sitter, pose: _Pose, view: View) -> None:
    shot = view.shot
    gaze = round((shot.gaze * 0.5 + 0.5) * (GAZES - 1))
    lit = _light(person.front(shot.expression, gaze, shot.light_side), person, pose, view)
    box = pose.box(person.box, image.size)
    size = (box[2] - box[0], box[3] - box[1])
    if min(size) <= 0:
        return
    bands = Image.merge("CMYK", (*lit.split(), person.mask))
    colours, mask = _resampled(bands, size, _mesh(person.box[:2], pose, box, NODES, 1.0))
    image.paste(colours, box[:2], mask)


def _resampled(bands: Image.Image, size: tuple[int, int], mesh: list[Any]) -> tuple[Image.Image, Image.Image]:
    """Resamples colours and mask at once, the bands of a CMYK image (a mode with alpha would be multiplied by it)."""
    red, green, blue, mask = bands.transform(size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR).split()
    return Image.merge("RGB", (red, green, blue)), mask


def _light(front: Image.Image, person: Sitter, pose: _Pose, view: View) -> Image.Image:
    form = person.form
    lx, ly, lz = turned(view.light, pose.yaw, pose.tilt)
    nx, ny, nz = form.normal
    facing = nx * np.float32(lx) + ny * np.float32(ly) + nz * np.float32(lz)
    diffuse = np.clip((facing + 0.22) * (1 / 1.22), 0.0, 1.0) * form.open
    sky = form.open * (0.72 - 0.28 * ny)
    shade = np.empty((*diffuse.shape, 3), dtype=np.uint8)
    for band in range(3):
        within = (0.07, -0.03, -0.06)[band]  # light within the skin is red, most of all where it falls off
        value = diffuse * np.float32(235 * view.key[band]) * (1.0 + within * (1.0 - diffuse) * person.form.flesh)
        value += sky * np.float32(235 * view.fill[band]) * (1.0 + 1.2 * within * person.form.flesh)
        shade[..., band] = np.minimum(value, 255)
    lit = ImageChops.multiply(front, Image.fromarray(shade).resize(front.size, Image.Resampling.BILINEAR))
    hx, hy, hz = lx, ly, lz + 1.0
    length = math.sqrt(hx * hx + hy * hy + hz * hz)
    rows, columns = person.glossy
    part = form.normal[:, rows, columns]
    half = np.clip(sum(n * np.float32(h / length) for n, h in zip(part, (hx, hy, hz), strict=True)), 0, 1)
    shine = half * half
    shine = shine * shine
    shine = shine * shine * shine * form.gloss[rows, columns] * np.float32(95 * view.key[1])
    gleam = Image.fromarray(np.minimum(shine, 255).astype(np.uint8))
    gleam = gleam.resize((gleam.width * COARSE, gleam.height * COARSE), Image.Resampling.BICUBIC)
    corner = (columns.start * COARSE, rows.start * COARSE)
    skin = lit.crop((*corner, corner[0] + gleam.width, corner[1] + gleam.height))
    lit.paste(ImageChops.add(skin, Image.merge("RGB", (gleam, gleam, gleam))), corner)
    return lit


def _paste_back(image: Image.Image, layer: Layer, pose: _Pose, view: View) -> None:
    box = pose.box(layer.box, image.size)
    size = (box[2] - box[0], box[3] - box[1])
    if min(size) <= 0:
        return
    colours, mask = _resampled(layer.bands, size, _mesh(layer.box[:2], pose, box, 2, 0.0))
    across = np.linspace(-1, 1, 16, dtype=np.float32)[None, :] * np.ones((2, 1), np.float32)
    light = np.array(view.key) * (0.55 + 0.4 * across * view.light[0])[..., None] + 0.8 * np.array(view.fill)
    colours = ImageChops.multiply(colours, picture(light * 235).resize(size, Image.Resampling.BILINEAR))
    image.paste(colours, box[:2], mask)


# --- the camera ------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def _grain(strength: float) -> Image.Image:
    values = np.random.default_rng(20260).standard_normal((640, 640)) * strength + 128
    return picture(np.repeat(values[..., None], 3, axis=2))


def _develop(image: Image.Image, view: View) -> Image.Image:
    """Applies exposure, tint, haze, a soft shoulder, and grain."""
    shot = view.shot
    tables = []
    values = np.arange(256) / 255
    for band, tint in enumerate((1 + 0.04 * shot.warmth, 1.0, 1 - 0.06 * shot.warmth)):
        del band
        bright = values * (1.2 * shot.brightness * tint)
        bright = np.where(bright > 0.75, 0.75 + 0.25 * np.tanh((bright - 0.75) / 0.25), bright)
        tables.append(np.clip(255 * (view.haze + (1 - view.haze) * bright), 0, 255).round().astype(int))
    image = image.point(np.concatenate(tables).tolist())
    if view.grain:
        left, top = shot.seed % 128, shot.seed // 128 % 128
        tile = _grain(view.grain).crop((left, top, left + image.width, top + image.height))
        image = ImageChops.add(image, tile, 1.0, -128)
    return image

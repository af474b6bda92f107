"""Renders portraits of 512 px: a person's painted layers (``sitter``), turned, lit and placed into a scene.

A portrait is a pure function of looks, view and size. What is costly is painted once a person, or computed at a third of the
resolution and enlarged; the rest is done by Pillow on 8-bit images.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from data_pipelines.portraits.body import paste_body
from data_pipelines.portraits.eyes import GAZES
from data_pipelines.portraits.looks import Look
from data_pipelines.portraits.plane import COARSE, noise, picture
from data_pipelines.portraits.pose import Pose, mesh, parted, resampled
from data_pipelines.portraits.relief import turned
from data_pipelines.portraits.sitter import Layer, Sitter
from data_pipelines.portraits.views import View
from data_pipelines.world.backdrops import sketch_backdrop

_WALLS = ("plain", "gradient", "halo", "window", "bricks", "wallpaper")
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
    pose = Pose(centre, unit, shot.yaw, shot.pitch, shot.tilt, look)
    if person.back is not None:
        _paste_back(image, person.back, pose, view)
    paste_body(image, look, view, (centre[0] - 0.12 * math.sin(shot.yaw) * unit, centre[1]), unit)
    _paste_head(image, person, pose, view)
    return _develop(image, view)


# --- the place -------------------------------------------------------------------------------------------------------


def _place(view: View, width: int, height: int) -> Image.Image:
    """Returns the place behind, out of focus by ``view.blur``, and lit."""
    shot = view.shot
    small = (-(-width * 5 // 8), -(-height * 5 // 8))
    image = sketch_backdrop(shot.backdrop, shot.wall_name, shot.accent_name, shot.seed, *small)
    image = image.filter(ImageFilter.BoxBlur(1.6 * view.blur * min(small)))  # a lens blurs evenly within a disc
    across = np.linspace(-1, 1, 40, dtype=np.float32)[None, :] * view.light[0]
    down = np.linspace(1, -1, 40, dtype=np.float32)[:, None] * 0.5
    top, left = shot.seed % 470, shot.seed // 512 % 470
    wear = 0.035 * noise("cloud")[top : top + 40, left : left + 40] * (shot.backdrop in _WALLS)
    key = 0.72 + 0.3 * across + 0.16 * down + wear
    light = np.array(view.key) * key[..., None] + np.array(view.fill)
    image = ImageChops.multiply(image, picture(light * 235).resize(small, Image.Resampling.BILINEAR))
    return image.resize((width, height), Image.Resampling.BILINEAR)


# --- the head --------------------------------------------------------------------------------------------------------


def _paste_head(image: Image.Image, person: Sitter, pose: Pose, view: View) -> None:
    shot = view.shot
    box = pose.box(person.box, image.size)
    if box[0] >= box[2] or box[1] >= box[3]:
        return
    gaze = round((shot.gaze * 0.5 + 0.5) * (GAZES - 1))
    front = person.front(shot.expression, gaze, shot.light_side)
    colours, mask = parted(resampled(front, *mesh(person.box[:2], pose, box, NODES, 1.0)))
    coarse = resampled(_light(person, pose, view), *mesh(person.box[:2], pose, box, NODES // 2, 1.0, COARSE))
    fine = coarse.resize((coarse.width * COARSE, coarse.height * COARSE), Image.Resampling.BILINEAR)
    light, gleam = parted(fine.crop((0, 0, *colours.size)))
    lit = ImageChops.add(ImageChops.multiply(colours, light), Image.merge("RGB", (gleam, gleam, gleam)))
    image.paste(lit, box[:2], mask)


def _light(person: Sitter, pose: Pose, view: View) -> Image.Image:
    """Returns the light on a head, of the coarse plane: its colour and, as a fourth band, what the skin reflects (CMYK)."""
    form = person.form
    lx, ly, lz = turned(view.light, pose.yaw, pose.tilt)
    nx, ny, nz = form.normal
    facing = nx * np.float32(lx) + ny * np.float32(ly) + nz * np.float32(lz)
    diffuse = np.clip((facing + 0.22) * (1 / 1.22), 0.0, 1.0) * form.open
    sky = form.open * (0.72 - 0.28 * ny)
    light = np.empty((*diffuse.shape, 4), dtype=np.uint8)
    for band in range(3):
        within = (0.07, -0.03, -0.06)[band]  # light within the skin is red, most of all where it falls off
        value = diffuse * np.float32(235 * view.key[band]) * (1.0 + within * (1.0 - diffuse) * form.flesh)
        value += sky * np.float32(235 * view.fill[band]) * (1.0 + 1.2 * within * form.flesh)
        light[..., band] = np.minimum(value, 255)
    length = math.sqrt(lx * lx + ly * ly + (lz + 1.0) ** 2)  # of the sum of the directions of light and viewer
    half = nx * np.float32(lx / length) + ny * np.float32(ly / length) + nz * np.float32((lz + 1.0) / length)
    shine = np.square(np.square(np.clip(half, 0, 1)))
    light[..., 3] = np.minimum(shine * shine * shine * form.gloss * np.float32(95 * view.key[1]), 255)
    return Image.fromarray(light, "CMYK")


def _paste_back(image: Image.Image, layer: Layer, pose: Pose, view: View) -> None:
    box = pose.box(layer.box, image.size)
    if box[0] >= box[2] or box[1] >= box[3]:
        return
    colours, mask = parted(resampled(layer.bands, *mesh(layer.box[:2], pose, box, 2, 0.0)))
    across = np.linspace(-1, 1, 16, dtype=np.float32)[None, :] * np.ones((2, 1), np.float32)
    light = np.array(view.key) * (0.55 + 0.4 * across * view.light[0])[..., None] + 0.8 * np.array(view.fill)
    colours = ImageChops.multiply(colours, picture(light * 235).resize(colours.size, Image.Resampling.BILINEAR))
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

"""Paints neck and clothes below a head: garments of ``world.clothes``, with threads, folds, light and the chin's shadow."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageChops

from data_pipelines.portraits.looks import Look
from data_pipelines.portraits.plane import noise, picture
from data_pipelines.portraits.views import View
from data_pipelines.world.canvas import Canvas, Head, darker
from data_pipelines.world.clothes import draw_clothes

_KNITTED = ("V-neck jumper", "turtleneck", "scarf", "cardigan", "hoodie")
_HALF_WIDTH, _NECK = 1.66, 0.35  # head units: of the shoulders, and where the neck begins


def paste_body(image: Image.Image, look: Look, view: View, centre: tuple[float, float], unit: float) -> None:
    """Paints neck and clothes onto a portrait, for a head of the size ``unit`` (px a head unit) at ``centre``."""
    reach = _HALF_WIDTH * unit
    left, right = max(0, int(centre[0] - reach)), min(image.width, int(centre[0] + reach) + 1)
    top = max(0, int(centre[1] + _NECK * unit))
    width, height = right - left, image.height - top
    if width <= 0 or height <= 0:
        return
    layer = Image.new("RGBA", (2 * width, 2 * height))
    middle = (centre[0] - left, centre[1] - top)
    draw_clothes(Canvas(layer), Head((2 * middle[0], 2 * middle[1]), 2 * unit), look.face, view.shot, shadow=False)
    layer = layer.reduce(2)
    columns = (np.linspace(0, width, 60, dtype=np.float32) - middle[0]) / unit
    rows = (np.linspace(0, height, 48, dtype=np.float32) - middle[1]) / unit
    shade = _body_light(look, view, columns[None, :], rows[:, None])
    light = picture(shade * 235).resize((width, height), Image.Resampling.BILINEAR)
    row, column = view.shot.seed % 90, view.shot.seed // 90 % 90
    threads = _cloth(view.shot.garment in _KNITTED).crop((column, row, column + width, row + height))
    plain = layer.convert("RGB")
    worn = ImageChops.multiply(plain, threads)
    _bare_skin(
        plain, worn, look, (int(middle[0] - 0.6 * unit), 0, int(middle[0] + 0.6 * unit), int(middle[1] + 1.9 * unit))
    )
    image.paste(ImageChops.multiply(worn, light), (left, top), layer.getchannel("A"))


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

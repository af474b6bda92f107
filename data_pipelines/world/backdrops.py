"""Draws the place behind a portrait: fourteen kinds, in many colours, drawn small and enlarged to look soft."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from data_pipelines.world.canvas import RGB, Canvas, darker, lighter, mix
from data_pipelines.world.shots import WALLS

LEAVES: tuple[RGB, ...] = ((58, 122, 84), (84, 150, 92), (126, 176, 104), (40, 96, 78))


def ramp(size: tuple[int, int], colours: list[RGB]) -> Image.Image:
    """Fills a vertical gradient through ``colours``, from top to bottom."""
    column = Image.fromarray(np.array(colours, dtype=np.uint8)[:, None, :])
    return column.resize(size, Image.Resampling.BILINEAR)


def draw_backdrop(kind: str, wall_name: str, accent_name: str, seed: int, size: tuple[int, int]) -> Image.Image:
    """Returns an RGB image [width, height] = ``size``, enlarged from a sketch a quarter as large.

    ``kind`` is one of ``shots.BACKDROPS``; the colours are keys of ``shots.WALLS``; ``seed`` places the details.
    """
    width, height = max(8, -(-size[0] // 4)), max(8, -(-size[1] // 4))
    image = sketch_backdrop(kind, wall_name, accent_name, seed, width, height)
    # Resize smoothly to half the size, then double: the finished picture is averaged down by two again.
    image = image.filter(ImageFilter.BoxBlur(0.6))
    half = (-(-size[0] // 2), -(-size[1] // 2))
    return image.resize(half, Image.Resampling.BILINEAR).resize(size, Image.Resampling.NEAREST)


def sketch_backdrop(kind: str, wall_name: str, accent_name: str, seed: int, width: int, height: int) -> Image.Image:
    """Returns the place, RGB of ``width`` x ``height`` px, with hard edges; arguments as :func:`draw_backdrop`."""
    rng = np.random.default_rng(seed)
    wall, accent = WALLS[wall_name], WALLS[accent_name]
    if kind not in ("plain", "gradient", "halo"):
        return _SCENES[kind](width, height, wall, accent, rng)
    bottom = {"plain": darker(wall, 0.06), "gradient": accent, "halo": darker(wall, 0.3)}[kind]
    image = ramp((width, height), [wall, bottom])
    if kind == "halo":
        _halo(Canvas(image), width, height, wall)
    return image


def _halo(canvas: Canvas, width: int, height: int, wall: RGB) -> None:
    for k in range(6):
        canvas.dot(width / 2, 0.46 * height, (0.62 - 0.08 * k) * max(width, height), lighter(wall, 0.1 * k))


# Each function below draws a place from its size in pixels, two colours, and a generator for its details.


def _window(width: int, height: int, wall: RGB, accent: RGB, rng: np.random.Generator) -> Image.Image:
    image = ramp((width, height), [wall, darker(wall, 0.12)])
    canvas = Canvas(image)
    left = float(rng.choice([-0.1, 0.56])) * width + float(rng.uniform(-0.04, 0.1)) * width
    right, top, bottom = left + 0.46 * width, 0.06 * height, 0.74 * height
    canvas.box(left - 2, top - 2, right + 2, bottom + 2, (250, 246, 238))
    canvas.box(left, top, right, bottom, mix((164, 214, 244), accent, 0.25))
    canvas.dot(left + 0.5 * (right - left), bottom, 0.2 * height, LEAVES[int(rng.integers(4))])
    canvas.box(left, bottom + 1, right, bottom + 0.2 * height, wall)
    canvas.box(left - 4, bottom, right + 4, bottom + 3, (250, 246, 238))
    middle = 0.5 * (left + right)
    canvas.box(middle - 1, top, middle + 1, bottom, (250, 246, 238))
    canvas.box(left, 0.4 * height, right, 0.4 * height + 1.5, (250, 246, 238))
    return image


def _foliage(width: int, height: int, wall: RGB, accent: RGB, rng: np.random.Generator) -> Image.Image:
    image = ramp((width, height), [(150, 196, 128), (52, 112, 80)])
    canvas = Canvas(image)
    for k in range(46):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        angle, long = rng.uniform(0, 6.28), rng.uniform(0.1, 0.2) * max(width, height)
        across = np.array([-np.sin(angle), np.cos(angle)]) * 0.28 * long
        along = np.array([np.cos(angle), np.sin(angle)]) * long
        middle = np.array([x, y])
        canvas.fill(
            [middle - along, middle + across, middle + along, middle - across], mix(LEAVES[k % 4], accent, 0.12)
        )
    return image


def _bokeh(width: int, height: int, wall: RGB, accent: RGB, rng: np.random.Generator) -> Image.Image:
    image = ramp((width, height), [darker(wall, 0.72), darker(accent, 0.6)])
    canvas = Canvas(image)
    for k in range(24):
        radius = rng.uniform(0.03, 0.1) * max(width, height)
        tint = (wall, accent, (255, 214, 140))[k % 3]
        canvas.dot(
            rng.uniform(0, width), rng.uniform(0, height), radius, (*lighter(tint, 0.25), int(rng.integers(60, 170)))
        )
    return image


def _books(width: int, height: int, wall: RGB, accent: RGB, rng: np.random.Generator) -> Image.Image:
    wood = (124, 84, 58)
    image = Image.new("RGB", (width, height), darker(wood, 0.45))
    canvas = Canvas(image)
    palette = [(178, 66, 60), (54, 94, 130), (224, 184, 100), (92, 126, 92), (222, 206, 180), wall, accent]
    shelf = max(6.0, 0.26 * min(width, height))
    for row in range(int(height // shelf) + 1):
        x, floor = float(rng.uniform(-3, 0)), (row + 1) * shelf
        while x < width:
            thick = float(rng.uniform(0.12, 0.26)) * shelf
            tall = float(rng.uniform(0.62, 0.88)) * shelf
            canvas.box(x, floor - tall, x + thick, floor, palette[int(rng.integers(len(palette)))])
            x += thick + 0.6
        canvas.box(0, floor - 1, width, floor + 1, wood)
    return image


def _skyline(width: int, height: int, wall: RGB, accent: RGB, rng: np.random.Generator) -> Image.Image:
    image = ramp((width, height), [lighter(wall, 0.1), lighter(accent, 0.45)])
    canvas = Canvas(image)
    for layer, shade in enumerate((0.3, 0.55)):
        x = float(rng.uniform(-5, 0))
        while x < width:
            wide, tall = rng.uniform(0.1, 0.2) * width, rng.uniform(0.35, 0.75 - 0.14 * layer) * height
            canvas.box(x, height - tall, x + wide, height, darker(mix(wall, (90, 110, 150), 0.5), shade))
            if layer:
                for row in range(3):
                    for column in range(2):
                        top = height - tall + 3 + 5 * row
                        canvas.box(x + 2 + 4 * column, top, x + 3 + 4 * column, top + 2, (255, 226, 150))
            x += wide + (1 if layer else 0)
    return image


def _sea(width: int, height: int, wall: RGB, accent: RGB, rng: np.random.Generator) -> Image.Image:
    image = ramp((width, height), [(132, 196, 238), (222, 240, 248)])
    canvas = Canvas(image)
    horizon = float(rng.uniform(0.42, 0.6)) * height
    canvas.box(0, horizon, width, height, (44, 132, 176))
    for k in range(7):
        x, y = rng.uniform(0, width), horizon + rng.uniform(0.03, 0.25) * height
        canvas.box(x, y, x + 0.16 * width, y + 0.8, (150, 208, 226) if k % 2 else (96, 172, 204))
    sail = float(rng.choice([0.14, 0.84])) * width
    canvas.fill([(sail, horizon), (sail, horizon - 0.22 * height), (sail + 0.1 * width, horizon)], (252, 250, 246))
    shore = horizon + 0.26 * height
    canvas.blob(
        [(-6, shore), (0.5 * width, shore - 3), (width + 6, shore), (width + 6, height + 9), (-6, height + 9)],
        (240, 216, 164),
    )
    return image


def _mountains(width: int, height: int, wall: RGB, accent: RGB, rng: np.random.Generator) -> Image.Image:
    image = ramp((width, height), [lighter(wall, 0.2), (250, 236, 220)])
    canvas = Canvas(image)
    for layer, tint in enumerate(((148, 166, 198), (98, 124, 158), (66, 108, 100))):
        peaks = [(-2.0, float(height))]
        for k in range(6):
            low = (0.3 + 0.16 * layer + (0.2 if k % 2 else 0.0)) * height + rng.uniform(0, 0.1) * height
            peaks.append((k * width / 5.0 + rng.uniform(-0.06, 0.06) * width, low))
        canvas.fill([*peaks, (width + 2.0, float(height))], tint)
        if layer == 0:
            for x, y in peaks[1::2]:
                canvas.fill(
                    [(x, y), (x - 0.05 * width, y + 0.06 * height), (x + 0.05 * width, y + 0.06 * height)],
                    (250, 250, 252),
                )
    return image


def _bricks(width: int, height: int, wall: RGB, accent: RGB, rng: np.random.Generator) -> Image.Image:
    tone = mix((184, 92, 70), wall, float(rng.uniform(0.0, 0.55)))
    image = Image.new("RGB", (width, height), lighter(tone, 0.35))
    canvas = Canvas(image)
    tall = max(4, round(0.1 * min(width, height)))
    for row in range(height // tall + 1):
        for column in range(-1, width // (2 * tall) + 1):
            left = column * 2 * tall + (tall if row % 2 else 0)
            shade = darker(tone, float(rng.uniform(0.0, 0.16)))
            canvas.box(left, row * tall, left + 2 * tall - 2, row * tall + tall - 2, shade)
    return image


def _sunset(width: int, height: int, wall: RGB, accent: RGB, rng: np.random.Generator) -> Image.Image:
    image = ramp((width, height), [(94, 74, 140), (226, 106, 120), (252, 176, 104), (254, 222, 150)])
    canvas = Canvas(image)
    x, y = float(rng.choice([0.16, 0.82])) * width, 0.52 * height
    canvas.dot(x, y, 0.15 * min(width, height), (255, 244, 206))
    for k in range(2):
        low = (0.66 + 0.12 * k) * height
        hill = [
            (-8, low),
            (0.3 * width, low - rng.uniform(2, 8)),
            (0.7 * width, low + rng.uniform(-3, 5)),
            (width + 8, low - 3),
        ]
        canvas.blob([*hill, (width + 8, height + 20), (-8, height + 20)], ((120, 66, 110), (74, 48, 92))[k])
    return image


def _wallpaper(width: int, height: int, wall: RGB, accent: RGB, rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (width, height), wall)
    canvas = Canvas(image)
    step, tint = max(6, round(0.14 * min(width, height))), mix(wall, accent, 0.6)
    if rng.random() < 0.5:
        for x in range(0, width, 2 * step):
            canvas.box(x, 0, x + step - 1, height, tint)
    else:
        for row in range(height // step + 1):
            for column in range(width // step + 2):
                canvas.dot(column * step + (step / 2 if row % 2 else 0), row * step + 2, 0.24 * step, tint)
    return image


def _meadow(width: int, height: int, wall: RGB, accent: RGB, rng: np.random.Generator) -> Image.Image:
    image = ramp((width, height), [(126, 192, 236), (214, 238, 246)])
    canvas = Canvas(image)
    for _ in range(3):
        x, y = rng.uniform(0, width), rng.uniform(0.08, 0.35) * height
        for dx, radius in ((-0.07, 0.05), (0.0, 0.07), (0.08, 0.05)):
            canvas.dot(x + dx * width, y, radius * min(width, height), (255, 255, 255))
    for k, tint in enumerate(((156, 204, 108), (118, 180, 92))):
        low = (0.54 + 0.14 * k) * height
        hill = [
            (-8, low),
            (0.35 * width, low - rng.uniform(1, 9)),
            (0.7 * width, low),
            (width + 8, low - rng.uniform(0, 9)),
        ]
        canvas.blob([*hill, (width + 8, height + 20), (-8, height + 20)], tint)
    for k in range(26):
        canvas.dot(
            rng.uniform(0, width),
            rng.uniform(0.62, 1.0) * height,
            1.2,
            ((250, 236, 120), (252, 252, 252), (238, 120, 140))[k % 3],
        )
    return image


_SCENES = {
    "window": _window, "foliage": _foliage, "bokeh": _bokeh, "books": _books, "skyline": _skyline, "sea": _sea,
    "mountains": _mountains, "bricks": _bricks, "sunset": _sunset, "wallpaper": _wallpaper, "meadow": _meadow,
}  # fmt: skip

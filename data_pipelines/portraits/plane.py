"""Holds the plane that a head is painted on: seen from the front, in head units, at several resolutions.

The painted layers are U px a head unit (half the height of a head); paint is put on at twice that and averaged down. Light
is computed at a third of it, where it is smooth.
"""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data_pipelines.world.canvas import Canvas, Colour, Head, Points, translucent

U = 174  # px a head unit, of painted layers; a face at 512 px has 125 to 155
LEFT, TOP, WIDE, TALL = -1.725, -1.931, 3.448, 4.0  # head units, of the plane
SIZE = (600, 696)  # px of painted layers
COARSE = 3
COARSE_SIZE = (SIZE[0] // COARSE, SIZE[1] // COARSE)


@functools.lru_cache(maxsize=4)
def grid(step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Returns x [1, width] and y [height, 1] of the pixels of layers reduced by ``step``, float32 head units."""
    width, height = SIZE[0] // step, SIZE[1] // step
    x = LEFT + (np.arange(width, dtype=np.float32) + 0.5) * (step / U)
    y = TOP + (np.arange(height, dtype=np.float32) + 0.5) * (step / U)
    return x[None, :], y[:, None]


def easel(mode: str, colour: tuple[int, ...] | int = 0, zoom: int = 2) -> tuple[Image.Image, Canvas, Head]:
    """Returns an empty picture of the plane at ``zoom`` times U, a canvas on it, and the head that maps head units to it."""
    image = Image.new(mode, (SIZE[0] * zoom, SIZE[1] * zoom), colour)
    return image, Canvas(image), Head((-LEFT * U * zoom, -TOP * U * zoom), U * zoom)


def moved(points: np.ndarray, right: float, down: float) -> np.ndarray:
    """Returns ``points`` [n, 2] shifted."""
    return points + np.array([right, down])


def bump(x: np.ndarray, y: np.ndarray, at_x: float, at_y: float, wide: float, tall: float) -> np.ndarray:
    """Returns a Gaussian hill of height 1."""
    return np.exp(-(((x - at_x) / wide) ** 2)) * np.exp(-(((y - at_y) / tall) ** 2))


def both(x: np.ndarray, y: np.ndarray, at_x: float, at_y: float, wide: float, tall: float) -> np.ndarray:
    """Returns a hill on either side of the face."""
    return bump(x, y, at_x, at_y, wide, tall) + bump(x, y, -at_x, at_y, wide, tall)


def blur(values: np.ndarray, deviation: float) -> np.ndarray:
    """Returns ``values`` [height, width] blurred by a Gaussian; ``deviation`` in pixels."""
    reach = max(1, int(3 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1, dtype=np.float32) / np.float32(deviation)) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padded = np.pad(values, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], "edge")
        length = values.shape[axis]
        values = sum(k * padded.take(range(i, i + length), axis) for i, k in enumerate(kernel))
    return values


def picture(values: np.ndarray) -> Image.Image:
    """Returns float values in [0, 255] as an 8-bit image, of mode L for [height, width], RGB for [height, width, 3]."""
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


@functools.lru_cache(maxsize=8)
def noise(kind: str) -> np.ndarray:
    """Returns a tile of noise, float32 of about unit deviation: 'streaks' [4096]; 'pores', 'cloud' and 'coils' [512, 512]."""
    rng = np.random.default_rng([77, len(kind)])
    if kind == "streaks":
        fine = rng.standard_normal(4096)
        kernel = np.exp(-0.5 * (np.arange(-8, 9) / 2.0) ** 2)
        smooth = np.convolve(np.concatenate([fine[-8:], fine, fine[:8]]), kernel, "valid")
        return (smooth / smooth.std()).astype(np.float32)
    if kind == "coils":
        return _coils(rng)
    octaves = {"pores": ((512, 0.6), (256, 0.7), (128, 0.5)), "cloud": ((8, 1.0), (16, 0.6), (32, 0.35))}[kind]
    total = np.zeros((512, 512), dtype=np.float32)
    for cells, weight in octaves:
        layer = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
        total += weight * np.asarray(layer.resize((512, 512), Image.Resampling.BICUBIC))
    return total / total.std()


def _coils(rng: np.random.Generator) -> np.ndarray:
    image = Image.new("L", (1024, 1024), 90)
    draw = ImageDraw.Draw(image)
    for _ in range(5200):
        x, y = rng.uniform(-40, 1064, 2)
        radius, start = rng.uniform(12, 34), rng.uniform(0, 360)
        box = (x - radius, y - radius, x + radius, y + radius)
        shade = int(rng.integers(20, 235))
        for k in range(4):
            inner = (box[0] + k * 3, box[1] + k * 3, box[2] - k * 3, box[3] - k * 3)
            draw.arc(inner, start, start + 200, fill=min(255, shade + 12 * k), width=3)
    values = np.asarray(image.filter(ImageFilter.GaussianBlur(1.2)).reduce(2), dtype=np.float32)
    return (values - values.mean()) / values.std()


def soft_stroke(canvas: Canvas, head: Head, points: Points, width: float, colour: Colour, opacity: float) -> None:
    """Draws a stroke that fades to its sides; ``width`` in head units."""
    for share, part in ((1.0, 0.3), (0.62, 0.35), (0.3, 0.35)):
        canvas.stroke(head.surface(points), share * width * head.unit, translucent(colour, part * opacity), 0.95)

"""Paints hair: the cuts of ``world.hair``, given strands, coils, gloss and soft edges."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from data_pipelines.portraits.looks import Look
from data_pipelines.portraits.plane import U, easel, grid, noise
from data_pipelines.world import hair
from data_pipelines.world.brush import Brush
from data_pipelines.world.canvas import Canvas, Colour, Head, Points, darker, lighter, mix
from data_pipelines.world.faces import COVERINGS

NEUTRAL = (150, 150, 150)  # stands for the colour of the hair until it is textured
COILED = ("afro", "flat top", "locs", "braids")
CURLED = ("curly", "long curly")
WAVY = ("long wavy", "curtains", "shoulder length", "quiff")


class _HairBrush(Brush):
    """Paints neutral hair without strands or gloss; hair that lets the skin through goes onto a canvas of its own."""

    def __init__(self, canvas: Canvas, stubble: Canvas, head: Head, look: Look):
        face = dataclasses.replace(look.face, hair=NEUTRAL, skin=NEUTRAL)
        super().__init__(canvas, head, face, -1)
        self.stubble = stubble
        if face.cut in ("buzz", "bald"):
            self.canvas = stubble
        self.colour = NEUTRAL

    def strands(self, lines: list[Points], width: float = 0.025, colour: Colour | None = None) -> None:
        """Draws nothing: the texture has strands."""

    def gloss(self, height: float = -0.86) -> None:
        """Draws nothing: the texture has gloss."""

    def cap(
        self, hairline: list[tuple[float, float]], volume: float = 0.08, side: float = 0.05, top: float = 0.0,
        colour: Colour | None = None,
    ) -> None:  # fmt: skip
        """Draws hair over the skull; onto the canvas of stubble if it has a colour of its own, which is mixed with skin."""
        whole = self.canvas
        if colour is not None:
            self.canvas = self.stubble
        super().cap(hairline, volume, side, top, NEUTRAL if colour is None else darker(NEUTRAL, 0.1))
        self.canvas = whole


def paint_hair(look: Look) -> tuple[Image.Image | None, Image.Image | None]:
    """Returns the hair behind the body and that over the face, RGBA of the size of layers; None where there is none.

    What is always worn on the head is part of it.
    """
    if look.face.cut == "headscarf":
        return _scarf(look), _composed(_worn(look))
    back = _hair(look, hair.draw_back, True)
    front = _hair(look, hair.draw_front_hair, False)
    worn = _worn(look) if look.face.cut in COVERINGS else []
    return _composed(back), _composed([*front, *worn])


def _hair(look: Look, draw: Callable[[Brush], None], back: bool) -> list[Image.Image]:
    """Returns layers of hair, the lowest first."""
    image, canvas, head = easel("RGBA")
    thin, stubble, _ = easel("RGBA")
    draw(_HairBrush(canvas, stubble, head, look))
    layers = (_stubble(thin.reduce(2), look), _textured(image.reduce(2), look, back))
    return [layer for layer in layers if layer is not None]


def _worn(look: Look) -> list[Image.Image]:
    """Returns headwear, and below it the hair at the temples that it leaves free."""
    image, canvas, head = easel("RGBA")
    hair.draw_headwear(Brush(canvas, head, dataclasses.replace(look.face, hair=NEUTRAL), -1))
    below, worn = _parted(image)
    return [layer for layer in (_textured(below, look, False), _cloth(worn)) if layer is not None]


def _scarf(look: Look) -> Image.Image | None:
    """Returns the part of a headscarf that is behind the body."""
    image, canvas, head = easel("RGBA")
    hair.draw_back(Brush(canvas, head, look.face, -1))
    return _cloth(image.reduce(2))


def _composed(layers: list[Image.Image]) -> Image.Image | None:
    return functools.reduce(Image.alpha_composite, layers) if layers else None


def _parted(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Returns the neutral hair of a picture at twice the size of layers, and all else, at the size of layers."""
    pixels = np.asarray(image)
    neutral = (np.abs(pixels[..., :3].astype(np.int16) - NEUTRAL[0]) <= 1).all(axis=2) & (pixels[..., 3] > 0)
    parts = []
    for of_part in (neutral, ~neutral):
        part = pixels.copy()
        part[..., 3] *= of_part
        parts.append(Image.fromarray(part).reduce(2))
    return parts[0], parts[1]


def _streaks(s: np.ndarray, frequency: float, seed: int) -> np.ndarray:
    """Looks up a noise of strands at ``s``, which is constant along a strand."""
    table = noise("streaks")
    at = s * frequency + seed
    low = np.floor(at)
    share = at - low
    index = low.astype(np.int32) & 4095
    return table[index] * (1 - share) + table[(index + 1) & 4095] * share


def _textured(image: Image.Image, look: Look, back: bool) -> Image.Image | None:
    """Gives neutral hair its colour, strands, gloss and soft edges; other colours (ties, beads) stay."""
    box = image.getchannel("A").getbbox()
    if box is None:
        return None
    face = look.face
    box = (max(0, box[0] - 8), max(0, box[1] - 8), min(image.width, box[2] + 8), min(image.height, box[3] + 8))
    pixels = np.asarray(image.crop(box)).astype(np.float32)
    x, y = grid(1)
    x, y = x[:, box[0] : box[2]], y[box[1] : box[3]]
    alpha = pixels[..., 3] / 255
    plain = pixels[..., :3].max(axis=2) - pixels[..., :3].min(axis=2) < 26
    shade = np.where(alpha > 0.3, pixels[..., :3].mean(axis=2) / 150, 0.9)  # beyond the edge there are wisps

    crown = np.sqrt(np.maximum(0.02, 1.0 - ((np.minimum(y, -0.25) + 0.25) / 0.98) ** 2))
    wave = 0.0
    if face.cut in WAVY or face.cut in CURLED:
        wave = (0.05 if face.cut in WAVY else 0.09) * np.sin(9.0 * y + 3.0 * np.abs(x) + face.seed % 7)
    s = (x + wave * np.minimum(1.0, np.abs(y + 0.9) * 2) + 0.08 * face.parting * (y < -0.4) * (y + 0.4)) / crown
    seed, coiled = face.seed % 1024, face.cut in COILED or face.cut in CURLED
    texture = (
        0.5 * _streaks(s, 150.0, seed)
        + 0.55 * _streaks(s + 0.03 * np.sin(5 * y), 52.0, seed + 300)
        + 0.4 * _streaks(s, 17.0, seed + 700)
    )
    if coiled:
        tile = noise("coils")
        zoom = (1.1 if face.cut in CURLED else 1.9) / (face.curl_size / 0.2)
        rows = ((y + 3) * U * zoom).astype(np.int32) + seed & 511
        columns = ((x + 3) * U * zoom).astype(np.int32) + seed // 3 & 511
        texture = 0.9 * tile[rows, columns] + 0.15 * texture

    soft = (
        np.asarray(
            Image.fromarray((alpha * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(7)), dtype=np.float32
        )
        / 255
    )
    inner = np.clip((soft - 0.35) / 0.6, 0.0, 1.0)
    wisps = texture if coiled else 0.8 * _streaks(s, 26.0, seed + 500)
    ragged = np.clip((soft - 0.5 + 0.11 * wisps) * 5.0 + 0.5, 0.0, 1.0)
    alpha = np.where(plain, ragged, alpha)

    band = np.exp(-(((crown * np.sign(y + 1.3) - 0.62) / 0.16) ** 2)) * (y < -0.3)
    gloss = (
        (0.0 if face.cut in COILED else 0.3 if face.cut in CURLED else 1.0)
        * band
        * np.clip(0.6 + 0.5 * texture, 0, 1.6)
    )
    light = (0.66 if back else 0.86) * shade * (0.62 + 0.38 * inner) * np.clip(1.0 + 0.2 * texture, 0.35, 1.8)
    if back:
        light = light * np.clip(0.75 + 0.12 * np.abs(x), 0.6, 1.0)
    base = np.array(face.hair, dtype=np.float32)
    bright = np.array(lighter(face.hair, 0.42), dtype=np.float32)
    deep = np.array(darker(face.hair, 0.1), dtype=np.float32)
    tips = np.clip(0.3 + 0.35 * texture, 0.0, 1.0)[..., None]
    colour = (deep + (base - deep) * tips) * light[..., None] + 10 * np.clip(light - 0.8, 0, 1)[..., None]
    colour = colour + (bright - base * 0.6) * (0.34 * gloss * inner)[..., None]
    out = np.empty((*alpha.shape, 4), dtype=np.uint8)
    out[..., :3] = np.clip(np.where(plain[..., None], colour, pixels[..., :3]), 0, 255)
    out[..., 3] = np.clip(alpha * 255, 0, 255)
    # Beyond the edge the colour of the hair goes on, for resampling mixes it in.
    whole = np.zeros((image.height, image.width, 4), dtype=np.uint8)
    whole[..., :3] = darker(face.hair, 0.2)
    whole[box[1] : box[3], box[0] : box[2]] = out
    return Image.fromarray(whole)


def _stubble(image: Image.Image, look: Look) -> Image.Image | None:
    """Gives hair that is too short to lie the colour of hair, mixed with the skin by a fine grain."""
    if image.getchannel("A").getbbox() is None:
        return None
    within = image.getchannel("A")
    alpha = np.asarray(ImageChops.multiply(within, within.filter(ImageFilter.GaussianBlur(5))), dtype=np.float32) / 255
    grain = np.tile(noise("pores"), (2, 2))[: image.height, : image.width]
    cover = 0.72 if look.face.cut == "buzz" else 0.5
    alpha = np.clip(alpha * (cover + 0.16 * grain), 0.0, 1.0)
    out = np.empty((image.height, image.width, 4), dtype=np.uint8)
    base = np.array(mix(look.face.hair, darker(look.face.hair, 0.5), 0.25), dtype=np.float32)
    out[..., :3] = np.clip(base * (1.0 + 0.12 * grain[..., None]), 0, 255)
    out[..., 3] = alpha * 255
    return Image.fromarray(out)


def _cloth(image: Image.Image) -> Image.Image | None:
    """Gives cloth on a head a weave and soft folds."""
    if image.getchannel("A").getbbox() is None:
        return None
    x, y = grid(1)
    pixels = np.asarray(image).astype(np.float32)
    fold = np.tile(noise("cloud"), (2, 2))[: image.height, : image.width]
    weave = np.sin(x * 260) * np.sin(y * 260)
    shade = 0.92 + 0.045 * fold + 0.025 * weave + 0.045 * np.sin(14 * (np.abs(x) * 0.7 + y) + 2.0 * fold)
    out = np.empty_like(pixels, dtype=np.uint8)
    out[..., :3] = np.clip(pixels[..., :3] * shade[..., None], 0, 255)
    out[..., 3] = pixels[..., 3]
    return Image.fromarray(out)

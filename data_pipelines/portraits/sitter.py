"""Holds the painted layers of one person, made when first needed: hair behind, head with each expression, relief for light."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from data_pipelines.portraits import adornments
from data_pipelines.portraits.beards import beard_colour, beard_outline, paint_beard, paint_moustache
from data_pipelines.portraits.eyes import paint_eyes
from data_pipelines.portraits.looks import Look
from data_pipelines.portraits.mouth import paint_mouth
from data_pipelines.portraits.plane import COARSE, COARSE_SIZE, LEFT, SIZE, TOP, U, easel
from data_pipelines.portraits.relief import dome, make_relief
from data_pipelines.portraits.skin import paint_skin
from data_pipelines.portraits.tresses import paint_hair
from data_pipelines.world.canvas import Head, darker

_EYES, _MOUTH = (-0.72, -0.56, 0.72, 0.2), (-0.72, 0.2, 0.72, 1.1)  # what an expression changes: boxes in head units


class Form(NamedTuple):
    """What light depends on, within the box of a sitter; float32 [height, width] of the coarse plane."""

    normal: np.ndarray  # [3, height, width]
    open: np.ndarray
    gloss: np.ndarray
    flesh: np.ndarray  # 1 on skin, 0 on hair


class Layer(NamedTuple):
    """A part of the plane: colours and, as a fourth band, where they are (mode CMYK); and its top left corner, px."""

    bands: Image.Image
    box: tuple[int, int, int, int]


def _cut_out(image: Image.Image) -> Layer | None:
    """Returns an RGBA picture of the plane without its empty rim; None if it is empty."""
    box = image.getchannel("A").getbbox()
    return None if box is None else Layer(Image.merge("CMYK", image.crop(box).split()), box)


class Sitter:
    """One person's layers. ``box`` is the part of the plane that the head fills, (left, top, right, bottom) in its px."""

    def __init__(self, look: Look):
        self.look = look
        self._skin, skin_mask = paint_skin(look)
        back, self._hair = paint_hair(look)
        self.back = None if back is None else _cut_out(back)
        paint_beard(self._skin, Head((-LEFT * U * 2, -TOP * U * 2), U * 2), look)
        self._worn = adornments.paint_worn(look)
        if (beard := beard_outline(look)) is not None:
            grown, canvas, head = easel("RGB")
            canvas.blob(head.outline(beard), (255, 255, 255))
            skin_mask = ImageChops.lighter(
                skin_mask, grown.reduce(2).getchannel("R").filter(ImageFilter.GaussianBlur(4))
            )
        whole = skin_mask
        for layer in (self._hair, self._worn):
            if layer is not None:
                whole = ImageChops.lighter(whole, layer.getchannel("A"))
        self._skin_mask = skin_mask
        left, top, right, bottom = whole.getbbox() or (0, 0, *SIZE)
        self.box = (left // 6 * 6, top // 6 * 6, min(SIZE[0], -(-right // 6) * 6), min(SIZE[1], -(-bottom // 6) * 6))
        self.mask = whole.crop(self.box)
        self.form = self._form()
        self._patches: dict[tuple, Image.Image] = {}
        self._fronts: dict[tuple[str, int, int], Image.Image] = {}

    @functools.cached_property
    def _grown(self) -> Image.Image:
        """Where the skin is, and two pixels around."""
        return self._skin_mask.filter(ImageFilter.MaxFilter(5))

    @functools.cached_property
    def _base(self) -> Image.Image:
        """The skin at the size of layers, with the colour of hair around it, which resampling mixes into edges."""
        around = Image.new(
            "RGB", SIZE, darker(self.look.face.hair, 0.25) if self._hair is not None else self.look.face.skin
        )
        if beard_outline(self.look) is not None:
            around.paste(darker(beard_colour(self.look), 0.15), (0, round((0.15 - TOP) * U), *SIZE))
        around.paste(self._skin.reduce(2), (0, 0), self._grown)
        return around

    def front(self, expression: str, gaze: int, side: int) -> Image.Image:
        """Returns the head with an expression, lit evenly: the bands of a :class:`Layer` of the size of ``box``."""
        side = side if expression in ("winking", "smirking") else 1  # of others, both sides are alike
        key = (expression, gaze if expression != "dreamy" else 0, side)
        if key not in self._fronts:
            self._fronts[key] = self._paint_front(*key)
        return self._fronts[key]

    def _paint_front(self, expression: str, gaze: int, side: int) -> Image.Image:
        whole = self._base.copy()
        eyes = self._patch(("eyes", expression, gaze, side), _EYES, lambda image, head: paint_eyes(
            image, head, self.look, expression, gaze, side))  # fmt: skip
        mouth = self._patch(("mouth", expression, side), _MOUTH, lambda image, head: self._paint_mouth(
            image, head, expression, side))  # fmt: skip
        for patch, corner in (eyes, mouth):
            box = (*corner, corner[0] + patch.width, corner[1] + patch.height)
            whole.paste(patch, corner, self._grown.crop(box))
        for layer in (self._hair, self._worn):
            if layer is not None:
                whole.paste(layer, (0, 0), layer)
        return Image.merge("CMYK", (*whole.crop(self.box).split(), self.mask))

    def _paint_mouth(self, image: Image.Image, head: Head, expression: str, side: int) -> None:
        paint_mouth(image, head, self.look, expression, side)
        paint_moustache(image, head, self.look)

    def _patch(
        self, key: tuple, box: tuple[float, float, float, float], paint: Callable[[Image.Image, Head], None]
    ) -> tuple[Image.Image, tuple[int, int]]:
        """Returns a part of the skin with features, at the size of layers, and its top left corner; paints it once."""
        left, top = round((box[0] - LEFT) * U), round((box[1] - TOP) * U)
        right, bottom = round((box[2] - LEFT) * U), round((box[3] - TOP) * U)
        if key not in self._patches:
            patch = self._skin.crop((2 * left, 2 * top, 2 * right, 2 * bottom))
            paint(patch, Head((-LEFT * U * 2 - 2 * left, -TOP * U * 2 - 2 * top), U * 2))
            self._patches[key] = patch.reduce(2)
        return self._patches[key], (left, top)

    def _form(self) -> Form:
        relief = make_relief(self.look)
        cover = self._coarse(None if self._hair is None else self._hair.getchannel("A"))
        shade = (
            np.asarray(
                Image.fromarray((cover * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(4)), dtype=np.float32
            )
            / 255
        )
        shade = np.roll(shade, 4, axis=0) * (1.0 - cover)
        normal = relief.normal * (1.0 - cover) + dome(self.look) * cover
        inside = self._coarse(self._skin_mask)
        normal = normal * np.maximum(inside, cover) + dome(self.look) * (1.0 - np.maximum(inside, cover))
        open_sky = relief.open * (1.0 - 0.42 * shade) * (1.0 - cover) + cover
        gloss = relief.gloss * (1.0 - cover) * inside
        rows = slice(self.box[1] // COARSE, self.box[3] // COARSE)
        columns = slice(self.box[0] // COARSE, self.box[2] // COARSE)
        flesh = inside * (1.0 - cover)
        parts = (normal[:, rows, columns], *(part[rows, columns] for part in (open_sky, gloss, flesh)))
        return Form(*(np.ascontiguousarray(part, dtype=np.float32) for part in parts))

    @staticmethod
    def _coarse(mask: Image.Image | None) -> np.ndarray:
        if mask is None:
            return np.zeros((COARSE_SIZE[1], COARSE_SIZE[0]), dtype=np.float32)
        return np.asarray(mask.resize(COARSE_SIZE, Image.Resampling.BOX), dtype=np.float32) / 255

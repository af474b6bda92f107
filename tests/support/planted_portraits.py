"""Portraits that are coloured cells, with faults that a test plants, and an encoder that reads the cells.

A portrait has 8 x 8 cells: the first two rows say what the person looks like, the next two are the person's own, and the last
four belong to the portrait alone.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from data_pipelines.portraits.source import AGES, GENDERS, REGIONS, Anchor, Portrait

_CELL = 14  # px
_NOISE = 10.0


@dataclasses.dataclass(frozen=True)
class CellSource:
    """Gives ``people`` with ``portraits`` each.

    Attributes:
      seed: other seeds give other people.
      mixed: {number: (other number, share of the portraits that are the other's)}.
      twins: {number: whose pattern it has}.
      looks: {number: the anchor that it looks like, whatever it is annotated as}.
      repeats: {(number, index): the index that it repeats}.
    """

    seed: int = 0
    people: int = 12
    portraits: int = 10
    mixed: Mapping[int, tuple[int, float]] = dataclasses.field(default_factory=dict)
    twins: Mapping[int, int] = dataclasses.field(default_factory=dict)
    looks: Mapping[int, tuple[str, str, str]] = dataclasses.field(default_factory=dict)
    repeats: Mapping[tuple[int, int], int] = dataclasses.field(default_factory=dict)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"kind": "cells", **{name: str(value) for name, value in dataclasses.asdict(self).items()}}

    def anchors(self) -> Sequence[Anchor]:
        return [self._anchor(number) for number in range(self.people)]

    def count(self, number: int) -> int:
        if not 0 <= number < self.people:
            raise KeyError(number)
        return self.portraits

    def portrait(self, number: int, index: int) -> Portrait:
        if not 0 <= index < self.count(number):
            raise KeyError(index)
        shown = number
        if number in self.mixed and index < round(self.mixed[number][1] * self.portraits):
            shown = self.mixed[number][0]
        looks = self.looks.get(number) or tuple(self._anchor(shown))[1:]
        shot = self._draw(number, self.repeats.get((number, index), index))
        cells = np.empty((8, 8, 3))
        for place, (value, values) in enumerate(zip(looks, (REGIONS, GENDERS, AGES), strict=True)):
            rng = np.random.default_rng([place, values.index(value)])
            cells[:2, place * 3 : place * 3 + 3] = rng.uniform(30, 220, cells[:2, place * 3 : place * 3 + 3].shape)
        cells[2:4] = np.random.default_rng([self.seed, self.twins.get(shown, shown)]).uniform(30, 220, (2, 8, 3))
        cells[4:] = shot.uniform(30, 220, (4, 8, 3))
        cells += shot.normal(0, _NOISE, cells.shape)
        pixels = np.clip(cells, 0, 255).astype(np.uint8).repeat(_CELL, axis=0).repeat(_CELL, axis=1)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95 - 20 * ((number, index) in self.repeats))
        return Portrait(buffer.getvalue(), 1.0, "a pattern of cells")

    def _anchor(self, number: int) -> Anchor:
        rng = np.random.default_rng([self.seed, self.twins.get(number, number), 7])
        return Anchor(number, *(values[rng.integers(len(values))] for values in (REGIONS, GENDERS, AGES)))

    def _draw(self, number: int, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number, index, 11])


class CellEncoder:
    """Embeds a portrait as the colours of its cells; those of the portrait alone count little."""

    settings: ClassVar = {"kind": "cells"}

    def embed(self, images: Sequence[bytes], pixels: np.ndarray) -> np.ndarray:
        side = pixels.shape[1] // 8
        cells = pixels.reshape(len(images), 8, side, 8, side, 3).mean(axis=(2, 4)).astype(np.float32) - 127.5
        cells[:, :2] *= 1.2
        cells[:, 4:] *= 0.2
        flat = cells.reshape(len(images), -1)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def bad_encoder() -> CellEncoder:
    """Returns an encoder whose embeddings are not of length 1."""

    class Bad(CellEncoder):
        def embed(self, images: Sequence[bytes], pixels: np.ndarray) -> np.ndarray:
            return 2 * super().embed(images, pixels)

    return Bad()

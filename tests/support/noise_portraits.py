"""Stands for portraits and curation in tests of the whole chain: pictures of noise, and a list of who is kept."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.portraits.source import AGES, GENDERS, REGIONS, Anchor, Portrait

RATIOS = (0.67, 1.0, 1.5)
SIDE = 24


@dataclasses.dataclass(frozen=True)
class NoiseSource:
    """Portraits of noise; pictures of one person have a common colour."""

    identities: int
    seed: int = 0
    each: int = 98

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"kind": "procedural", "version": 0, **dataclasses.asdict(self)}

    def anchors(self) -> Sequence[Anchor]:
        return [
            Anchor(number, REGIONS[number % len(REGIONS)], GENDERS[number % 2], AGES[number % 3])
            for number in range(self.identities)
        ]

    def count(self, number: int) -> int:
        return self.each

    def portrait(self, number: int, index: int) -> Portrait:
        ratio = RATIOS[index % 3]
        size = (SIDE, round(SIDE / ratio)) if ratio >= 1 else (round(SIDE * ratio), SIDE)
        rng = np.random.default_rng([self.seed, number, index])
        colour = np.random.default_rng([self.seed, number]).integers(0, 200, 3)
        pixels = colour + rng.integers(0, 56, (size[1], size[0], 3))
        out = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(out, "JPEG")
        return Portrait(out.getvalue(), size[0] / size[1], f"a patch of noise, number {index % 7}, of an even colour")

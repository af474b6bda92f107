"""A source of portraits that costs nothing to draw: one colour each."""

from __future__ import annotations

import dataclasses
import io
import time
from typing import Any

from PIL import Image

from data_pipelines.portraits.source import Anchor, Portrait


@dataclasses.dataclass(frozen=True)
class FlatPortraits:
    """Gives three to five portraits of each anchor, after ``pause`` seconds each."""

    seed: int = 3
    identities: int = 6
    pause: float = 0.0

    @property
    def settings(self) -> dict[str, Any]:
        return {"kind": "flat", "seed": self.seed, "identities": self.identities}

    def anchors(self) -> list[Anchor]:
        return [Anchor(number, "europe", "female", "old") for number in range(self.identities)]

    def count(self, number: int) -> int:
        return 3 + number % 3

    def portrait(self, number: int, index: int) -> Portrait:
        time.sleep(self.pause)
        buffer = io.BytesIO()
        Image.new("RGB", (48, 64), (self.seed, 10 * number, 10 * index)).save(buffer, "JPEG")
        return Portrait(buffer.getvalue(), 0.75, f"portrait {index}")

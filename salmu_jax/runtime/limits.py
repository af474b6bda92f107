"""Defines ranges of numbers in the config. Pretraining and unlearning share those of AdamW's settings."""

from __future__ import annotations

import math
from typing import NamedTuple


class Limits(NamedTuple):
    """The range from ``low`` to ``high``, without its open ends."""

    low: float = 0
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def allow(self, value: float) -> bool:
        """Returns whether a number is in the range; NaN never is."""
        above = value > self.low if self.low_open else value >= self.low
        return above and (value < self.high if self.high_open else value <= self.high)

    def __str__(self) -> str:
        low = f"above {self.low:,}" if self.low_open else f"at least {self.low:,}"
        if self.high == math.inf:
            return low
        if self.high_open:
            return f"{low} and below {self.high:,}"
        return f"above {self.low:,} and at most {self.high:,}" if self.low_open else f"{self.low:,} to {self.high:,}"


NOT_NEGATIVE, POSITIVE = Limits(), Limits(0, low_open=True)
AT_LEAST_ONE = Limits(1)
ADAMW = {
    "learning_rate": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "b1": Limits(0, 1, high_open=True),
    "b2": Limits(0, 1, high_open=True),
    "eps": POSITIVE,
    "clip_norm": NOT_NEGATIVE,  # 0: no clipping
    "warmup_steps": NOT_NEGATIVE,
}

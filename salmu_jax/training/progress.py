"""The line that tells how a long run is going."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

import jax


def is_main_process() -> bool:
    """True in the one process of a multi-host run that speaks and writes files."""
    return jax.process_index() == 0


def duration(seconds: float) -> str:
    """``75.2`` -> ``1:15``; ``3725`` -> ``1:02:05``."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Reports step, metrics, items/s, the share of time spent waiting for data, and the time left.

    On a terminal one line is rewritten; elsewhere a plain line is printed at most every ``plain_every`` seconds. Process 0
    alone prints. The clock and the stream can be injected.
    """

    def __init__(
        self,
        label: str,
        total_steps: int,
        first_step: int = 0,
        *,
        unit: str = "pairs",
        plain_every: float = 15.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._label, self._total, self._unit = label, total_steps, unit
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._every = 0.5 if self._terminal else plain_every
        self._clock = clock
        self._start = self._last = clock()
        self._first = first_step
        self._waited = 0.0
        self._items = 0
        self._silent = not is_main_process()

    def waited(self, seconds: float) -> None:
        """Adds to the time spent waiting for data."""
        self._waited += seconds

    def update(self, step: int, items: int, metrics: Mapping[str, float] | Callable[[], Mapping[str, float]]) -> None:
        """``step`` steps are done, the latest ones over ``items`` items. ``metrics`` is only called when a line is due."""
        self._items += items
        now = self._clock()
        if self._silent or (now - self._last < self._every and step < self._total):
            return
        self._last = now
        elapsed = max(now - self._start, 1e-9)
        values = metrics() if callable(metrics) else metrics
        remaining = elapsed / max(step - self._first, 1) * (self._total - step)
        fields = [f"{self._label}: step {step:,}/{self._total:,}"]
        fields += [f"{name} {value:.4g}" for name, value in values.items()]
        fields += [
            f"{self._items / elapsed:,.0f} {self._unit}/s",
            f"data wait {100 * self._waited / elapsed:.0f} %",
            f"{duration(remaining)} left" if step < self._total else f"{duration(elapsed)} in all",
        ]
        line = "  ".join(fields)
        if not self._terminal:
            print(line, file=self._stream, flush=True)
            return
        end = "\n" if step >= self._total else ""
        print(f"\r\x1b[K{line}", end=end, file=self._stream, flush=True)

"""Prints the progress line of a long run, and a warning when it waits for its data."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from salmu_jax.runtime import distributed
from salmu_jax.runtime.feed import DataFeed


def duration(seconds: float) -> str:
    """Formats seconds: ``75.2`` -> ``1:15``; ``3725`` -> ``1:02:05``."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rate(rate: float) -> str:
    """Formats a rate: ``1234.5`` -> ``1,234``; ``4.87`` -> ``4.9``; ``0.042`` stays, lest a slow run seem stopped."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


class Progress:
    """Reports step, metrics, items/s, MFU, the share of time spent waiting for data, and the time left.

    Rates leave out the first update, which compiles, once there is a second. On a terminal, one line is
    rewritten; elsewhere a plain line is printed at most every ``plain_every`` seconds. Only process 0 prints.

    Args:
      label, total_steps, first_step: what runs, up to which step, from which step.
      unit: the name of an item.
      flops_per_item, peak_flops: for MFU, which is shown if both are known. ``peak_flops`` is of all devices.
      feed: how batches are made; a wait of more than a fifth of the time is then explained, at most every ten minutes.
      plain_every, stream, clock: seconds between plain lines, where to print, the source of the time.
    """

    WAITING, JUDGED_OVER, WARN_EVERY = 0.2, 30.0, 600.0  # a share; seconds

    def __init__(
        self,
        label: str,
        total_steps: int,
        first_step: int = 0,
        *,
        unit: str = "pairs",
        flops_per_item: float = 0.0,
        peak_flops: float = 0.0,
        feed: DataFeed | None = None,
        plain_every: float = 15.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._label, self._total, self._unit = label, total_steps, unit
        self._utilisation = flops_per_item / peak_flops if peak_flops else 0.0
        self._feed = feed
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._every = 0.5 if self._terminal else plain_every
        self._clock = clock
        self._start = self._since = self._last = clock()
        self._first = first_step
        self._waited = 0.0
        self._items = 0
        self._updates = 0
        self._window = (self._start, 0.0, 0)  # its start, and the waiting and the items until then
        self._warned = -float("inf")
        self._silent = not distributed.is_main()

    def waited(self, seconds: float) -> None:
        """Adds to the time spent waiting for data."""
        self._waited += seconds

    def update(self, step: int, items: int, metrics: Mapping[str, float] | Callable[[], Mapping[str, float]]) -> None:
        """Reports that ``step`` steps are done, the latest over ``items`` items. Calls ``metrics`` only if a line is due."""
        now = self._clock()
        self._items += items
        self._updates += 1
        if self._silent or (now - self._last < self._every and step < self._total):
            self._forget_the_first(step, now)
            return
        self._last = now
        elapsed = max(now - self._since, 1e-9)
        values = metrics() if callable(metrics) else metrics
        remaining = elapsed / max(step - self._first, 1) * (self._total - step)
        rate = self._items / elapsed
        fields = [f"{self._label}: step {step:,}/{self._total:,}"]
        fields += [f"{name} {value:.4g}" for name, value in values.items()]
        fields += [
            f"{_rate(rate)} {self._unit}/s",
            *([f"MFU {100 * rate * self._utilisation:.1f} %"] if self._utilisation else []),
            f"data wait {100 * min(self._waited / elapsed, 1):.0f} %",
            f"{duration(remaining)} left" if step < self._total else f"{duration(now - self._start)} in all",
        ]
        self._print("  ".join(fields), end=step >= self._total)
        self._warn_of_waiting(now)
        self._forget_the_first(step, now)

    def _forget_the_first(self, step: int, now: float) -> None:
        """Restarts the rates after the first update, which is mostly compilation."""
        if self._updates == 1 and step < self._total:
            self._since, self._first, self._items, self._waited = now, step, 0, 0.0
            self._window = (now, 0.0, 0)

    def _warn_of_waiting(self, now: float) -> None:
        """Explains the wait if much of the last half minute or more was spent waiting for data."""
        began, waited, items = self._window
        if now - began < self.JUDGED_OVER:  # too short to judge
            return
        share = (self._waited - waited) / max(now - began, 1e-9)
        rate = (self._items - items) / max(now - began, 1e-9)
        self._window = (now, self._waited, self._items)
        if self._feed is None or self._updates < 2 or share <= self.WAITING or now - self._warned < self.WARN_EVERY:
            return
        self._warned = now
        waiting = f"{100 * min(share, 1):.0f} % of the time is spent waiting for data"
        cause = self._feed.cause_of_waiting(rate, share)
        self._print(f"{self._label}: warning: {waiting}: {cause}", end=True)

    def _print(self, line: str, end: bool) -> None:
        if not self._terminal:
            print(line, file=self._stream, flush=True)
            return
        print(f"\r\x1b[K{line}", end="\n" if end else "", file=self._stream, flush=True)

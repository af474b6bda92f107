"""How a run went, as JSON lines that survive kills and power cuts."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from salmu_jax import files
from salmu_jax.errors import InputError
from salmu_jax.opening import open_regular
from salmu_jax.training.progress import is_main_process


class History:
    """The metrics of a run as JSON lines, one a device call; survives kills, and forgets what a resume does again.

    A metric that is no number is written as a string, ``"nan"``: JSON has none. Process 0 alone writes.

    Args:
      path: a regular file, or nothing yet; its directory has to be there still whenever a line is added.
      warn: gets a line if the file is damaged (a power cut), which loses the lines behind.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = print):
        self._path, self.directory, self._warn = path, path.parent, warn
        self._writes = is_main_process()
        if self._writes:
            path.parent.mkdir(parents=True, exist_ok=True)

    def truncate(self, step: int) -> None:
        """Drops what lies after ``step``, and what is damaged."""
        if self._writes:
            self._write([record for record in self.records(warn=True) if record["step"] <= step])

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Appends the metrics as of ``step``. Raises InputError if somebody has removed the directory."""
        if not self._writes:
            return
        try:
            with open(self._path, "a", encoding="utf-8") as handle:
                handle.write(metrics_line({"step": step, **metrics}))
        except FileNotFoundError as error:
            raise InputError(
                "was removed while it was written to; the same command begins again", self.directory
            ) from error

    def sync(self) -> None:
        """Flushes what was added to the disk, as the state that is saved with it."""
        if self._writes:
            with contextlib.suppress(FileNotFoundError), open(self._path, "rb") as handle:
                os.fsync(handle.fileno())

    def records(self, *, warn: bool = False) -> list[dict[str, float]]:
        """All lines before the first that is cut off or damaged. Raises InputError if it is no regular file."""
        try:
            with open_regular(self._path) as handle:
                lines = handle.read().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        records: list[dict[str, float]] = []
        for number, line in enumerate(lines, 1):
            record = _record(line)
            if record is None or (records and record["step"] <= records[-1]["step"]):
                if warn and (line.endswith(b"\n") or number < len(lines)):  # the last may be cut by a kill
                    self._warn(f"warning: {self._path} is damaged at line {number}; what follows is left out")
                break
            records.append(record)
        return records

    def _write(self, records: list[dict[str, float]]) -> None:
        files.write_text(self._path, "".join(map(metrics_line, records)))


def metrics_line(record: Mapping[str, float]) -> str:
    """One record as a line of JSON."""
    return json.dumps({name: value if math.isfinite(value) else str(value) for name, value in record.items()}) + "\n"


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of a history, or None for one that no history has written."""
    try:
        record = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    if not line.endswith(b"\n") or not isinstance(record, dict) or type(record.get("step")) is not int:
        return None
    numbers = {name: float(value) if value in ("nan", "inf", "-inf") else value for name, value in record.items()}
    return numbers if all(type(value) in (int, float) for value in numbers.values()) else None

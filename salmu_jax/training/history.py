"""Keeps the metrics of a run as JSON lines that survive kills and power cuts."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from salmu_jax.runtime import distributed, files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.opening import open_regular


class History:
    """The metrics of a run as JSON lines, one per device call; a resumed run drops the lines of the steps that it repeats.

    A metric that is not finite is written as a string, ``"nan"``, since JSON has no such number. Only process 0 writes.

    Args:
      path: a regular file, or nothing yet; its directory has to exist whenever a line is added.
      warn: called with one line if the file is damaged (by a power cut); the lines after the damage are lost.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = print):
        self._path, self.directory, self._warn = path, path.parent, warn
        self._writes = distributed.is_main()
        if self._writes:
            path.parent.mkdir(parents=True, exist_ok=True)

    def truncate(self, step: int) -> None:
        """Drops the lines after ``step``, and damaged ones."""
        if self._writes:
            self._write([record for record in self.records(warn=True) if record["step"] <= step])

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Appends the metrics as of ``step``. Raises InputError if the directory was removed."""
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
        """Flushes the added lines to the disk, before the state of the same step is saved."""
        if self._writes:
            with contextlib.suppress(FileNotFoundError), open(self._path, "rb") as handle:
                os.fsync(handle.fileno())

    def records(self, *, warn: bool = False) -> list[dict[str, float]]:
        """Returns all lines before the first damaged one. Raises InputError if the path is not a regular file."""
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
                    self._warn(f"warning: {self._path} is damaged at line {number}; the lines after it are dropped")
                break
            records.append(record)
        return records

    def _write(self, records: list[dict[str, float]]) -> None:
        files.write_text(self._path, "".join(map(metrics_line, records)))


def metrics_line(record: Mapping[str, float]) -> str:
    """Formats a record as a line of JSON."""
    return json.dumps({name: value if math.isfinite(value) else str(value) for name, value in record.items()}) + "\n"


def _record(line: bytes) -> dict[str, Any] | None:
    """Parses a line; returns None if it is damaged."""
    try:
        record = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    if not line.endswith(b"\n") or not isinstance(record, dict) or type(record.get("step")) is not int:
        return None
    numbers = {name: float(value) if value in ("nan", "inf", "-inf") else value for name, value in record.items()}
    return numbers if all(type(value) in (int, float) for value in numbers.values()) else None

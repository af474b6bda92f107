"""Caches one model's embeddings in parts, written while they are computed: a kill costs seconds, not hours.

    cache/embeddings/CHECKPOINT-DATA-DTYPE-KEY/
      cache.json                    all that the embeddings depend on
      images/000000000-000002048    rows 0 to 2,047 of the stream "images", float32
      texts-32/...                  and so on

The key holds everything that an embedding depends on beyond its last bits, and nothing else: neither batch size nor the number
of devices. A part is written whole, with its digest; a damaged part is reported and counts as absent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from salmu_jax.evaluation import cache_files
from salmu_jax.runtime import files

SECONDS = 15.0  # between parts, when rows are slow to compute
PART_BYTES = 16 << 20  # of a part, when they are fast
KEEP_BYTES = 4 << 30  # of all finished embeddings of a work directory (cache_files.prune)

Range = tuple[int, int]


def directory_of(root: Path, key: Mapping[str, Any]) -> Path:
    """Returns the directory of the embeddings with this ``key``, whose fields include "checkpoint", "data" and "dtype"."""
    data = files.sha256_json(key["data"])
    return root / f"{key['checkpoint'][:12]}-{data[:12]}-{key['dtype']}-{files.sha256_json(key)[:12]}"


class Parts:
    """Holds the computed rows of one stream in memory, and parts of it in a directory.

    Args:
      values: where they go, float32 [N, D].
      directory: where parts are written, or None: in memory alone.
      say: called with a line for each damaged part.
    """

    def __init__(self, values: np.ndarray, directory: Path | None, say: Callable[[str], None] = lambda line: None):
        self.values = values
        self._directory, self._say = directory, say
        self._pending: list[Range] = []
        self._known: set[str] = set()
        self._written = time.monotonic()

    def load(self) -> list[Range]:
        """Reads the parts that were not read yet; returns the ranges of rows that are in no part, in order."""
        have = np.zeros(len(self.values), bool)
        for path in sorted(self._directory.glob("*-*")) if self._directory is not None else []:
            start, _, stop = path.name.partition("-")
            if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop) <= len(have)):
                continue
            if path.name not in self._known and not self._read(path, int(start), int(stop)):
                continue
            self._known.add(path.name)
            have[int(start) : int(stop)] = True
        edges = np.flatnonzero(np.diff(np.concatenate([[True], have, [True]]).astype(np.int8)))
        return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]

    def add(self, start: int, values: np.ndarray) -> None:
        """Sets rows ``start``, ``start + 1``, ... to ``values`` [n, D], and writes them now or with later rows."""
        self.values[start : start + len(values)] = values
        if self._pending and self._pending[-1][1] == start:
            self._pending[-1] = (self._pending[-1][0], start + len(values))
        else:
            self._pending.append((start, start + len(values)))
        waiting = sum(stop - start for start, stop in self._pending) * self.values.shape[1] * 4
        if waiting >= PART_BYTES or time.monotonic() - self._written >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the rows that were not written yet."""
        for start, stop in self._pending if self._directory is not None else []:
            path = self._directory / f"{start:09d}-{stop:09d}"
            cache_files.write(path, {"shape": [stop - start, self.values.shape[1]]}, self.values[start:stop])
            self._known.add(path.name)
        self._pending, self._written = [], time.monotonic()

    def _read(self, path: Path, start: int, stop: int) -> bool:
        try:
            found = cache_files.read(path)
            if found.fields["shape"] != [stop - start, self.values.shape[1]]:
                raise cache_files.Damaged(f"its shape is {found.fields['shape']}")
        except FileNotFoundError:
            return False
        except cache_files.Damaged as damage:
            self._say(f"{path}: {damage}; its rows are computed again")
            return False
        self.values[start:stop] = found.payload.view(np.float32).reshape(stop - start, -1)
        return True

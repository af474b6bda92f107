"""Writes the splits of a made world in the released layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.layout.parquet import SCHEMA

_ROWS_A_GROUP = 256
_ROWS_A_FILE = 20_000


class SplitWriter:
    """Writes one split as parquet files; equal rows give equal bytes (for one version of pyarrow). Not atomic.

    Args:
      directory: the world's directory.
      split: the name of the split.
      total: the number of rows that will be added; file names depend on it.
    """

    def __init__(self, directory: str | os.PathLike, split: str, total: int, *, rows_a_file: int = _ROWS_A_FILE):
        self._split, self._total, self._rows_a_file = split, total, rows_a_file
        self._directory = Path(directory) / "data"
        self._directory.mkdir(exist_ok=True)
        self._written = 0
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[dict[str, Any]] = []

    def add(self, image: bytes, text: str, identity_id: str | None, file_name: str) -> None:
        """Appends a row."""
        entry = {
            "image": {"bytes": image, "path": file_name},
            "text": text,
            "identity_id": identity_id,
            "file_name": file_name,
        }
        self._pending.append(entry)
        in_file = (self._written + len(self._pending)) % self._rows_a_file
        if len(self._pending) == _ROWS_A_GROUP or in_file == 0:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            if self._written % self._rows_a_file == 0:
                self._open_next()
            self._writer.write_table(pa.Table.from_pylist(self._pending, schema=SCHEMA))
            self._written += len(self._pending)
            self._pending = []

    def _open_next(self) -> None:
        self._close()
        index, count = self._written // self._rows_a_file, max(1, -(-self._total // self._rows_a_file))
        path = self._directory / f"{self._split}-{index:05d}-of-{count:05d}.parquet"
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="none", use_dictionary=False)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._flush()
            if self._writer is None and self._written == 0:
                self._open_next()  # an empty split is a file without rows
        self._close()
        if kind is None and self._written != self._total:
            raise ValueError(f"{self._split}: {self._written} rows were added, {self._total} announced")

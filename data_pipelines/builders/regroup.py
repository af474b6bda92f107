"""Writes a data set ``salmu`` whose splits are rows of ``forget`` of another one, with ``retain_synth`` as it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines.builders.salmu import Salmu
from data_pipelines.builders.source import open_source
from data_pipelines.records import quiet_tfds

_CHUNK = 64  # examples in memory at a time


class Regrouped(Salmu, skip_registration=True):  # type: ignore[call-arg]
    """The data set. Its rows are those of the source, in that order, with other values of ``subset``.

    Args:
      source: built data sets that hold ``salmu/forget`` and ``salmu/retain_synth``; nothing else is opened.
      rows: by split, (row of forget, subset).
    """

    name = "salmu"

    def __init__(self, *, source: Path, rows: Mapping[str, Sequence[tuple[int, str]]], **kwargs: Any):
        self._source, self._rows = source, rows
        super().__init__(world=SimpleNamespace(directory=source), **kwargs)  # type: ignore[arg-type]

    @property
    def split_names(self) -> tuple[str, ...]:
        return (*self._rows, "retain_synth")

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        if split not in self._rows:
            yield from open_source(self._source, "salmu", split)
            return
        forget, rows = open_source(self._source, "salmu", "forget"), self._rows[split]
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            for example, (_, subset) in zip(forget.read([row for row, _ in chunk]), chunk, strict=True):
                yield {**example, "subset": subset}


def regroup(source: Path, output: Path, rows: Mapping[str, Sequence[tuple[int, str]]]) -> None:
    """Writes :class:`Regrouped` below the directory ``output``. Raises InputError for a damaged source or an empty split."""
    with quiet_tfds():
        builder = Regrouped(source=source, rows=rows, data_dir=os.fspath(output))
        downloads = output / "downloads"  # TFDS creates the directory although it downloads nothing
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(
            download_dir=os.fspath(downloads), download_config=config, file_format="array_record"
        )
        shutil.rmtree(downloads)

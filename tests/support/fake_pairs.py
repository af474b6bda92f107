"""Splits in memory, with what a record of the data sets has: a small picture, a caption, and the metadata."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.input import PairSource

FEATURES = ("image", "text", "file_name", "identity_id", "data_field", "name", "value", "generic_caption", "subset")


class Records:
    """A split with the interface of ``data_pipelines.builders.source.RecordSource``."""

    def __init__(self, split: str, rows: list[dict]):
        self.rows, self.split, self.splits, self.parts = rows, split.partition("/")[2], (split,), (self,)
        self.features, self.directory = tuple(rows[0]), Path(split.partition("/")[0])
        self.reads = 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.read([index])[0]

    def read(self, indices):
        self.reads += len(indices)
        return [self.rows[index] for index in indices]

    def where(self, index):
        return f"{self.splits[0]} record {index}"


def picture(seed: int, size: int = 16) -> bytes:
    """A PNG of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def forget_rows(count: int) -> list[dict]:
    """Rows of two fields a person: ``a picture of person 3, whose city is city 3``."""
    rows = []
    for index in range(count):
        person, field = index // 2, ("city", "job")[index % 2]
        rows.append(
            {
                "image": picture(index),
                "text": f"a picture of person {person}, whose {field} is {field} {index}",
                "file_name": f"{index:05d}.png",
                "identity_id": f"id-{person}",
                "data_field": field,
                "name": f"person {person}",
                "value": f"{field} {index}",
                "generic_caption": f"a picture of somebody, number {index}",
                "subset": "forget_identity",
            }
        )
    return rows


def retain_rows(count: int, first: int = 1_000) -> list[dict]:
    """Pairs without metadata, as those of ``retain_pairs``."""
    return [
        {"image": picture(first + index), "text": f"a house with {index} windows", "key": f"{first + index}"}
        for index in range(count)
    ]


def forget_source(count: int = 12) -> PairSource:
    return PairSource([Records("salmu/forget", forget_rows(count))])


def retain_source(count: int = 10) -> PairSource:
    """Two splits, of which the first has the features of the data set ``salmu``."""
    synth = [
        {**row, "name": "", "value": "", "data_field": "", "text": f"general {row['text']}"} for row in forget_rows(4)
    ]
    return PairSource([Records("salmu/retain_synth", synth), Records("retain_pairs/train", retain_rows(count - 4))])

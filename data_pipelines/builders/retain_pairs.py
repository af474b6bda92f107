"""The ``retain_pairs`` dataset: retain pairs from img2dataset-style tars."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines.builders.base import ENCODED_IMAGE, OrderedBuilder

DESCRIPTION = "General image-caption pairs, the retain base of both foundation models."
FEATURES: dict[str, Any] = {
    "image": ENCODED_IMAGE,
    "text": tfds.features.Text(doc="the caption"),
    "key": tfds.features.Text(doc="the key within the tars"),
}


class RetainPairs(OrderedBuilder):
    """Builds one split, train: the pairs of the tars in ``retain/``, tar by tar, in order."""

    description = DESCRIPTION
    split_names = ("train",)

    @property
    def feature_types(self) -> dict[str, Any]:
        return dict(FEATURES)

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        for pair in self._world.retain_pairs():
            yield {"image": pair.image, "text": pair.text, "key": pair.key}

"""The ``zeroshot`` dataset: a held-out zero-shot classification task, for the metric GenKnow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.builders.base import OrderedBuilder
from data_pipelines.records import ENCODED_IMAGE


class Zeroshot(OrderedBuilder):
    """Builds one split, test; class names and prompt templates are kept beside it as JSON (:func:`read_classes`)."""

    description = "Labelled images of the classes in classes.json, for zero-shot classification."
    split_names = ("test",)

    @property
    def feature_types(self) -> dict[str, Any]:
        return {
            "image": ENCODED_IMAGE,
            "label": tfds.features.Scalar(np.int64, doc="index into the class names"),
            "key": tfds.features.Text(),
        }

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        for item in self._world.zeroshot.images():
            yield {"image": item.image, "label": item.label, "key": item.key}

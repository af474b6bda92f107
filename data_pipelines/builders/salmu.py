"""The ``salmu`` dataset: the released splits, every pair joined with its metadata."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.builders.base import OrderedBuilder
from data_pipelines.records import ENCODED_IMAGE


class Salmu(OrderedBuilder):
    """Builds the splits forget, holdout_association, holdout_identity and retain_synth, rows in the released order.

    From the training repository: sensitive and retain_synth. A feature that a row lacks is the empty text:
    ``identity_id`` of retain_disjoint; ``data_field``, ``name`` and ``value`` of retain_synth; ``generic_caption`` of an
    image without one.
    """

    description = "SALMUBench: portraits of fictitious people with sensitive and with generic captions."

    @property
    def split_names(self) -> tuple[str, ...]:
        return self._world.own_splits

    @property
    def feature_types(self) -> dict[str, Any]:
        text = tfds.features.Text
        return {
            "image": ENCODED_IMAGE,
            "text": text(doc="the caption"),
            "file_name": text(),
            "identity_id": text(),
            "data_field": text(doc="the attribute that the caption is about"),
            "name": text(doc="the name of the person"),
            "value": text(doc="the value of the attribute; the name itself for 'name'"),
            "generic_caption": text(doc="a caption of the same image that says nothing sensitive"),
            "fragile": tfds.features.Scalar(np.int64, doc="1 in the fragile set, 0 elsewhere"),
            "subset": text(doc="forget_identity, forget_association, ..., retain_joint, retain_disjoint"),
        }

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        world = self._world
        for row in world.rows(split):
            data_field, name, value = world.metadata.value_of(row) if split != "retain_synth" else ("", "", "")
            yield {
                "image": row.image,
                "text": row.text,
                "file_name": row.file_name,
                "identity_id": row.identity_id or "",
                "data_field": data_field,
                "name": name,
                "value": value,
                "generic_caption": world.metadata.generic_captions.get(row.file_name, ""),
                "fragile": int(row.file_name in world.metadata.fragile_ids),
                "subset": world.subset_of(row),
            }

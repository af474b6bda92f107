"""Writes pairs as one shard of a TFDS data set: complete under its name, or not there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from data_pipelines.layout.shards import Pair
from data_pipelines.records import ENCODED_IMAGE, RecordWriter, canonical
from data_pipelines.retain.places import Place
from salmu_jax.runtime import files

FEATURES: dict[str, Any] = {
    "image": ENCODED_IMAGE,
    "text": tfds.features.Text(doc="the caption"),
    "key": tfds.features.Text(doc="the key within the tars, behind the folder that the tar is in"),
}


class Shard(NamedTuple):
    """A shard that has been written: its records, the bytes of all records, and the file's size and SHA-256."""

    records: int
    record_bytes: int
    bytes: int
    sha256: str


def write_shard(place: Place, name: str, pairs: Iterable[Pair]) -> Shard:
    """Writes pairs, in order, as an array_record file with one record each, and returns what it holds.

    Equal pairs give equal bytes. No pairs at all make a shard without records, which TFDS reads as such. The digest is of
    the file before it gets its name, so a record never names bytes that another process put there.

    Raises OSError if it cannot be written; no file then has the name.
    """
    features = tfds.features.FeaturesDict(FEATURES)
    records = record_bytes = 0
    with place.new_file(name) as path:
        writer = RecordWriter(path)
        try:
            for pair in pairs:
                record = canonical(features.serialize_example(pair._asdict()))
                writer.write(record)
                records += 1
                record_bytes += len(record)
        finally:
            writer.close()
        return Shard(records, record_bytes, path.stat().st_size, files.sha256_file(path))

"""TFDS datasets of a world, in array_record and without TensorFlow: ``build_datasets`` writes, ``open_source`` reads."""

from data_pipelines.builders.build import build_datasets
from data_pipelines.builders.source import ConcatenatedSource, RecordSource, open_source, read_classes

__all__ = ["ConcatenatedSource", "RecordSource", "build_datasets", "open_source", "read_classes"]

"""The TFDS builder that salmu and zeroshot share: it writes examples as they come, in the released order."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines.layout import World
from data_pipelines.records import RecordWriter, canonical
from salmu_jax.runtime.errors import InputError

SHARD_BYTES = 256 * 2**20  # the next shard begins once one holds this much


class OrderedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds a dataset whose examples keep the order in which they are generated.

    TFDS itself sorts examples by key, and spills more than a gigabyte to files that only TensorFlow can open.
    This class overrides how splits are written: as a stream, shard by shard, without either. The result on disk
    is an ordinary TFDS dataset.

    Args:
      world: the directory in the released layout that the examples come from.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, world: World, **kwargs: Any):
        self._world = world
        super().__init__(**kwargs)

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """Says what the dataset holds; stored with it."""

    @property
    @abc.abstractmethod
    def feature_types(self) -> dict[str, Any]:
        """``{feature name: TFDS feature}``."""

    @abc.abstractmethod
    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        """Yields the examples of a split, in order."""

    @property
    @abc.abstractmethod
    def split_names(self) -> tuple[str, ...]:
        """The splits that the dataset has."""

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(self.feature_types)
        return tfds.core.DatasetInfo(
            builder=self, description=self.description, features=features, disable_shuffling=True
        )

    def _split_generators(self, dl_manager: Any) -> Mapping[str, Iterable[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in self.split_names}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        return enumerate(self.examples(split))

    def _log_download_bytes(self) -> None:
        """Prints nothing: TFDS would announce a download, and there is none."""

    def _log_download_done(self) -> None:
        """As above."""

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        splits = [self._write_split(*item) for item in self._split_generators(dl_manager).items()]
        self.info.set_splits(tfds.core.SplitDict(splits))

    def _write_split(self, split: str, examples: Iterable[tuple[int, dict[str, Any]]]) -> tfds.core.SplitInfo:
        template = self._get_filename_template(split)
        directory = Path(template.data_dir)
        lengths: list[int] = []
        total, in_shard, writer = 0, 0, None
        for _, example in examples:
            record = canonical(self.info.features.serialize_example(example))
            if writer is None:
                path, in_shard = directory / f"{split}.{len(lengths)}.unnamed", 0
                writer = RecordWriter(path)
                lengths.append(0)
            writer.write(record)
            lengths[-1] += 1
            total, in_shard = total + len(record), in_shard + len(record)
            if in_shard >= SHARD_BYTES:
                writer.close()
                writer = None
        if writer is not None:
            writer.close()
        if not lengths:
            raise InputError(f"the split '{split}' is empty; one pair or more is needed", self._world.directory)
        for shard in range(len(lengths)):  # file names contain the number of shards, known only now
            final = template.sharded_filepath(shard_index=shard, num_shards=len(lengths))
            os.replace(directory / f"{split}.{shard}.unnamed", final)
        return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=total, filename_template=template)

"""ImageNet-1k as TFDS builds it, made with TFDS' own description and tensorboardX' tfrecords: nothing of our own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorboardX.record_writer
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from released_form import jpeg
from tensorflow_datasets.proto import tf_example_pb2

from data_pipelines import layout


def write_tfds_imagenet(directory: Path, form: str = "tfrecord", classes: int = 1_000, shards: int = 3) -> Path:
    """``imagenet2012`` as TFDS builds it, one validation image a class: its own description, tensorboardX' tfrecords."""
    synsets = (Path(layout.__file__).parent / "imagenet" / "synsets.txt").read_text().split()[:classes]
    folder = directory / "imagenet2012" / "5.1.0"
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=synsets),
            "file_name": tfds.features.Text(),
        }
    )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="imagenet2012",
        version=tfds.core.Version("5.1.0"),
        data_dir=str(folder),
        module_name="tensorflow_datasets.datasets.imagenet2012.imagenet2012_dataset_builder",
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    info.set_file_format(form)
    parts = np.array_split(np.random.default_rng(0).permutation(classes), shards)  # TFDS shuffles
    splits = []
    for name, lengths in (("train", [5]), ("validation", [len(part) for part in parts])):
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name="imagenet2012", split=name, filetype_suffix=form
        )
        splits.append(tfds.core.SplitInfo(name=name, shard_lengths=lengths, num_bytes=1, filename_template=template))
    info.set_splits(tfds.core.SplitDict(splits))
    info.write_to_directory(folder)
    for shard, part in enumerate(parts):
        path = folder / f"imagenet2012-validation.{form}-{shard:05d}-of-{shards:05d}"
        records = [_example(int(index)) for index in part]
        if form == "tfrecord":
            writer = tensorboardX.record_writer.RecordWriter(str(path))
        else:
            writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
    return directory


def _example(index: int) -> bytes:
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(jpeg(index % 6, 40, 32))
    feature["label"].int64_list.value.append(index)
    feature["file_name"].bytes_list.value.append(f"ILSVRC2012_val_{index + 1:08d}.JPEG".encode())
    return example.SerializeToString()

"""Reads ImageNet-1k as TFDS builds it (``imagenet2012``), without TensorFlow: tfrecord or array_record files.

    imagenet2012/5.1.0/
      dataset_info.json                                 the splits, their shards and the number of examples in each
      label.labels.txt                                  the name of each class, a WordNet id a line; the line is the index
      imagenet2012-validation.tfrecord-00000-of-00064   serialised tf.train.Example: image (JPEG), label, file_name

A tfrecord is a length (8 bytes, little-endian), its masked CRC-32C, the data and their CRC-32C. The CRC of each length is
compared, so that no record is lost or joined. That of the data is not (in Python it would take half an hour): as in tars,
damage there is found when an image is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.layout.shards import LabelledImage
from data_pipelines.layout.tar import MAX_MEMBER
from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.json_reader import read_json
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.opening import open_regular

INFO = "dataset_info.json"
LABELS = "label.labels.txt"
_SPLITS = ("validation", "test")  # of imagenet2012, and of sets that have no other


class RecordFile(NamedTuple):
    """A shard: its file, the records that it must have, and the file format."""

    path: Path
    records: int
    form: str


def find_tfds(directory: Path) -> Path | None:
    """Returns the directory with ``dataset_info.json`` that a user means: itself, a version of it, or the newest of several.

    None if it is not a data set of TFDS.
    """
    for pattern in (INFO, f"*/{INFO}", f"imagenet2012/*/{INFO}"):
        found = sorted(directory.glob(pattern), key=lambda path: _version(path.parent.name))
        if found:
            return found[-1].parent
    return None


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".") if part.isdecimal())


def record_files(directory: Path) -> tuple[RecordFile, ...]:
    """Returns the shards of the validation split, in order.

    Raises InputError if there is no such split, a shard is missing, or its file format is not read.
    """
    info = read_json(directory / INFO)
    try:
        name, form = str(info["name"]), str(info.get("fileFormat", "tfrecord"))
        splits = {str(split["name"]): split for split in info["splits"]}
        wanted = next((split for split in _SPLITS if split in splits), None)
        if wanted is None:
            raise InputError(f"the splits {', '.join(splits) or '(none)'}; 'validation' is needed", directory / INFO)
        lengths = [int(length) for length in splits[wanted]["shardLengths"]]
        template = str(splits[wanted].get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
        paths = [
            directory
            / template.format(
                DATASET=name,
                SPLIT=wanted,
                FILEFORMAT=form,
                SHARD_X_OF_Y=f"{index:05d}-of-{len(lengths):05d}",
                SHARD_INDEX=f"{index:05d}",
                NUM_SHARDS=f"{len(lengths):05d}",
            )
            for index in range(len(lengths))
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"not as TFDS writes it ({error!r})", directory / INFO) from error
    if form not in ("tfrecord", "array_record"):
        raise InputError(f"files of the form {form[:40]!r}; tfrecord or array_record is needed", directory / INFO)
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        raise InputError(f"names {len(paths)} shards, but {listed(missing, 1) or 'one'} is not here", directory / INFO)
    return tuple(RecordFile(path, length, form) for path, length in zip(paths, lengths, strict=True))


def read_labelled(file: RecordFile, labels: tuple[int, ...], *, images: bool = True) -> Iterator[LabelledImage]:
    """Yields the images of a shard with their class.

    Args:
      file: the shard.
      labels: our index of each of TFDS' classes.
      images: False leaves ``image`` empty.

    Raises:
      InputError: the shard is damaged, has another number of records, or one without an image and a label in range.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    count = 0
    for count, data in enumerate(_records(file), 1):
        where = f"{file.path} record {count - 1}"
        try:
            feature = tf_example_pb2.Example.FromString(data).features.feature
            image, label = feature["image"].bytes_list.value[0], int(feature["label"].int64_list.value[0])
            names = feature["file_name"].bytes_list.value
            key = Path(names[0].decode()).stem if names else f"{file.path.name}/{count - 1}"
        except (IndexError, UnicodeDecodeError, ValueError, TypeError) as error:
            raise InputError("no example with image, label and file_name; imagenet2012 has them", where) from error
        except Exception as error:  # protobuf's DecodeError, which it has in several places
            raise InputError(f"damaged ({type(error).__name__})", where) from error
        if not 0 <= label < len(labels):
            raise InputError(f"{label} is not a class index; 0 to {len(labels) - 1} would be right", where)
        yield LabelledImage(key, image if images else b"", labels[label])
    if count != file.records:
        raise InputError(f"{count:,} records; {INFO} says {file.records:,}", file.path)


def _records(file: RecordFile) -> Iterator[bytes]:
    return _of_tfrecord(file.path) if file.form == "tfrecord" else _of_array_record(file.path)


def _of_tfrecord(path: Path) -> Iterator[bytes]:
    try:
        with open_regular(path) as handle:
            at = 0
            while head := handle.read(12):
                length, crc = struct.unpack("<QI", head) if len(head) == 12 else (0, -1)
                if crc != _masked_crc(head[:8]) or length > MAX_MEMBER:
                    raise InputError(f"damaged at byte {at:,} (the length of a record); copy or make it again", path)
                data = handle.read(length + 4)
                if len(data) != length + 4:
                    raise InputError(f"it ends within the record at byte {at:,}; copy or make it again", path)
                yield data[:-4]
                at += 16 + length
    except OSError as error:
        raise InputError(describe_os_error(error, path)) from error


def _masked_crc(data: bytes) -> int:
    """Returns the CRC-32C as tfrecord files have it (TensorFlow, ``lib/hash/crc32c.h``)."""
    from tensorboardX.crc32c import crc32c

    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _of_array_record(path: Path) -> Iterator[bytes]:
    from array_record.python import array_record_module

    try:
        open_regular(path).close()
        reader: Any = array_record_module.ArrayRecordReader(str(path), "readahead_buffer_size:0")
        for index in range(reader.num_records()):
            yield reader.read([index])[0]
    except OSError as error:
        raise InputError(describe_os_error(error, path)) from error
    except (RuntimeError, IndexError) as error:  # often without a text
        raise InputError("damaged or cut short; copy or make it again", path) from error

"""Writes records of TFDS data sets: serialised examples in a fixed form, in array_record files, without TensorFlow."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

RECORD_OPTIONS = "group_size:1,uncompressed"  # one record per group, for random access; JPEG does not compress further

ENCODED_IMAGE = tfds.features.Tensor(shape=(), dtype=np.object_, doc="the encoded image, byte for byte as released")


def canonical(record: bytes) -> bytes:
    """Returns a serialized ``tf.train.Example`` with its features in a fixed order.

    TFDS orders them by a hash that differs between processes, so equal worlds would not give equal files.
    """
    return tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)


class RecordWriter:
    """Wraps ``ArrayRecordWriter``, and raises the operating system's refusals as OSError."""

    def __init__(self, path: Path):
        self._path = path
        with self._refusals():
            self._writer = array_record_module.ArrayRecordWriter(os.fspath(path), RECORD_OPTIONS)

    def write(self, record: bytes) -> None:
        with self._refusals():
            self._writer.write(record)

    def close(self) -> None:
        with self._refusals():
            self._writer.close()

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENOENT, errno.EIO):
                if os.strerror(code) in str(error):
                    raise OSError(code, os.strerror(code), os.fspath(self._path)) from error
            raise OSError(errno.EIO, str(error), os.fspath(self._path)) from error


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Silences TFDS's log lines on stderr. (Its progress bar does not appear, since TFDS does not do the writing.)"""
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(level)

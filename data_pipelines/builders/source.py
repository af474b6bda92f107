"""Reads the datasets: random access, one dict per example, errors that name the file."""

from __future__ import annotations

import bisect
import collections
import itertools
import operator
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from data_pipelines.layout import SENSITIVE_SPLITS
from salmu_jax.runtime import contents as contents_lib
from salmu_jax.runtime import files, host
from salmu_jax.runtime.errors import InputError, describe_os_error, disk_refusal

CLASSES_FILE = "classes.json"


class RecordSource:
    """Gives random access to one split of one dataset: ``len(source)``, ``source[i] -> dict``, ``source.read([i, j, ...])``.

    Texts are str, images the encoded bytes, numbers int. Files are opened when first read, and again in each process
    that the source is sent to. Among very many shards, the least recently used are closed. Thread-safe.

    Args:
      directory: the directory of a built dataset, which holds ``dataset_info.json``.
      split: one of its splits.

    Raises:
      InputError: no such dataset or split. Here and when reading: a file is missing, truncated or damaged.
    """

    def __init__(self, directory: str | os.PathLike, split: str):
        self.directory, self.split = Path(directory), split
        _check_descriptions(self.directory)
        try:
            builder = tfds.builder_from_directory(os.fspath(directory))
            info = builder.info.splits.get(split)
        except Exception as error:  # TFDS raises exceptions of its own, of JSON and of missing files
            if refusal := disk_refusal(error, directory):
                raise refusal from error
            line = describe_os_error(error) if isinstance(error, OSError) else error
            raise InputError(f"not a whole dataset ({line}); run 'salmu build' again", directory) from error
        if info is None:
            raise contents_lib.no_split(split, list(builder.info.splits), directory)
        self.name = builder.name
        self._features = builder.info.features
        self._texts = [name for name, kind in self._features.items() if isinstance(kind, tfds.features.Text)]
        self._paths = [os.fspath(path) for path in info.filepaths]
        self._ends = list(itertools.accumulate(info.shard_lengths))
        self._readers: collections.OrderedDict[int, Any] = collections.OrderedDict()  # in order of use, latest last
        self._lock = threading.Lock()
        self._most = max(host.open_files() // 4, 1)  # open readers; each holds a file and an index in memory

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are read here: ``("salmu/forget",)``."""
        return (f"{self.name}/{self.split}",)

    @property
    def parts(self) -> tuple[RecordSource, ...]:
        return (self,)

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(self._features)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read([index])[0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), 256):
            yield from self.read(range(start, min(start + 256, len(self))))

    def read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Reads the examples at several positions at once."""
        places: dict[int, list[tuple[int, int]]] = {}
        for position, index in enumerate(indices):
            shard = bisect.bisect_right(self._ends, _checked(index, len(self)))
            places.setdefault(shard, []).append((position, int(index) - self._start(shard)))
        examples: list[dict[str, Any]] = [{}] * len(indices)
        for shard, wanted in places.items():
            for (position, _), example in zip(wanted, self._read(shard, [row for _, row in wanted]), strict=True):
                examples[position] = example
        return examples

    def where(self, index: int) -> str:
        """Returns the file and record of an example, for error messages."""
        shard = bisect.bisect_right(self._ends, index)
        return f"{self._paths[shard]} record {index - self._start(shard)}"

    def _start(self, shard: int) -> int:
        return self._ends[shard - 1] if shard else 0

    def _read(self, shard: int, rows: list[int]) -> list[dict[str, Any]]:
        try:
            reader = self._reader(shard)
            examples = [self._features.deserialize_example_np(record) for record in reader.read(rows)]
            for example in examples:
                for name in self._texts:
                    example[name] = example[name].decode()
        except InputError:
            raise
        except Exception as error:  # the reader raises RuntimeError(""); parser and decoder raise their own
            path = self._paths[shard]
            if not os.path.isfile(path):
                message = "no such file, though the dataset needs it; run 'salmu build' again"
                raise InputError(message, path) from error
            if isinstance(error, OSError) and error.errno is not None:
                raise InputError(describe_os_error(error, path)) from error
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"cut short or damaged ({reason}); run 'salmu build' again", path) from error
        return examples

    def _reader(self, shard: int) -> Any:
        with self._lock:
            if shard in self._readers:
                self._readers.move_to_end(shard)
                return self._readers[shard]
        reader = self._open(shard)
        with self._lock:
            self._readers[shard] = reader
            while len(self._readers) > self._most:
                self._readers.popitem(last=False)  # closed once no thread reads from it
        return reader

    def _open(self, shard: int) -> Any:
        reader = array_record_module.ArrayRecordReader(self._paths[shard], "readahead_buffer_size:0")
        expected, found = self._ends[shard] - self._start(shard), reader.num_records()
        if found != expected:  # a truncated file opens without an error, and so does one that cannot be opened
            open(self._paths[shard], "rb").close()
            message = f"cut short or damaged ({found} records of {expected}); run 'salmu build' again"
            raise InputError(message, self._paths[shard])
        return reader

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "split": self.split}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["directory"], state["split"])


class ConcatenatedSource:
    """Concatenates several sources."""

    def __init__(self, sources: Sequence[RecordSource | ConcatenatedSource]):
        self.parts = tuple(part for source in sources for part in source.parts)
        self._ends = list(itertools.accumulate(len(part) for part in self.parts))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are read here: ``("retain_pairs/train", "salmu/retain_synth")``."""
        return tuple(split for part in self.parts for split in part.splits)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, place = self.locate(index)
        return part[place]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return itertools.chain.from_iterable(self.parts)

    def read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Reads the examples at several positions at once, in that order."""
        wanted: dict[RecordSource, list[tuple[int, int]]] = {}
        for position, index in enumerate(indices):
            part, place = self.locate(index)
            wanted.setdefault(part, []).append((position, place))
        examples: list[dict[str, Any]] = [{}] * len(indices)
        for part, places in wanted.items():
            for (position, _), example in zip(places, part.read([place for _, place in places]), strict=True):
                examples[position] = example
        return examples

    def where(self, index: int) -> str:
        """Returns the file and record of an example, for error messages."""
        part, place = self.locate(index)
        return part.where(place)

    def locate(self, index: int) -> tuple[RecordSource, int]:
        """Returns the part that holds an index, and the index within it."""
        number = bisect.bisect_right(self._ends, _checked(index, len(self)))
        return self.parts[number], index - (self._ends[number - 1] if number else 0)


def _check_descriptions(directory: Path) -> None:
    """Compares the JSON files of a dataset with the digests of the build. (Shards have their own checksums.)"""
    root = directory.absolute().parents[1]
    contents = contents_lib.read_contents(root)
    if contents is None and os.path.lexists(root / contents_lib.MANIFEST):
        raise InputError("damaged; run 'salmu build' again", root / contents_lib.MANIFEST)
    for name, record in (contents or {"files": {}})["files"].items():
        path = root / name
        if path.suffix == ".json" and path.parent == directory.absolute():
            try:
                same = files.sha256_file(path) == record["sha256"]
            except OSError as error:
                raise InputError(f"{describe_os_error(error, path)}; run 'salmu build' again") from error
            if not same:
                message = f"not a whole dataset ({path.name} is not as it was written); run 'salmu build' again"
                raise InputError(message, directory)


def open_source(datasets_dir: str | os.PathLike, name: str, split: str) -> RecordSource | ConcatenatedSource:
    """Opens a split of a built dataset. ``salmu``'s ``sensitive`` is its own split, or the three sensitive splits in a row.

    Raises InputError for a dataset or split that is not there, naming those that are.
    """
    directory = Path(datasets_dir) / name
    versions = sorted(path.parent for path in directory.glob("*/dataset_info.json"))
    if not versions:
        there = sorted(path.parent.parent.name for path in Path(datasets_dir).glob("*/*/dataset_info.json"))
        raise InputError(f"no dataset '{name}' here ({', '.join(there) or 'none'}); run 'salmu build'", datasets_dir)
    own = any(versions[-1].glob("salmu-sensitive.*"))  # built from the training repository
    if (name, split) == ("salmu", "sensitive") and not own:
        return ConcatenatedSource([RecordSource(versions[-1], part) for part in SENSITIVE_SPLITS])
    return RecordSource(versions[-1], split)


def read_classes(datasets_dir: str | os.PathLike) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns (class names, prompt templates with ``{c}``) of ``zeroshot``. Raises InputError if it is absent."""
    source = open_source(datasets_dir, "zeroshot", "test")
    path = source.parts[0].directory / CLASSES_FILE
    try:
        classes = files.read_json(path)
        return tuple(classes["classnames"]), tuple(classes["templates"])
    except OSError as error:
        raise InputError(describe_os_error(error, path)) from error
    except (KeyError, TypeError) as error:
        raise InputError(f"damaged ({error!r}); run 'salmu build' again", path) from error


def _checked(index: int, length: int) -> int:
    index = operator.index(index)
    if not 0 <= index < length:
        raise IndexError(f"example {index} of {length}")
    return index

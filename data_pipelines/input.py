"""The input pipeline (grain): shuffles, decodes, tokenises and batches the pairs of several splits, and divides them by host.

The order of a run is one endless stream of positions: epoch after epoch, each a permutation of all pairs that depends
on the seed and the epoch alone (``order.py``: O(1) memory, any position in O(1)). Batch ``t`` is positions ``t *
batch_size`` to ``(t + 1) * batch_size``, so every pair occurs exactly once per epoch, and a batch may straddle two.
Host ``h`` of ``H`` delivers the ``h``-th contiguous part of every batch. Nothing depends on the number of hosts,
worker processes or threads, nor on the step at which a run starts: to resume, pass ``start_step``.

Mixing data sets is concatenation before the shuffle. (grain's ``mix`` with proportional weights loses elements.)
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from absl import flags

from data_pipelines.builders.source import ConcatenatedSource, RecordSource, open_source
from data_pipelines.order import shuffled
from salmu_jax.models.preprocess import preprocess_eval, random_resized_crop
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime import host, interrupts
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.feed import BatchCosts

AUGMENT = {"scale": (0.9, 1.0), "ratio": (3 / 4, 4 / 3)}  # OpenCLIP's RandomResizedCrop

_CROPS = 0x43524F50  # keeps the draws of crops apart from all others of the same seed
_ENDLESS = 1 << 48  # parts of batches in the stream
_COSTS = "costs"  # what a batch took; it leaves the batch before this is yielded
_CHUNK = 128  # examples read and decoded at a time when a cache is filled


class PairSource:
    """Concatenates the image-caption pairs of one or more splits.

    ``source[i]`` is ``{"image": bytes, "text": str, "id": str}``, together with the texts named in ``extra_text``.

    Args:
      sources: what :func:`open_source` returns, one or more.
      extra_text: further text features that every source has, such as ``generic_caption``.
      rows: int64 [N], which pairs of ``sources`` there are, in this order (see :meth:`select`); None: all of them.

    Raises:
      InputError: no sources, or one that lacks a feature; when reading, a damaged file.
    """

    def __init__(
        self,
        sources: Sequence[RecordSource | ConcatenatedSource],
        extra_text: Sequence[str] = (),
        rows: np.ndarray | None = None,
    ):
        if not sources:
            raise InputError("no data sets to read pairs from; one or more are needed")
        joined = ConcatenatedSource(sources)
        self.parts, self.splits, self.extra_text = joined.parts, joined.splits, tuple(extra_text)
        self._joined, self._rows = joined, rows
        for part in self.parts:
            for name in ("image", "text", *self.extra_text):
                if name not in part.features:
                    raise InputError(f"no feature '{name}'; it has {', '.join(part.features)}", part.directory)

    @classmethod
    def open(cls, datasets_dir: str | os.PathLike, splits: Sequence[str], extra_text: Sequence[str] = ()) -> PairSource:
        """Opens ``["retain_pairs/train", "salmu/retain_synth", ...]``; ``salmu/sensitive`` is three splits in a row."""
        for split in splits:
            if split.count("/") != 1:
                raise InputError(f"'{split}' is not a split; one such as 'salmu/forget' is needed", datasets_dir)
        return cls([open_source(datasets_dir, *split.split("/")) for split in splits], extra_text)

    def select(self, rows: Sequence[int] | np.ndarray) -> PairSource:
        """Returns the pairs at the positions ``rows`` of this source alone, in that order, as a source."""
        return PairSource(self.parts, self.extra_text, self.positions(np.asarray(rows, np.int64)))

    def with_texts(self, *extra_text: str) -> PairSource:
        """Returns the same pairs with other ``extra_text``. Raises InputError if a source lacks one of the features."""
        return PairSource(self.parts, extra_text, self._rows)

    def texts(self, *features: str) -> dict[str, list[str]]:
        """Reads text features of all pairs: ``{feature: [text of every pair, in order]}``; no image is kept.

        Raises InputError if a source lacks one of the features.
        """
        source = self.with_texts(*features)
        found: dict[str, list[str]] = {name: [] for name in features}
        for start in range(0, len(source), _CHUNK):
            for pair in source.read(range(start, min(start + _CHUNK, len(source)))):
                for name in features:
                    found[name].append(pair[name])
        return found

    def positions(self, places: np.ndarray) -> np.ndarray:
        """Returns where the pairs at ``places`` of this source, int64 [B], are in its parts, one after the other."""
        return places if self._rows is None else self._rows[places]

    def __len__(self) -> int:
        return len(self._joined) if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read([index])[0]

    def read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Reads the pairs at several indices at once, in that order."""
        if self._rows is not None:
            indices = [int(self._rows[index]) for index in indices]
        return [self._pair(example) for example in self._joined.read(indices)]

    def where(self, index: int) -> str:
        """Returns the file and record of a pair, for error messages."""
        return self._joined.where(index if self._rows is None else int(self._rows[index]))

    def _pair(self, example: dict[str, Any]) -> dict[str, Any]:
        pair = {name: example[name] for name in ("image", "text", *self.extra_text)}
        return {**pair, "id": example["file_name"] if "file_name" in example else example["key"]}


class DecodedCache:
    """Keeps the preprocessed pixels and token rows of small data sets in memory, so that each is decoded once.

    Several runs of one process may share it: a split that both Clean and Compromised are trained on, or that is
    evaluated repeatedly, is decoded once. It holds ``3 * image_size**2`` bytes per image. Thread-safe.

    Args:
      image_size: the side of the images, in pixels.
      threads: decoding threads; None for one per core.
    """

    def __init__(self, image_size: int, threads: int | None = None):
        self.image_size = image_size
        self._threads = threads or host.cpu_count()
        self._lock = threading.RLock()
        self._decoded: dict[tuple[str, str], tuple[np.ndarray, dict[str, list[str]]]] = {}
        self._tokens: dict[tuple[Any, ...], np.ndarray] = {}

    def images(self, part: RecordSource) -> np.ndarray:
        """Returns all images of a split after the evaluation transform, uint8 ``[N, S, S, 3]``."""
        return self._decode(part)[0]

    def tokens(self, part: RecordSource, feature: str, tokenizer: ClipTokenizer) -> np.ndarray:
        """Returns the token rows of a text feature of a split, int32 ``[N, context_length]``."""
        key = (*_key(part), feature, tokenizer)
        with self._lock:
            if key not in self._tokens:
                self._tokens[key] = tokenizer(self._decode(part)[1][feature])
            return self._tokens[key]

    def _decode(self, part: RecordSource) -> tuple[np.ndarray, dict[str, list[str]]]:
        with self._lock:
            if _key(part) not in self._decoded:
                self._decoded[_key(part)] = self._decode_all(part)
            return self._decoded[_key(part)]

    def _decode_all(self, part: RecordSource) -> tuple[np.ndarray, dict[str, list[str]]]:
        images = np.empty((len(part), self.image_size, self.image_size, 3), np.uint8)
        features = [name for name in ("text", "generic_caption") if name in part.features]
        texts: dict[str, list[str]] = {name: [""] * len(part) for name in features}

        def fill(start: int) -> None:
            rows = range(start, min(start + _CHUNK, len(part)))
            for row, example in zip(rows, part.read(rows), strict=True):
                images[row] = preprocess_eval(example["image"], self.image_size, part.where(row))
                for name in features:
                    texts[name][row] = example[name]

        with ThreadPoolExecutor(self._threads) as pool:
            for _ in pool.map(fill, range(0, len(part), _CHUNK)):  # re-raises errors
                pass
        images.flags.writeable = False
        return images, texts


def training_batches(
    source: PairSource,
    *,
    tokenizer: ClipTokenizer,
    image_size: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    augment: dict[str, tuple[float, float]] | None = None,
    cache: DecodedCache | None = None,
    num_workers: int = 0,
    host_index: int = 0,
    host_count: int = 1,
    images: bool = True,
    costs: BatchCosts | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields training batches endlessly, one per step, computed ahead in the background.

    Args:
      source: the pairs; its ``extra_text`` names further captions.
      tokenizer: turns captions into token rows.
      image_size: the side S of the images, in pixels.
      batch_size: the *global* batch size.
      seed: determines the order and the crops; 0 to 2**32 - 1.
      start_step: the step of the first batch.
      augment: None for the evaluation transform; otherwise ``{"scale": (0.9, 1.0), "ratio": (3/4, 4/3)}`` (both
        optional) for a random crop that depends only on the seed and the position in the stream.
      cache: keeps decoded images in memory; without it every batch is read and decoded again.
      num_workers: worker processes that read and decode; 0 for threads of this process. Excludes a cache.
      host_index: which part of each batch to yield.
      host_count: the number of parts; must divide ``batch_size``.
      images: False for captions alone: no image is decoded, and batches have no ``images``.
      costs: is added what reading and decoding takes, of all workers; nothing with a cache.

    Yields:
      ``images`` uint8 ``[B, S, S, 3]``, ``tokens`` int32 ``[B, context_length]``, ``index`` int64 ``[B]`` (indices into
      ``source``), and for every ``extra_text`` its tokens: ``generic_caption`` as ``generic_tokens``. B is
      ``batch_size // host_count``. The caller owns the arrays.

    Raises:
      InputError: incompatible settings; while iterating, a damaged file or an undecodable image.
    """
    if batch_size < 1 or batch_size % host_count:
        raise InputError(f"is {batch_size}; a positive multiple of the {host_count} hosts is needed", "batch_size")
    if not 0 <= host_index < host_count:
        raise InputError(f"is {host_index}; 0 to {host_count - 1} is needed", "host_index")
    if not 0 <= seed < 2**32:
        raise InputError(f"is {seed}; 0 to 2**32 - 1 is needed", "seed")
    if start_step < 0:
        raise InputError(f"is {start_step}; 0 or more is needed", "start_step")
    if not {"scale", "ratio"} >= set(augment or ()):
        raise InputError(f"has {', '.join(augment)}; 'scale' and 'ratio' are possible", "augment")
    if cache is not None and (augment is not None or num_workers or cache.image_size != image_size):
        raise InputError(
            "a cache of decoded images needs no augmentation, no worker processes and one image size", "cache"
        )
    rows = batch_size // host_count
    load = _Load(source, tokenizer, image_size if images else 0, rows, seed, augment, cache)
    parts = grain.MapDataset.range(_ENDLESS).map(load)  # part c: batch c // host_count, host c % host_count
    steps = parts[host_index::host_count][start_step:]
    threads = 1 if cache is not None or num_workers else host.cpu_count()
    batches = steps.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 2))
    if num_workers:
        if not flags.FLAGS.is_parsed():  # grain passes flags to its workers; absl.app.run may not have parsed them
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
        batches = batches.mp_prefetch(options, worker_init_fn=_leave_interrupts)
        batches = batches.map(_own)
    if cache is None:
        batches = batches.map(functools.partial(_take_costs, costs))
    return _until_closed(batches, processes=num_workers > 0)


def evaluation_images(
    source: PairSource | RecordSource | ConcatenatedSource,
    image_size: int,
    batch_size: int,
    cache: DecodedCache | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields all images of a source, in order, after the evaluation transform.

    Yields:
      ``images`` uint8 ``[batch_size, S, S, 3]`` and ``count``, the number of real rows: the last batch is padded
      with zeros.
    """

    def load(start: int) -> dict[str, Any]:
        places = np.arange(start, min(start + batch_size, len(source)))
        images = np.zeros((batch_size, image_size, image_size, 3), np.uint8)
        if cache is not None:
            rows = source.positions(places) if isinstance(source, PairSource) else places
            images[: len(places)] = _gather([cache.images(part) for part in source.parts], rows)
        else:
            for row, (place, example) in enumerate(zip(places, source.read(places), strict=True)):
                images[row] = preprocess_eval(example["image"], image_size, source.where(place))
        return {"images": images, "count": len(places)}

    starts = grain.MapDataset.range(0, len(source), batch_size).map(load)
    threads = 1 if cache is not None else host.cpu_count()
    return _until_closed(
        starts.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1))
    )


@dataclass(frozen=True)
class _Load:
    """Maps the number of a part of a batch to its arrays. It is pickled to worker processes, so it holds settings only."""

    source: PairSource
    tokenizer: ClipTokenizer
    image_size: int  # 0: no images
    rows: int
    seed: int
    augment: dict[str, tuple[float, float]] | None
    cache: DecodedCache | None

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        positions = number * self.rows + np.arange(self.rows)
        places = shuffled(positions, len(self.source), self.seed)
        texts = {"tokens": "text", **{_tokens_name(name): name for name in self.source.extra_text}}
        batch: dict[str, np.ndarray] = {}
        if self.cache is not None:
            parts, rows = self.source.parts, self.source.positions(places)
            if self.image_size:
                batch["images"] = _gather([self.cache.images(part) for part in parts], rows)
            for key, name in texts.items():
                batch[key] = _gather([self.cache.tokens(part, name, self.tokenizer) for part in parts], rows)
        else:
            costs = BatchCosts(pairs=len(places))
            with costs.reading():
                pairs = self.source.read(places)
            with costs.decoding():
                if self.image_size:
                    costs.image_bytes = sum(len(pair["image"]) for pair in pairs)
                    batch["images"] = self._images(positions.tolist(), places.tolist(), pairs)
                for key, name in texts.items():
                    batch[key] = self.tokenizer([pair[name] for pair in pairs])
            batch[_COSTS] = costs.to_array()
        return {**batch, "index": places}

    def _images(self, positions: list[int], places: list[int], pairs: list[dict[str, Any]]) -> np.ndarray:
        images = np.empty((len(pairs), self.image_size, self.image_size, 3), np.uint8)
        for row, (position, place, pair) in enumerate(zip(positions, places, pairs, strict=True)):
            images[row] = self._image(position, place, pair["image"])
        return images

    def _image(self, position: int, place: int, data: bytes) -> np.ndarray:
        where = self.source.where(place)
        if self.augment is None:
            return preprocess_eval(data, self.image_size, where)
        rng = np.random.default_rng([self.seed, _CROPS, position])
        return random_resized_crop(data, self.image_size, rng, **self.augment, where=where)


def _until_closed(batches: grain.IterDataset, *, processes: bool = False) -> Iterator[dict[str, Any]]:
    """Iterates, and stops the threads or ``processes`` behind it when the caller closes or drops the iterator."""
    iterator = iter(batches)
    try:
        # The first batch starts the processes.
        with interrupts.kept_from_children() if processes else contextlib.nullcontext():
            first = next(iterator, None)
        if first is not None:
            yield first
        del first
        yield from iterator
    finally:
        iterator.close()


def _leave_interrupts(index: int, count: int) -> None:
    """Makes a worker process ignore Ctrl-C; its parent ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _own(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies arrays out of memory shared with a worker process, which is gone once the worker is."""
    return {name: np.array(array) for name, array in batch.items()}


def _take_costs(costs: BatchCosts | None, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds what a batch took to ``costs``."""
    taken = batch.pop(_COSTS)
    if costs is not None:
        costs.add(taken)
    return batch


def _gather(arrays: Sequence[np.ndarray], places: np.ndarray) -> np.ndarray:
    """Returns rows of the concatenation of ``arrays``, without building it."""
    result = np.empty((len(places), *arrays[0].shape[1:]), arrays[0].dtype)
    start = 0
    for array in arrays:
        here = np.flatnonzero((places >= start) & (places < start + len(array)))
        result[here] = array[places[here] - start]
        start += len(array)
    return result


def _tokens_name(feature: str) -> str:
    return feature.removesuffix("_caption") + "_tokens"


def _key(part: RecordSource) -> tuple[str, str]:
    return os.fspath(part.directory), part.split

"""Encodes everything that an evaluation needs, once per model: the images of every split and every distinct text.

The images of all splits are one stream, and so are the captions of each length (``encode.py``). The processes of a run divide
each stream, and pass their rows to process 0 through the cache's directory, which all of them see.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from salmu_jax.evaluation import cache_files
from salmu_jax.evaluation.data import EvaluationData
from salmu_jax.evaluation.embedding_cache import Parts, Range
from salmu_jax.evaluation.encode import Bucket, Encoder, buckets
from salmu_jax.evaluation.metric import Metric, Settings
from salmu_jax.evaluation.pixels import ImageStore
from salmu_jax.evaluation.texts import Stream as TextStream
from salmu_jax.evaluation.texts import TextBank
from salmu_jax.runtime import distributed, files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.progress import Progress

Params = Any
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Embeddings:
    """One model's embeddings, all float32, L2-normalised, on the host.

    ``images``: [N, D] a split, with ``zeroshot`` where there is that task. ``texts``: [U, D], a row a text of ``bank``.
    """

    images: dict[str, np.ndarray]
    texts: np.ndarray
    bank: TextBank

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the embeddings of ``texts`` (all in the bank), [N, D]."""
        return self.texts[self.bank.index(texts)]


def embed(
    clip: Any,
    params: Params,
    tokenizer: Any,
    data: EvaluationData,
    *,
    metrics: Sequence[Metric],
    settings: Settings,
    batch_size: int = 256,
    directory: Path | None = None,
    label: str = "",
    say: Say = lambda line: None,
) -> Embeddings | None:
    """Encodes the images of ``data`` and the texts of ``metrics``. All processes have to call it; only process 0 gets them.

    Args:
      metrics, settings: what is measured, which decides the texts.
      batch_size: rows that a device encodes at a time; no embedding depends on it beyond its last bits.
      directory: where embeddings are kept while they are computed (``embedding_cache.py``), which must be of this model and
        these data; None: nowhere. Several processes need one that all of them see.
      label: begins the progress lines, on standard error; empty for none.
      say: called with lines about rows of an earlier run, and about damage.

    Raises:
      InputError: the data were opened at another image size than the model's, or embeddings are no unit vectors.
    """
    where: dict[str, Any] = {"batch_size": batch_size, "directory": directory, "label": label, "say": say}
    return encode(clip, params, tokenizer, data, list(data.images), lambda: data.text_bank(metrics, settings), **where)


def encode(
    clip: Any,
    params: Params,
    tokenizer: Any,
    data: EvaluationData,
    splits: Sequence[str],
    texts: Callable[[], TextBank],
    *,
    batch_size: int,
    directory: Path | None,
    label: str = "",
    say: Say = lambda line: None,
) -> Embeddings | None:
    """Encodes the images of ``splits``, then those texts. Other arguments, result and errors are as in :func:`embed`.

    ``texts`` is called when the images are encoded: the columns of records are kept while images are read.
    """
    if clip.config.image_size != data.image_size:
        raise InputError(f"the data were loaded at {data.image_size} px, the model takes {clip.config.image_size} px")
    run = _Run(Encoder(clip, params, batch_size), directory, label, say)
    by_split = _encode_images(run, {name: data.images[name] for name in splits})
    return _encode_texts(run, clip, tokenizer, data, texts(), directory, by_split)


def _encode_images(run: _Run, stores: Mapping[str, ImageStore]) -> dict[str, np.ndarray]:
    """Encodes the images of all splits as one stream; returns them by split."""
    ends = dict(zip(stores, itertools.accumulate(map(len, stores.values())), strict=True))
    starts = {name: end - len(stores[name]) for name, end in ends.items()}

    def pixels(start: int, stop: int) -> np.ndarray:
        within = [name for name in stores if start < ends[name] and starts[name] < stop]
        bounds = [(name, max(start, starts[name]), min(stop, ends[name])) for name in within]
        return np.concatenate([stores[name].batch(*(row - starts[name] for row in rows)) for name, *rows in bounds])

    def place(row: int) -> str:
        return next(name for name, end in ends.items() if row < end)

    images = run.encode("images", [("images", max(ends.values()), "image", pixels, place)])
    return {name: images[starts[name] : end] for name, end in ends.items()}


def _encode_texts(
    run: _Run,
    clip: Any,
    tokenizer: Any,
    data: EvaluationData,
    bank: TextBank,
    directory: Path | None,
    images: dict[str, np.ndarray],
) -> Embeddings | None:
    """Encodes the texts of ``bank``; process 0 gets the embeddings of these and of ``images``."""
    found = {stream: _buckets(clip, tokenizer, data, bank, stream, directory) for stream in bank.streams}
    order = [(stream, bucket) for stream, buckets in found.items() for bucket in buckets]

    def captions(stream: TextStream, bucket: Bucket) -> Callable[[int, int], np.ndarray]:
        return lambda start, stop: data.tokens(tokenizer, bank, stream)[bucket.index[start:stop], : bucket.length]

    streams = [
        (
            f"{_name(bank, stream, tokenizer)}/{bucket.length}",
            len(bucket.index),
            "text",
            captions(stream, bucket),
            lambda row: "texts",
        )
        for stream, bucket in order
    ]
    texts = run.encode("texts", streams)
    if not distributed.is_main():
        return None
    _restore_order(texts, np.concatenate([stream.start + bucket.index for stream, bucket in order]))
    return Embeddings(images, texts, bank)


def encode_texts(
    clip: Any, params: Params, tokenizer: Any, texts: Sequence[str], *, batch_size: int = 256
) -> np.ndarray:
    """Returns text embeddings float32 [N, D]; encodes each distinct text once, so equal texts have equal rows, bit for bit."""
    bank = TextBank({"texts": [texts]})
    tokens = np.asarray(tokenizer(list(bank.texts)), np.int32)
    return Encoder(clip, params, batch_size).all_tokens(tokens)[bank.index(texts)]


Stream = tuple[str, int, str, Callable[[int, int], np.ndarray], Callable[[int], str]]
"""Its name, how many rows, the tower, ``load(start, stop)``, and what names a row in an error message."""


class _Run:
    """One model's encoding of streams, by all processes together."""

    def __init__(self, encoder: Encoder, directory: Path | None, label: str, say: Say):
        if directory is None and distributed.process_count() > 1:
            raise ValueError("several processes need a directory to hand their embeddings over")
        self._encoder, self._directory, self._label, self._say = encoder, directory, label, say
        self._width = encoder.width()

    def encode(self, unit: str, streams: Sequence[Stream]) -> np.ndarray:
        """Returns all rows of all streams in order, float32 [N, D]; in processes other than 0, only their own rows."""
        ends = list(itertools.accumulate(stream[1] for stream in streams))
        values = np.zeros((ends[-1], self._width), np.float32)
        parts = [
            Parts(values[end - rows : end], self._directory and self._directory / name, self._say)
            for (name, rows, *_), end in zip(streams, ends, strict=True)
        ]
        # Process 0 decides what is missing: the others may already see rows that their peers write.
        missing = distributed.from_main(lambda: [part.load() for part in parts])
        rows, todo = ends[-1], sum(stop - start for some in missing for start, stop in some)
        if todo < rows:
            self._say(f"{rows - todo:,} of {rows:,} {unit} were encoded before")
        mine = [
            _share(ranges, self._encoder.rows_of(stream[1]), *_place_among_processes())
            for ranges, stream in zip(missing, streams, strict=True)
        ]

        def work() -> None:
            total = sum(stop - start for some in mine for start, stop in some)
            progress = Progress(f"{self._label}: {unit}", total, unit=unit) if self._label and total else None
            done, waited = 0, self._encoder.waited
            for (_, size, tower, load, where), part, ranges in zip(streams, parts, mine, strict=True):
                if not ranges:
                    continue
                try:
                    for start, values in self._encoder.run(tower, load, ranges, where, size):
                        part.add(start, values)
                        done += len(values)
                        if progress:
                            progress.waited(self._encoder.waited - waited)
                            waited = self._encoder.waited
                            progress.update(done, len(values), {})
                finally:
                    part.flush()

        _together(work)
        if distributed.process_count() > 1:
            distributed.from_main(lambda: _complete(parts, streams))
        return values


def _complete(parts: Sequence[Parts], streams: Sequence[Stream]) -> None:
    """Reads what the other processes have written."""
    for part, (name, *_) in zip(parts, streams, strict=True):
        lacking = sum(stop - start for start, stop in part.load())
        if lacking:
            raise InputError(
                f"{lacking:,} embeddings of other processes cannot be seen from process 0; the work directory has to be one"
                " that all processes share",
                name,
            )


def _restore_order(values: np.ndarray, index: np.ndarray) -> None:
    """Moves row i of ``values`` [N, D] to row ``index[i]``, a few columns at a time: a copy would be half a gigabyte."""
    inverse = np.empty(len(index), np.int64)
    inverse[index] = np.arange(len(index))
    for column in range(0, values.shape[1], 32):
        values[:, column : column + 32] = values[inverse, column : column + 32]


def _place_among_processes() -> tuple[int, int]:
    count = distributed.process_count()
    return count, jax.process_index() if count > 1 else 0


def _together(work: Callable[[], None]) -> None:
    """Calls ``work`` in each process; an InputError in one is raised in all, so that no process waits for it."""
    problem = None
    try:
        work()
    except InputError as error:
        problem = str(error)
    for process, message in enumerate(distributed.from_all(problem)):
        if message is not None:
            raise (
                InputError(message) if process == _place_among_processes()[1] else distributed.RemoteInputError(message)
            )


def _share(ranges: Sequence[Range], unit: int, count: int, index: int) -> list[Range]:
    """Returns the rows of process ``index`` of ``count``: equal shares of ``ranges``, cut at multiples of ``unit``."""
    total = sum(stop - start for start, stop in ranges)
    units = -(-total // unit)
    first, last = (units * part // count * unit for part in (index, index + 1))
    own, place = [], 0
    for start, stop in ranges:
        begin, end = max(start, start + first - place), min(stop, start + last - place)
        if begin < end:
            own.append((begin, end))
        place += stop - start
    return own


def _name(bank: TextBank, stream: TextStream, tokenizer: Any) -> str:
    """Returns the directory of a stream's embeddings below the model's: another stream, or other texts, have another."""
    texts = list(bank.texts[stream.start : stream.stop])
    return f"texts-{files.sha256_json([texts, getattr(tokenizer, 'digest', '')])[:12]}"


def _buckets(
    clip: Any, tokenizer: Any, data: EvaluationData, bank: TextBank, stream: TextStream, directory: Path | None
) -> list[Bucket]:
    """Returns the buckets of a stream; kept in its directory, so that texts with cached embeddings need not be tokenised."""
    path = None if directory is None else directory / _name(bank, stream, tokenizer) / "order"
    if path is not None:
        try:
            found = cache_files.read(path)
            index = found.payload.view(np.int64)
            ends = np.cumsum([rows for _, rows in found.fields["buckets"]])[:-1]
            return [
                Bucket(length, part)
                for (length, _), part in zip(found.fields["buckets"], np.split(index, ends), strict=True)
            ]
        except (FileNotFoundError, cache_files.Damaged):
            pass  # it depends on the texts alone, and is written again
    order = buckets(data.tokens(tokenizer, bank, stream), getattr(clip.config, "text", None))
    if path is not None:
        sizes = [[bucket.length, len(bucket.index)] for bucket in order]
        cache_files.write(path, {"buckets": sizes}, np.concatenate([bucket.index for bucket in order]))
    return order

"""Draws the batches of a run from the streams of its method: how many rows each has, and all of them step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from salmu_jax.runtime.errors import InputError
from salmu_jax.training.nonfinite import Numbered
from salmu_jax.unlearning.made_captions import Inputs
from salmu_jax.unlearning.method import Pairs
from salmu_jax.unlearning.permission import FORGET
from salmu_jax.unlearning.reference import OTHERS
from salmu_jax.unlearning.streams import Drawn, Forget, Stream, Surrogates, Texts


def step_sizes(streams: Mapping[str, Stream], batch_size: int) -> dict[str, int]:
    """Returns the rows per batch of each stream: its ``per_step``, or an even share of ``batch_size``.

    Streams that are ``prepare_only`` get as many as the others, and do not count among those that share.

    Raises InputError if ``batch_size`` does not divide by the streams that share it.
    """
    sharing = [name for name, stream in streams.items() if stream.per_step is None and not stream.prepare_only]
    if sharing and batch_size % len(sharing):
        raise InputError(
            f"{batch_size} pairs per step are shared by {' and '.join(sharing)}; a multiple of {len(sharing)} is needed",
            "batch_size",
        )
    return {name: stream.per_step or batch_size // max(len(sharing), 1) for name, stream in streams.items()}


def forget_step_size(streams: Mapping[str, Stream], sizes: Mapping[str, int], batch_size: int) -> int:
    """Returns the forget pairs per step, by which passes over forget are counted.

    They are those of the first stream of pairs of forget, else of captions of forget, else the whole ``batch_size``.
    """
    for kind in (Forget, Texts):
        for name, stream in streams.items():
            if isinstance(stream, kind) and stream.reads == FORGET and not stream.prepare_only:
                return sizes[name]
    return batch_size


class Batches:
    """Draws the batches of a run from the streams of its method.

    Args:
      streams, sizes: by name; sizes count the rows of all hosts.
      inputs: what they draw from.

    Attributes:
      rows: of each stream, how many different ones there are; the first batches of as many hold each of them once.
      known: embeddings of all of these by the start model, which the batches of steps carry: see ``reference_cache.py``.
    """

    def __init__(self, streams: Mapping[str, Stream], sizes: Mapping[str, int], inputs: Inputs):
        self.sizes, self.inputs = dict(sizes), inputs
        self._of_steps = [name for name, stream in streams.items() if not stream.prepare_only]
        self._opened = {name: stream.open(name, sizes[name], inputs) for name, stream in streams.items()}
        permission = inputs.permission
        self.sources = {
            name: permission.split(stream.source)
            for name, stream in streams.items()
            if not isinstance(stream, Surrogates)
        }
        self.rows = {
            name: stream.count if isinstance(stream, Surrogates) else len(self.sources[name])
            for name, stream in streams.items()
        }
        self.known: Mapping[str, Mapping[str, Any]] = {}

    @property
    def rows_per_step(self) -> int:
        """The rows of all streams that a step is given."""
        return sum(self.sizes[name] for name in self._of_steps)

    def __call__(self, first_step: int = 0) -> Iterator[Numbered]:
        """Yields this process's share of the batch of every step from ``first_step`` on, endlessly."""
        return self._draw(first_step, jax.process_index(), jax.process_count(), self._of_steps, self.known)

    def to_prepare(self) -> Iterator[dict[str, Pairs]]:
        """Yields this process's share of batches of all streams, those for ``prepare`` alone included."""
        return (batch.arrays for batch in self._draw(0, jax.process_index(), jax.process_count()))

    def whole(self, first_step: int = 0) -> Iterator[dict[str, Pairs]]:
        """Yields whole batches of all streams, the same in all processes."""
        return (batch.arrays for batch in self._draw(first_step, 0, 1))

    def of_stream(self, name: str) -> Iterator[Drawn]:
        """Yields whole batches of one stream from the first on, the same in all processes."""
        return self._opened[name](0, 0, 1)

    @property
    def of_steps(self) -> tuple[str, ...]:
        """The streams that a step is given."""
        return tuple(self._of_steps)

    def _draw(
        self,
        first_step: int,
        host: int,
        hosts: int,
        names: Sequence[str] | None = None,
        known: Mapping[str, Mapping[str, Any]] = {},
    ) -> Iterator[Numbered]:
        opened = self._opened if names is None else {name: self._opened[name] for name in names}
        iterators = {name: draw(first_step, host, hosts) for name, draw in opened.items()}
        while True:
            arrays: dict[str, Pairs] = {}
            positions: dict[str, np.ndarray] = {}
            for name, iterator in iterators.items():
                drawn = next(iterator)
                arrays[name] = drawn.pairs
                if name in known:
                    arrays[name] = drawn.pairs._replace(known=_looked_up(known[name], drawn))
                if name in self.sources:
                    positions[name] = drawn.places
            yield Numbered(arrays, positions)


def _looked_up(tables: Mapping[str, Any], drawn: Drawn) -> dict[str, Any]:
    """Returns the embeddings of drawn rows, float32 [B, D] or [B, K, D] each, from those of all rows of the stream."""
    which = {OTHERS + name: choice.which for name, choice in drawn.choices.items()}
    return {
        array: table[drawn.places[:, None], which[array]] if array in which else table[drawn.places]
        for array, table in tables.items()
    }

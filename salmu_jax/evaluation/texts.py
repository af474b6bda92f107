"""Collects the texts of an evaluation: all that its metrics ask for, each encoded once.

Metrics ask for named groups of texts. The groups of :data:`FIRST` are one stream, in that order; any other group is a stream
of its own after it. A stream is encoded and cached as a whole, so a metric with a new group leaves the embeddings of the
others as they are, to the last bit, and a second evaluation with it encodes that group alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from salmu_jax.evaluation.data import EvaluationData
    from salmu_jax.evaluation.metric import Metric, Settings

# Which batch a text is encoded in depends on its stream, and so do the last bits of its embedding: this order is fixed.
FIRST = (
    "forget",
    "holdout_association",
    "holdout_identity",
    "retain_synth",
    "generic captions",
    "name value",
    "value name",
    "identity prompts",
    "class prompts",
)


class Stream(NamedTuple):
    """Texts that are encoded together: rows ``start`` to ``stop`` of the bank."""

    name: str
    start: int
    stop: int


class TextBank:
    """Every distinct text of an evaluation, once, so that identical texts have identical embeddings.

    Args:
      streams: groups of texts by the name of their stream. A text belongs to the first stream that holds it.

    Attributes:
      texts: all texts, stream by stream.
      streams: those that have texts of their own.
    """

    def __init__(self, streams: Mapping[str, Iterable[Sequence[str]]]):
        self._index: dict[str, int] = {}
        found = []
        for name, groups in streams.items():
            start = len(self._index)
            for group in groups:
                for text in group:
                    self._index.setdefault(text, len(self._index))
            if len(self._index) > start:
                found.append(Stream(name, start, len(self._index)))
        self.texts = tuple(self._index)
        self.streams = tuple(found)

    def index(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the row of each text, int32 [N]; equal texts have equal rows."""
        return np.fromiter((self._index[text] for text in texts), np.int32, len(texts))


def collect(data: EvaluationData, metrics: Sequence[Metric], settings: Settings) -> TextBank:
    """Returns the bank of all texts that ``metrics`` ask for."""
    asked: dict[str, list[Sequence[str]]] = {}
    for metric in metrics:
        with metric.named():
            for name, texts in metric.texts(data, settings).items():
                groups = asked.setdefault(name, [])
                if not any(texts is known for known in groups):
                    groups.append(texts)
    first = [texts for name in FIRST for texts in asked.get(name, ())]
    return TextBank({"": first, **{name: groups for name, groups in asked.items() if name not in FIRST}})

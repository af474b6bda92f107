"""Builds what the probes of recoverability share: series of variants on which RetFail is measured again.

Galleries, ties and protocol are RetFail's, so a rank after an attack is compared with the one before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Inputs, Settings
from salmu_jax.evaluation.rows import Column, RowScores
from salmu_jax.evaluation.variants import Make, Series

RANK = Column("<i2", "forget")  # a gallery has 2,001 captions at most, which 16 bits hold
_RANKS = parts.rank_scores("forget")
_TEXTS = parts.rank_texts("forget")


def retfail_series(name: str, variants: Sequence[str], make: Make, *, of_compromised: bool = False) -> Series:
    """Returns a series whose variants are scored by the ranks of the forget images, ``{"rank": int16 [N]}``."""
    return Series(name, tuple(variants), make, _TEXTS, _score, of_compromised=of_compromised)


def no_texts(data: Any, settings: Settings) -> Mapping[str, Sequence[str]]:
    """Is the ``texts`` of a metric that is measured on variants alone: RetFail asks for what else it needs."""
    return {}


def ranks(inputs: Inputs) -> np.ndarray:
    """Returns RetFail's ranks of the forget images, int16 [N]."""
    return _RANKS(inputs)["forget.rank"].astype(np.int16)


def _score(inputs: Inputs) -> RowScores:
    return {"rank": ranks(inputs)}


def last_ranks(inputs: Inputs) -> np.ndarray:
    """Returns the last rank that each forget image can have, int16 [N]: that of a model that knows nothing of it."""
    scores = _RANKS(inputs)
    size = 1 + len(scores["forget.gallery"]) + len(scores["retain_synth.gallery"])
    return (size - scores["forget.left_out"]).astype(np.int16)


def rank_problems(
    name: str, rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any], left_out: np.ndarray
) -> Iterator[str]:
    """Yields a line if a column of ranks after an attack holds what it cannot.

    ``left_out`` bool [N] are the rows that have to be -1; all others have a rank within their gallery.
    """
    found = rows[name]
    wrong = np.where(left_out, found != -1, (found < 1) | (found > protocol["gallery"] - rows["forget.left_out"]))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        right = "-1" if left_out[row] else "a rank within its gallery"
        yield f"'{name}' is {found[row]} in row {row}, not {right}"

"""Collects what verdicts rest on: the figures of a result, and intervals of the normalised statistics.

The intervals are those of a paired bootstrap. Each sample draws the same identities (GenKnow: images) for a method, Clean and
Compromised, and the statistic is computed within the sample. What the models share cancels, and the sampling error of the
references counts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salmu_jax.evaluation import draws
from salmu_jax.evaluation.intervals import LEVEL
from salmu_jax.evaluation.result import leaderboard_row
from salmu_jax.evaluation.rows import RowScores
from salmu_jax.evaluation.statistics import STATISTICS

_SPLITS = {"RetFail": "forget", "InterId": "holdout_identity", "IntraId": "holdout_association"}


def figures(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the figures that verdicts use, from a result; None for one that was not measured or is not finite."""
    row = leaderboard_row(result)
    found = {key: row[key] for key in ("RetFail_MRR", "GenKnow", "InterIdSim", "IntraIdSim")}
    for name in ("InterId", "IntraId"):
        found[f"{name}Ret_MRR"] = (result["extra"]["retrieval"].get(_SPLITS[name]) or {}).get("MRR")
    return {key: None if x is None or not math.isfinite(x) else float(x) for key, x in found.items()}


def statistic_intervals(
    values: Mapping[str, float | None],
    references: Mapping[str, Mapping[str, float | None]],
    rows: RowScores,
    reference_rows: Mapping[str, RowScores],
    protocol: Mapping[str, Any],
) -> dict[str, tuple[float, float]]:
    """Returns the 95 % interval of each statistic that is defined, by name.

    It is unbounded where the statistic is not defined in more samples than may lie on one side of an interval: Compromised's
    lead over Clean is then within the sampling error.

    Args:
      values, references: the figures of the model, and of each reference by name (:func:`figures`).
      rows, reference_rows: their row scores, of the same rows.
      protocol: of the results; its ``seed`` and ``bootstrap`` decide the draws. With a ``bootstrap`` of 0 there are none.
    """
    if not protocol["bootstrap"]:
        return {}
    names = list(reference_rows)
    samples: dict[str, dict[str, np.ndarray]] = {name: {} for name in ("", *names)}
    for key, known in values.items():
        if known is not None:
            drawn = _joint_samples(key, [rows, *reference_rows.values()], protocol)
            for column, name in enumerate(samples):
                samples[name][key] = drawn[:, column]
    tail = (1 - LEVEL) / 2
    found = {}
    for name, statistic in STATISTICS.items():
        keys = [key for key, x in statistic.by_figure(values, references).items() if math.isfinite(x)]
        if not keys:
            continue
        drawn = statistic.samples(samples[""], samples, keys)
        defined = drawn[np.isfinite(drawn)]
        if len(defined) < (1 - tail) * len(drawn):
            found[name] = (-math.inf, math.inf)
        else:
            low, high = np.quantile(defined, [tail, 1 - tail])
            found[name] = (float(low), float(high))
    return found


def _joint_samples(key: str, models: Sequence[RowScores], protocol: Mapping[str, Any]) -> np.ndarray:
    """Returns bootstrap samples of one figure of several models over the same rows, float64 [samples, models]."""
    columns = np.stack([_scores(key, rows) for rows in models])
    rng = draws.generator(protocol["seed"], draws.BOOTSTRAP)
    if key == "GenKnow":  # images are independent: it is enough to know which models were right together, and how often
        bits = 1 << np.arange(len(models))
        often = np.bincount(bits @ columns.astype(np.int64), minlength=1 << len(models))
        counts = rng.multinomial(often.sum(), often / often.sum(), size=protocol["bootstrap"])
        together = (np.arange(len(often))[:, None] & bits) > 0
        return counts @ together / often.sum()
    identity = models[0][f"{_split(key)}.identity"].astype(np.int64)
    identity = np.where(identity < 0, -1 - np.arange(len(identity)), identity)  # no identity: each row is its own
    people, owner = np.unique(identity, return_inverse=True)
    sums = np.stack([np.bincount(owner, column, len(people)) for column in columns], axis=1)
    drawn = _counts(protocol["seed"], len(people), protocol["bootstrap"])
    return (drawn @ sums) / (drawn @ np.bincount(owner, minlength=len(people)))[:, None]


def _split(key: str) -> str:
    return next(split for name, split in _SPLITS.items() if key.startswith(name))


def _scores(key: str, rows: RowScores) -> np.ndarray:
    """Returns the score of each row, whose mean is the figure, float64 [N]."""
    if key == "GenKnow":
        return (rows["genknow.prediction"] == rows["genknow.label"]).astype(np.float64)
    if key.endswith("_MRR"):
        return 1.0 / rows[f"{_split(key)}.rank"].astype(np.float64)
    return rows[f"{_split(key)}.similarity"].astype(np.float64)


@functools.lru_cache(maxsize=4)
def _counts(seed: int, people: int, samples: int) -> np.ndarray:
    """Returns how often each sample holds each identity, float64 [samples, people]: as the intervals of metrics draw them."""
    drawn = draws.generator(seed, draws.BOOTSTRAP).multinomial(people, np.full(people, 1 / people), size=samples)
    counts = drawn.astype(np.float64)
    counts.setflags(write=False)
    return counts

"""Collects what verdicts rest on: the figures of a result, and intervals of the normalised statistics.

The intervals are those of a paired bootstrap. Each sample draws the same identities (GenKnow: images) for a method and
the references, and the statistic is computed within the sample. What the models share cancels, and the sampling error of the
references counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salmu_jax.evaluation import draws, intervals
from salmu_jax.evaluation.metric import Sample
from salmu_jax.evaluation.registry import BY_KEY
from salmu_jax.evaluation.result import leaderboard_row
from salmu_jax.evaluation.rows import RowScores
from salmu_jax.evaluation.statistics import FIGURES, STATISTICS


def figures(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the figures that verdicts use, from a result; None for one that was not measured or is not finite."""
    row = leaderboard_row(result)
    found = {key: row.get(key) for key in FIGURES}  # probes may not be known, or not measured
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
            have = [name for name in names if references[name].get(key) is not None]
            drawn = _joint_samples(key, [rows, *(reference_rows[name] for name in have)], protocol)
            for column, name in enumerate(["", *have]):
                samples[name][key] = drawn[:, column]
    tail = (1 - intervals.LEVEL) / 2
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
    """Returns bootstrap samples of one metric of several models over the same rows, float64 [samples, models]."""
    scores = [BY_KEY[key].sample(rows, protocol) for rows in models]
    draw = {"seed": protocol["seed"], "samples": protocol["bootstrap"]}
    if scores[0].clusters is None:
        return _independent_samples(scores, **draw)
    return np.stack([intervals.bootstrap(intervals.cluster(*one), **draw) for one in scores], axis=1)


def _independent_samples(scores: Sequence[Sample], *, seed: int, samples: int) -> np.ndarray:
    """Returns the same where rows are independent: it is enough to resample how often each combination of scores occurs."""
    together, often = np.unique(np.stack([one.values for one in scores]), axis=1, return_counts=True)
    counts = draws.generator(seed, draws.BOOTSTRAP).multinomial(often.sum(), often / often.sum(), size=samples)
    return counts @ together.T.astype(np.float64) / often.sum()

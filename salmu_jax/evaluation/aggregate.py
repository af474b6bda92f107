"""Computes every figure of a result from row scores: one pure function, which makes results and verifies them.

Nothing here depends on a model, a device or JAX: it uses numpy's float64 and the draws of the seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salmu_jax.evaluation import intervals, registry
from salmu_jax.evaluation.data import FIELDS
from salmu_jax.evaluation.metric import Metric, Sample, mean
from salmu_jax.evaluation.rows import TARGETS
from salmu_jax.runtime.errors import InputError

# The metrics that are broken down by attribute, and the split whose rows each is the mean of. Their intervals are in 'extra'.
BY_FIELD = {
    "RetFail_MRR": "forget",
    "AssocStr": "forget",
    "InterIdSim": "holdout_identity",
    "IntraIdSim": "holdout_association",
}

Figures = dict[str, Any]


def aggregate(
    rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any], metrics: Sequence[Metric] | None = None
) -> dict[str, Figures]:
    """Turns row scores into the ``efficacy``, ``utility``, ``extra`` and ``metrics`` of a result, as plain JSON values.

    Args:
      rows: of ``metrics``, the released ones among them.
      protocol: of the result; its ``seed`` and ``bootstrap`` are what the figures depend on.
      metrics: None: those that ``protocol`` names and this version knows.

    Raises InputError naming a metric that fails, or whose value is no finite number.
    """
    metrics = registry.measured(protocol) if metrics is None else metrics
    samples = {metric.key: _sample(metric, rows, protocol) for metric in metrics}
    figures = {metric.key: _figure(metric, samples[metric.key], protocol) for metric in metrics}
    sections: dict[str, Figures] = {"efficacy": {}, "utility": {}, "extra": {"retrieval": {}}}
    for metric in metrics:
        value = figures[metric.key]["value"]
        if metric.released:
            _put(sections, metric.released, metric.skipped if value is None else value)
            if metric.released_rows:
                field, column = metric.released_rows
                _put(sections, (*metric.released[:-1], field), _listed(rows[column]))
        elif metric.extra and (value is not None or len(metric.extra) == 1):  # a split without rows has no retrieval
            _put(sections, ("extra", *metric.extra), value)
    sections["extra"] |= {
        "by_field": _by_field(rows, samples),
        "intervals": {key: figures[key]["interval"] for key in BY_FIELD if figures[key]["interval"]},
    }
    return {**sections, "metrics": figures}


def _sample(metric: Metric, rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> Sample:
    with metric.named():
        return metric.sample(rows, protocol)


def _figure(metric: Metric, sample: Sample, protocol: Mapping[str, Any]) -> Figures:
    """Returns a metric's entry in ``metrics``: its value, interval, rows, clusters and target."""
    with metric.named():
        value, interval, clusters = mean(sample.values), None, 0
        if value is not None:
            if not math.isfinite(value):
                raise InputError(f"its value is {value}", f"metric {metric.key!r}")
            grouped = intervals.cluster(*sample)
            clusters = grouped.total
            if samples := protocol["bootstrap"]:
                means = intervals.bootstrap(grouped, seed=protocol["seed"], samples=samples)
                interval = list(intervals.percentiles(means))
    return {
        "value": value,
        "interval": interval,
        "rows": len(sample.values),
        "clusters": clusters,
        "target": metric.target,
    }


def _put(tree: Figures, path: tuple[str, ...], value: Any) -> None:
    *parents, last = path
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value


def _listed(column: np.ndarray) -> list[int] | list[float]:
    """Returns Python numbers; floats with the shortest decimals that round to the same float32, half the file's size."""
    if column.dtype.kind != "f":
        return column.tolist()
    return [float(str(score)) for score in column.astype(np.float32, copy=False)]


def _by_field(
    rows: Mapping[str, np.ndarray], samples: Mapping[str, Sample]
) -> dict[str, dict[str, float | int | None]]:
    """Returns :data:`BY_FIELD` for each kind of attribute, which a mean over all rows can hide (None: no such rows)."""
    found: dict[str, dict[str, float | int | None]] = {}
    for code, field in enumerate(FIELDS):
        chosen = {split: rows[f"{split}.data_field"] == code for split in TARGETS}
        if any(rows_of.any() for rows_of in chosen.values()):
            means = {key: mean(samples[key].values[chosen[split]]) for key, split in BY_FIELD.items()}
            found[field] = {**means, "rows": int(chosen["forget"].sum())}
    return found

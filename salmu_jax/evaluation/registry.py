"""Lists the metrics that every evaluation measures, and what follows from the list.

A new metric is a file in ``metrics/`` and two lines here. It is appended, so that embeddings and draws of the others stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from salmu_jax.evaluation.metric import Metric
from salmu_jax.evaluation.metrics import (
    acs,
    assocstr,
    coreassoc,
    fragsim,
    genknow,
    holdout_retrieval,
    idzsc,
    interidsim,
    intraidsim,
    retain_similarity,
    retfail,
    sensitive_over_generic,
    visidint,
)
from salmu_jax.evaluation.rows import DATA_COLUMNS, Column

METRICS: tuple[Metric, ...] = (
    retfail.MRR,
    retfail.RECALL,
    assocstr.METRIC,
    acs.METRIC,
    idzsc.METRIC,
    coreassoc.METRIC,
    genknow.METRIC,
    interidsim.METRIC,
    intraidsim.METRIC,
    visidint.METRIC,
    fragsim.METRIC,
    *holdout_retrieval.METRICS,
    retain_similarity.METRIC,
    sensitive_over_generic.METRIC,
)
BY_KEY: dict[str, Metric] = {metric.key: metric for metric in METRICS}
# The figures of the released evaluator's structure, in the order of the leaderboard.
RELEASED: tuple[Metric, ...] = tuple(metric for metric in METRICS if metric.released)
# What every result has: results of schema 2, which do not say what was measured, have these alone, in version 1.
REQUIRED: tuple[Metric, ...] = tuple(metric for metric in METRICS if metric.released or metric.extra)
SCHEMA_2: dict[str, int] = {metric.key: 1 for metric in REQUIRED}


def versions(metrics: Sequence[Metric]) -> dict[str, int]:
    """Returns what a result records of its metrics, its ``protocol > metrics``: the version of each by its key."""
    return {metric.key: metric.version for metric in metrics}


def measured(protocol: Mapping[str, Any]) -> list[Metric]:
    """Returns the metrics of a result that this version knows, in the order of :data:`METRICS`."""
    found = protocol.get("metrics", SCHEMA_2)
    return [metric for metric in METRICS if found.get(metric.key) == metric.version]


def unknown(protocol: Mapping[str, Any]) -> list[str]:
    """Returns the keys of a result's metrics that this version does not know, or knows in another version."""
    known = {metric.key for metric in measured(protocol)}
    return [key for key in protocol.get("metrics", ()) if key not in known]


def columns_of(metrics: Sequence[Metric]) -> dict[str, Column]:
    """Returns the row scores of ``metrics``, those that describe the rows first.

    Raises ValueError for two metrics that describe one column differently.
    """
    columns = dict(DATA_COLUMNS)
    for metric in metrics:
        for name, column in metric.columns.items():
            if columns.setdefault(name, column) != column:
                raise ValueError(f"metric {metric.key!r}: column {name!r} is {column}, elsewhere {columns[name]}")
    return columns


COLUMNS = columns_of(METRICS)

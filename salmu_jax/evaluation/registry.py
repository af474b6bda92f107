"""Lists the metrics that every evaluation measures, the probes that a config chooses from, and what follows from the lists.

A new metric is a file in ``metrics/`` and two lines here, a new probe a file in ``probes/``, two lines here, and its name in
``config_fields.py``. It is appended, so that embeddings and draws of the others stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from salmu_jax.evaluation.metric import FULL, Metric
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
from salmu_jax.evaluation.probes import (
    holdout_paraphrase,
    indirect,
    membership,
    relearn,
    weights,
    which_forgotten,
)
from salmu_jax.evaluation.rows import DATA_COLUMNS, Column
from salmu_jax.evaluation.subsets import with_subsets
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.text import safe_text

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
# The metrics of each probe, which are measured where ``evaluate.probes`` names it.
PROBES: dict[str, tuple[Metric, ...]] = {
    indirect.PROBE: indirect.METRICS,
    holdout_paraphrase.PROBE: holdout_paraphrase.METRICS,
    membership.PROBE: membership.METRICS,
    which_forgotten.PROBE: (which_forgotten.METRIC,),
    relearn.PROBE: relearn.METRICS,
    weights.PROBE: weights.METRICS,
}
KNOWN: tuple[Metric, ...] = with_subsets((*METRICS, *(metric for probe in PROBES.values() for metric in probe)))
BY_KEY: dict[str, Metric] = {metric.key: metric for metric in KNOWN}
# The figures of the released evaluator's structure, in the order of the leaderboard.
RELEASED: tuple[Metric, ...] = tuple(metric for metric in METRICS if metric.released)
# What every result has: results of schema 2, which do not say what was measured, have these alone, in version 1.
REQUIRED: tuple[Metric, ...] = tuple(metric for metric in METRICS if metric.released or metric.extra)
SCHEMA_2: dict[str, int] = {metric.key: 1 for metric in REQUIRED}


def chosen(options: Any) -> tuple[Metric, ...]:
    """Returns what an evaluation measures: all of :data:`METRICS`, then the probes that ``options.probes`` names, and then
    both by subsets of people.

    ``options`` is the config's section ``evaluate``. The order is that of :data:`PROBES`. Raises InputError for an unknown
    probe.
    """
    if strange := [name for name in options.probes if name not in PROBES]:
        possible = ", ".join(PROBES) or "none"
        raise InputError(f"names no probe {safe_text(strange[0], 40)!r}; there are: {possible}", "evaluate.probes")
    probes = [metric for name, probe in PROBES.items() if name in options.probes for metric in probe]
    asked = [metric for metric in probes if options.probe_form == FULL or not metric.only_full]
    keys = {metric.key for metric in (*METRICS, *asked)}
    return tuple(metric for metric in KNOWN if (metric.of or metric.key) in keys)


def versions(metrics: Sequence[Metric]) -> dict[str, int]:
    """Returns what a result records of its metrics, its ``protocol > metrics``: the version of each by its key."""
    return {metric.key: metric.version for metric in metrics}


def measured(protocol: Mapping[str, Any]) -> list[Metric]:
    """Returns the metrics of a result that this version knows, in the order of :data:`KNOWN`."""
    found = protocol.get("metrics", SCHEMA_2)
    return [metric for metric in KNOWN if found.get(metric.key) == metric.version]


def comparable(protocol: Mapping[str, Any], other: Mapping[str, Any]) -> list[Metric]:
    """Returns the metrics that two results have measured alike, in the order of :data:`KNOWN`."""
    theirs = measured(other)
    return [metric for metric in measured(protocol) if metric in theirs and same_form(metric, protocol, other)]


def same_form(metric: Metric, protocol: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Returns whether no difference between two results' ``probe_form`` keeps their values of ``metric`` apart."""
    return not metric.by_form or protocol.get("probe_form") == other.get("probe_form")


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


COLUMNS = columns_of(KNOWN)

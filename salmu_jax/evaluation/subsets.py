"""Restricts metrics of ``forget`` to the people who are to be forgotten whole, or in part.

What may go on being known differs between the two. All associations of a person forgotten *whole* are in ``forget``; of a
person forgotten *in part*, the others are in ``holdout_association``, and who knows those also finds the forgotten ones more
easily (``docs/retrained.md``).

A restricted metric is a metric like others, with the key ``KEY@whole`` or ``KEY@part``: the rows of the others are left out of
the columns of ``forget``, and the metric's own ``sample`` is taken of what is left. So a largest value is that of the subset,
and value, interval, comparison and verification follow as for any metric. Galleries and draws stay as they were measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salmu_jax.evaluation.metric import Metric, Sample
from salmu_jax.evaluation.rows import DATA_COLUMNS

WHOLE, PART = "whole", "part"
TITLES = {WHOLE: "forgotten whole", PART: "forgotten in part"}
_SPLIT = "forget"


def on_subset(key: str, subset: str) -> str:
    """Returns the key of a metric on the people of one subset: ``RetFail_MRR@whole``."""
    return f"{key}@{subset}"


def rows_of(rows: Mapping[str, np.ndarray], subset: str) -> np.ndarray:
    """Returns whether each row of ``forget`` is of a person of ``subset``, bool [N]; a row of nobody is in neither."""
    identity = rows[f"{_SPLIT}.identity"]
    in_part = np.isin(identity, rows["holdout_association.identity"])
    return (identity >= 0) & (in_part if subset == PART else ~in_part)


def is_of_forget(metric: Metric) -> bool:
    """Returns whether a metric scores each row of ``forget``."""
    return any(column.length == _SPLIT for column in metric.columns.values())


def restricted(metric: Metric) -> tuple[Metric, ...]:
    """Returns the metric on each subset of people; none if it does not score each row of ``forget``.

    The target of people forgotten in part is not Clean, and not Compromised: they have none among these two.
    """
    return tuple(_restrict(metric, subset) for subset in TITLES) if is_of_forget(metric) else ()


def with_subsets(metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """Returns ``metrics``, then those of them that can be restricted, on each subset of people."""
    return (*metrics, *(part for metric in metrics for part in restricted(metric)))


def _restrict(metric: Metric, subset: str) -> Metric:
    columns = {**DATA_COLUMNS, **metric.columns}
    names = [name for name, column in columns.items() if column.length == _SPLIT]

    def restrict(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        chosen = rows_of(rows, subset)
        return {**rows, **{name: rows[name][chosen] for name in names}}

    def sample(rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> Sample:
        return metric.sample(restrict(rows), protocol)

    def slack(rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> float:
        return metric.slack(restrict(rows), protocol) if metric.slack else 0.0

    return dataclasses.replace(
        metric,
        key=on_subset(metric.key, subset),
        of=metric.key,
        title=f"{metric.title}, {TITLES[subset]}",
        description=f"{metric.description} Of people {TITLES[subset]}.",
        target=metric.target if subset == WHOLE else None,
        columns={},  # those of the metric itself
        texts=lambda data, settings: {},
        score=lambda inputs: {},
        sample=sample,
        slack=slack,
        released=None,
        released_rows=None,
        extra=None,
        skipped=None,
        variants=None,
        check=None,
    )

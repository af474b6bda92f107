"""Collects what a result's page shows of recoverability: relearning curves, and RetFail with other weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from salmu_jax.evaluation import intervals
from salmu_jax.evaluation.metric import Sample
from salmu_jax.evaluation.probes import relearn, weights
from salmu_jax.evaluation.subsets import TITLES, rows_of
from salmu_jax.report import charts
from salmu_jax.report.gather import Entry
from salmu_jax.report.site import Row, Site, digits
from salmu_jax.report.titles import row_title


def recovery(site: Site, row: Row) -> dict[str, Any]:
    """Returns a result's relearning curves by subset of people, and RetFail with each change of weights.

    Both have the references beside it, as far as they were measured in the same form. Empty where neither was measured.
    """
    others = [other for other in site.board["rows"] if other["role"] != "method" and other is not row]
    panels, about = _curves(site, row, others), {}
    if panels:
        entry = site.entries[row["model"]]
        given = relearn.HEADLINE, entry.rows, entry.result["protocol"]
        about = {"rate": f"{relearn.strongest_rate(*given):g}", "share": relearn.HEADLINE.percent}
    table = _weights(row, others)
    return {"panels": panels, **about, "weights": table} if panels or table else {}


def _curves(site: Site, row: Row, others: list[Row]) -> list[dict[str, Any]]:
    """Returns a panel for each subset of people: the curve of 10 % of the rows, with its interval."""
    shown = {other["role"]: site.entries[other["model"]] for other in others if _has(other)}
    panels = []
    for subset, title in TITLES.items() if _has(row) else ():
        own = _points(site.entries[row["model"]], subset)
        if not len(own[0].values):
            continue
        protocol = site.entries[row["model"]].result["protocol"]
        lines = {role: _means(_points(entry, subset)) for role, entry in shown.items()}
        chart = charts.curves(_means(own), _intervals(own, protocol), lines)
        highest = max(one.values.mean() for one in own.values())
        panels.append({**chart, "title": title, "highest": float(highest)})
    return panels


def _has(row: Row) -> bool:
    return row["metrics"].get("Relearn") is not None


def _points(entry: Entry, subset: str) -> dict[int, Sample]:
    return relearn.curve(relearn.HEADLINE, entry.rows, entry.result["protocol"], rows_of(entry.rows, subset))


def _means(points: Mapping[int, Sample]) -> dict[int, float]:
    return {step: float(np.mean(one.values)) for step, one in points.items()}


def _intervals(points: Mapping[int, Sample], protocol: Mapping[str, Any]) -> dict[int, tuple[float, float]]:
    """Returns the 95 % interval at each step, over identities; none without a bootstrap."""
    if not protocol["bootstrap"]:
        return {}
    draw = {"seed": protocol["seed"], "samples": protocol["bootstrap"]}
    return {step: intervals.clustered_interval(*one, **draw) for step, one in points.items()}


def _weights(row: Row, others: list[Row]) -> dict[str, Any]:
    """Returns RetFail of a result and of the references as they are, and with each change of weights that was measured."""
    measured = [metric for metric in weights.METRICS if row["metrics"].get(metric.key) is not None]
    if not measured:
        return {}
    keys = {"RetFail_MRR": "as they are", **{metric.key: metric.title.partition(", ")[2] for metric in measured}}
    models = [row, *others]
    return {
        "models": [{"title": row_title(model), "role": model["role"]} for model in models],
        "rows": [
            {"title": title, "values": [(model["metrics"].get(key), digits(key)) for model in models]}
            for key, title in keys.items()
        ],
    }

"""Computes intervals of the difference of each result to each reference, over the same rows."""

from __future__ import annotations

from collections.abc import Sequence

from salmu_jax.evaluation import intervals
from salmu_jax.evaluation.checks import REFERENCES
from salmu_jax.evaluation.compare import row_differences
from salmu_jax.evaluation.metric import Metric, Sample
from salmu_jax.evaluation.registry import comparable, measured
from salmu_jax.foundation import RETRAINED
from salmu_jax.report.gather import Entry

Intervals = dict[str, dict[str, tuple[float, float]]]  # reference -> metric -> (low, high)


def difference_intervals(entries: Sequence[Entry]) -> dict[str, Intervals]:
    """Returns the 95 % interval of each result less each reference, by the entry's id.

    There are intervals of the metrics that both have in the same form: of those with a target, and for Retrained of all, by
    subset of people too. The other references are compared with Retrained alone.

    As in ``salmu compare``, the difference is that of the means over rows (``row_micro``), and identities are resampled in
    both models alike. There are none where the protocol has no bootstrap.
    """
    references = [entry for entry in entries if entry.id in REFERENCES]
    of_all = any(entry.id == RETRAINED for entry in references)
    samples = {entry.id: _samples(entry, of_all) for entry in references}
    found: dict[str, Intervals] = {}
    for entry in entries:
        own = samples.get(entry.id) or _samples(entry, of_all)
        against = [r for r in references if r is not entry and (entry.id not in samples or r.id == RETRAINED)]
        found[entry.id] = {other.id: _compare(entry, own, other, samples[other.id]) for other in against}
    return found


def _samples(entry: Entry, of_all: bool) -> dict[str, Sample]:
    """Returns the samples of all metrics of a result, or of those with a target alone."""
    protocol = entry.result["protocol"]
    if not protocol["bootstrap"]:
        return {}
    asked = [metric for metric in measured(protocol) if of_all or _has_target(metric)]
    return {metric.key: metric.sample(entry.rows, protocol) for metric in asked}


def _compare(
    entry: Entry, own: dict[str, Sample], reference: Entry, others: dict[str, Sample]
) -> dict[str, tuple[float, float]]:
    protocol = entry.result["protocol"]
    found = {}
    for metric in comparable(protocol, reference.result["protocol"]):
        if metric.key in own and metric.key in others and (reference.id == RETRAINED or _has_target(metric)):
            differences = row_differences(own[metric.key], others[metric.key])
            if len(differences):
                found[metric.key] = intervals.clustered_interval(
                    differences, own[metric.key].clusters, seed=protocol["seed"], samples=protocol["bootstrap"]
                )
    return found


def _has_target(metric: Metric) -> bool:
    return metric.target is not None and metric.of is None

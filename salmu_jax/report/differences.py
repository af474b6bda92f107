"""Computes intervals of the difference of each result to each reference, over the same rows."""

from __future__ import annotations

from collections.abc import Sequence

from salmu_jax.evaluation import intervals
from salmu_jax.evaluation.checks import REFERENCES
from salmu_jax.evaluation.compare import row_differences
from salmu_jax.evaluation.metric import Sample
from salmu_jax.evaluation.registry import comparable, measured
from salmu_jax.report.gather import Entry

Intervals = dict[str, dict[str, tuple[float, float]]]  # reference -> metric -> (low, high)


def difference_intervals(entries: Sequence[Entry]) -> dict[str, Intervals]:
    """Returns the 95 % interval of each result less each reference, by the entry's id.

    There are intervals of the metrics that have a target and that both have in the same form.

    As in ``salmu compare``, the difference is that of the means over rows (``row_micro``), and identities are resampled in
    both models alike. There are none where the protocol has no bootstrap.
    """
    references = {entry.id: (entry, _samples(entry)) for entry in entries if entry.id in REFERENCES}
    return {
        entry.id: {name: _compare(entry, *other) for name, other in references.items()}
        for entry in entries
        if entry.id not in references
    }


def _samples(entry: Entry) -> dict[str, Sample]:
    protocol = entry.result["protocol"]
    if not protocol["bootstrap"]:
        return {}
    return {metric.key: metric.sample(entry.rows, protocol) for metric in measured(protocol) if metric.target}


def _compare(entry: Entry, reference: Entry, samples: dict[str, Sample]) -> dict[str, tuple[float, float]]:
    protocol, own = entry.result["protocol"], _samples(entry)
    found = {}
    alike = {metric.key for metric in comparable(protocol, reference.result["protocol"])}
    for key in own.keys() & samples.keys() & alike:
        differences = row_differences(own[key], samples[key])
        if len(differences):
            found[key] = intervals.clustered_interval(
                differences, own[key].clusters, seed=protocol["seed"], samples=protocol["bootstrap"]
            )
    return found

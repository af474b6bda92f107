"""Judges metrics by models of which it is known what they were trained on: which figures deserve trust?

The questions are OpenUnlearning's (2506.12618), the answers areas under the ROC curve: the chance that a model that was
trained on ``forget`` has a higher value than one that was not. 1 is a metric that tells them apart, 0.5 one that does not see
the difference. Models that were trained on a share of ``forget`` ask more: is a little seen, and is more of it more?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salmu_jax.evaluation.auc import auc_scores
from salmu_jax.evaluation.intervals import clustered_interval
from salmu_jax.evaluation.registry import BY_KEY
from salmu_jax.foundation import CLEAN, COMPROMISED, RETRAINED

KINDS = (COMPROMISED, CLEAN, RETRAINED)
UNTREATED = "as trained"
LITTLE = 0.25  # the largest share of forget that counts as a little
Record = Mapping[str, Any]
"""``kind``: the foundation model that it is one of; ``share`` of forget's pairs, and ``epochs``, that it was trained on;
``values``: of each metric, by treatment; None: not measured."""


def assess(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Returns an entry a metric, the most trustworthy first.

    An entry has, each with its ``interval``, ``auc`` of the models that were trained on all of forget, as they were trained,
    against those of the kinds Clean and Retrained; ``little``, the area of those that were trained on at most a quarter of it
    against Retrained; ``order``, Spearman's correlation of the value with the share, from Retrained's none to all, the mean
    over the numbers of epochs; of each treatment, ``auc`` of all of forget against none and ``correlation``, Spearman's, of
    the values before and after; and the ``lowest`` of the areas between all of forget and none. A metric that some model
    has no value of is left out.
    """
    kinds, shares = _column(records, "kind"), _column(records, "share")
    all_, none = shares == 1, shares == 0
    little = (shares > 0) & (shares <= LITTLE)
    entries = []
    for key in records[0]["values"][UNTREATED]:
        values = {
            name: _floats([record["values"][name].get(key) for record in records]) for name in records[0]["values"]
        }
        before = values.pop(UNTREATED)
        if before is None:
            continue
        entry: dict[str, Any] = {"metric": key, "against": {}, "after": {}}
        for kind in (CLEAN, RETRAINED):
            if (kinds == kind).any():
                entry["against"][kind] = _area(before[all_], before[kinds == kind])
        if little.any() and (kinds == RETRAINED).any():
            entry["little"] = _area(before[little], before[kinds == RETRAINED])
            entry["order"] = _order(before, shares, _column(records, "epochs"), kinds != CLEAN)
        for name, after in values.items():
            if after is not None:
                area = _area(after[all_], after[none])
                entry["after"][name] = {**area, "correlation": spearman(before, after)}
        entry["lowest"] = min(one["auc"] for part in ("against", "after") for one in entry[part].values())
        entries.append(entry)
    return sorted(entries, key=lambda entry: -entry["lowest"])


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Returns the correlation of the ranks of two float64 [N], ties having their mean rank; None if one is constant."""
    ranks = np.stack([_ranks(values) for values in (first, second)])
    return None if (np.ptp(ranks, axis=1) == 0).any() else float(np.corrcoef(ranks)[0, 1])


def markdown(entries: Sequence[Mapping[str, Any]], records: Sequence[Record], about: str) -> str:
    """Returns a table of the metrics, those of forgetting first; figures by subset of people are in the JSON alone."""
    kinds, shares = _column(records, "kind"), _column(records, "share")
    counts = {kind: int(((kinds == kind) & (shares == (kind == COMPROMISED))).sum()) for kind in KINDS}
    partly = len(records) - sum(counts.values())
    shown = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    shown += f", {partly} trained on a share of forget" if partly else ""
    treatments = list(dict.fromkeys(name for entry in entries for name in entry["after"]))
    further = ["a little", "order"] if partly else []
    head = [
        "metric",
        "against Clean",
        "against Retrained",
        *further,
        *(f"after {name}" for name in treatments),
        "lowest",
    ]
    lines = [f"{len(records)} models ({shown}); {about}.", ""]
    for title, target in (("Metrics of forgetting", "clean"), ("Metrics of utility", "compromised")):
        lines += [f"**{title}**", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for entry in entries:
            metric = BY_KEY[entry["metric"]]
            if metric.target == target and metric.of is None:
                cells = [_shown(entry["against"].get(kind)) for kind in (CLEAN, RETRAINED)]
                if partly:
                    order = entry.get("order")
                    cells += [_shown(entry.get("little")), "" if order is None else f"{order:.2f}"]
                cells += [_shown(entry["after"].get(name)) for name in treatments]
                lines.append(f"| {' | '.join([metric.title, *cells, format(entry['lowest'], '.2f')])} |")
        lines.append("")
    return "\n".join(lines)


def _order(values: np.ndarray, shares: np.ndarray, epochs: np.ndarray, counted: np.ndarray) -> float | None:
    """Returns the mean over ``epochs`` of the correlation of ranks; None if a number of epochs has none."""
    groups = [counted & (epochs == number) for number in np.unique(epochs[counted])]
    found = [spearman(values[group], shares[group]) for group in groups]
    correlations = [one for one in found if one is not None]
    return float(np.mean(correlations)) if len(correlations) == len(found) else None


def _column(records: Sequence[Record], key: str) -> np.ndarray:
    return np.array([record[key] for record in records])


def _area(knowing: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    scores = np.concatenate(auc_scores(knowing, others, np.zeros(len(knowing)), np.zeros(len(others))))
    return {"auc": float(scores.mean()), "interval": list(clustered_interval(scores, None, seed=0))}


def _floats(values: Sequence[float | None]) -> np.ndarray | None:
    return None if any(value is None for value in values) else np.array(values, np.float64)


def _ranks(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") - 1) / 2


def _shown(area: Mapping[str, Any] | None) -> str:
    if area is None:
        return ""
    correlation = area.get("correlation")
    return f"{area['auc']:.2f}" + (f" ({correlation:.2f})" if correlation is not None else "")

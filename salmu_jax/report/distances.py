"""Adds to a leaderboard how far each result is from Retrained, on either side: figure by figure, and by subset of people.

Retrained is what exact unlearning would give, so a figure may be wrong by being too low as well as too high. The published
targets stay beside it. Without a result of Retrained, the board says which of them are too strict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salmu_jax.evaluation.registry import BY_KEY, KNOWN
from salmu_jax.evaluation.subsets import TITLES, on_subset
from salmu_jax.foundation import RETRAINED
from salmu_jax.report.differences import Intervals

ALL = "all"
PEOPLE = {ALL: "all", **TITLES}
WITHOUT = (
    "No model Retrained was evaluated, so the targets of RetFail, AssocStr, ACS and CoreAssoc, which are Clean's figures, are "
    "too strict for people forgotten in part. Whoever may go on knowing the name and the job of a face ranks all captions "
    "with this name above those of strangers, also captions never seen; Clean has learnt neither the name nor the job."
)
WITH = (
    "Retrained was trained on everything but forget, as exact unlearning would leave it. Each figure is given less "
    "Retrained's, with a paired 95% interval: below and above are both wrong."
)


def add_distances(board: Mapping[str, Any], differences: Mapping[str, Intervals]) -> dict[str, Any]:
    """Returns the leaderboard with ``retrained``, what it says of the third reference, and ``to_retrained`` in every row.

    ``to_retrained`` has, by metric and people (``all``, ``whole``, ``part``), the result's ``value``, Retrained's, the
    ``difference`` and its ``interval`` (None: no bootstrap). It is None where there is no Retrained, and in its own row.

    Args:
      board: with its rows.
      differences: of :func:`salmu_jax.report.differences.difference_intervals`.
    """
    aim = next((row for row in board["rows"] if row["role"] == RETRAINED), None)
    rows = [
        {
            **row,
            "to_retrained": None
            if aim is None or row is aim
            else _distances(row, aim, differences.get(row["model"], {}).get(RETRAINED, {})),
        }
        for row in board["rows"]
    ]
    said = {"evaluated": aim is not None, "note": WITH if aim else WITHOUT}
    return {**board, "retrained": said, "rows": rows}


def _distances(
    row: Mapping[str, Any], aim: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]]
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for metric in KNOWN:
        if metric.of:
            continue
        for people in PEOPLE:
            key = metric.key if people == ALL else on_subset(metric.key, people)
            own, other = row["metrics"].get(key), aim["metrics"].get(key)
            if key in BY_KEY and own is not None and other is not None:
                interval = intervals.get(key)
                found.setdefault(metric.key, {})[people] = {
                    "value": own,
                    "retrained": other,
                    "difference": own - other,
                    "interval": list(interval) if interval else None,
                }
    return found

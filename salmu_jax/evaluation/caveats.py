"""Lists the caveats of a result, which follow from its protocol and figures: what to know before comparing the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salmu_jax.evaluation.data import IMAGENET_SIZE, PUBLISHED_ROWS
from salmu_jax.evaluation.registry import measured
from salmu_jax.evaluation.rows import POOL_SIZE

TIES = (
    "rank = 1 + captions more similar than the own one + half of the ties, rounded down (a tie is a difference of at"
    " most 1e-6); pool captions with the same text as the own caption are left out"
)
_METRIC_OF = {
    "holdout_identity": "InterIdSim",
    "holdout_association": "IntraIdSim",
    "forget_identity": "IdZSC",
    "retain_joint": "VisIdInt",
    "fragile_set": "FragSim",
}


def caveats(protocol: Mapping[str, Any], figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the caveats of a result with this ``protocol`` and these figures, its ``metrics``."""
    rows, task = protocol["rows"], protocol["genknow"]
    found = []
    if protocol["made"] or any(rows[split] != count for split, count in PUBLISHED_ROWS.items()):
        world = "a made world of procedural portraits" if protocol["made"] else "other data than the released ones"
        found.append(
            f"Measured on {world} ({rows['forget']:,} forget rows; released: {PUBLISHED_ROWS['forget']:,}). These are"
            " not the paper's figures and cannot be compared with them; compare models within this world only."
        )
    if protocol["gallery"] < 1 + 2 * POOL_SIZE:
        found.append(
            f"The retrieval gallery holds {protocol['gallery']:,} captions ({protocol['gallery_forget']:,} of forget,"
            f" {protocol['gallery_retain']:,} of retain_disjoint) instead of 2,001: ranks are easier than the published"
            " ones."
        )
    if task["dataset"] is not None and (task["classes"], task["images"]) != IMAGENET_SIZE:  # anybody can write its name
        found.append(
            f"GenKnow is the accuracy on '{task['dataset']}' ({task['classes']:,} classes), not on ImageNet-1k: the key"
            " ImageNet1k_Accuracy is kept for the released format's sake."
        )
    found += not_measured(protocol, figures)
    found.append(
        "Not public, and chosen here: ACS has the similarity as its only feature; the prompt of IdZSC; how ties and"
        " equal captions are ranked."
    )
    return found


def not_measured(protocol: Mapping[str, Any], figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a line for each reason why a metric has no value. Metrics by subset of people go without saying."""
    found = []
    if protocol["genknow"]["dataset"] is None:
        found.append(
            "GenKnow was skipped (-1): there is no zero-shot data set, so lost utility cannot be judged by it."
        )
    found += [
        f"{metric} was not measured: {part} has no rows."
        for part, metric in _METRIC_OF.items()
        if not protocol["rows"][part]
    ]
    lacking: dict[str, list[str]] = {}
    for metric in measured(protocol):
        if metric.none_because and not metric.of and figures.get(metric.key, {}).get("value") is None:
            lacking.setdefault(metric.none_because, []).append(metric.key)
    for reason, keys in lacking.items():
        found.append(f"{', '.join(keys)} {'was' if len(keys) == 1 else 'were'} not measured: {reason}.")
    return found

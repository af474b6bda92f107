"""Collects what the pages of a report share: file names, histograms, verdicts as chips, and how many digits figures have."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from salmu_jax.evaluation.registry import PROBES
from salmu_jax.evaluation.verdicts import FAILURE_MODES, PRECISE, UNDETERMINED, unqualified
from salmu_jax.report import charts
from salmu_jax.report.gather import Entry
from salmu_jax.report.titles import row_title

Board = Mapping[str, Any]
Row = Mapping[str, Any]

_SPLIT_WORDS = {
    "forget": ("forget", "should move to Clean"),
    "holdout_association": ("holdout_association", "should stay at Compromised"),
    "holdout_identity": ("holdout_identity", "should stay at Compromised"),
}
_PROBED = {metric.key for probe in PROBES.values() for metric in probe}


class Site(NamedTuple):
    """All that pages are made from."""

    board: Board  # with groups
    entries: Mapping[str, Entry]  # by id
    pages: Mapping[str, str]  # id -> file name below models/
    edges: np.ndarray  # of the histograms
    histograms: Mapping[str, Mapping[str, np.ndarray]]  # id -> split -> shares
    differences: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]  # id -> reference -> metric -> interval


def make_site(board: Board, entries: Sequence[Entry], differences: Mapping[str, Any] | None = None) -> Site:
    """Collects what pages share: file names, histograms over common bins, differences to the references."""
    edges = charts.bin_edges(entry.similarity for entry in entries)
    return Site(
        board,
        {entry.id: entry for entry in entries},
        page_names([row["model"] for row in board["rows"]]),
        edges,
        {
            entry.id: {split: charts.shares(entry.similarity[split], edges) for split in charts.SPLITS}
            for entry in entries
        },
        differences or {},
    )


def page_names(ids: Sequence[str]) -> dict[str, str]:
    """Returns a file name for each id: letters, digits, ``.``, ``_`` and ``-``, different even without their case."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for one in ids:
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", one).strip("-.")[:80] or "model"
        name = next(
            candidate
            for candidate in itertools.chain([slug], (f"{slug}-{number}" for number in itertools.count(2)))
            if candidate.lower() not in taken
        )
        taken.add(name.lower())
        found[one] = f"{name}.html"
    return found


def digits(key: str) -> int:
    """Returns how many digits a metric is shown with: RetFail's are small, and so are those of probes."""
    of = key.partition("@")[0]
    return 4 if of.startswith("RetFail") or of in _PROBED else 3


def chip(row: Row, verdict: str) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "style": verdict_style(verdict),
        "share": "",
        "doubt": unqualified(verdict) in doubtful(row),
    }


def reasons(row: Row) -> list[dict[str, Any]]:
    """Returns the verdicts of a result, each with its reason."""
    pairs = itertools.zip_longest(row["verdicts"], row["reasons"], fillvalue="")
    return [{**chip(row, verdict), "reason": reason} for verdict, reason in pairs]


def doubtful(row: Row) -> set[str]:
    """Returns the verdicts of a result whose lines lie within the intervals of their statistics."""
    return {one["verdict"] for one in row["straddles"] if one["holds"]}


def verdict_style(verdict: str) -> str:
    """Returns the class of a verdict's chip."""
    if verdict in FAILURE_MODES:
        return f"mode{FAILURE_MODES.index(verdict)}"
    return {PRECISE: "good", UNDETERMINED: "open"}.get(verdict, "grade")


def histograms(site: Site, shares: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    ids = {row["role"]: row["model"] for row in site.board["rows"] if row["role"] != "method"}
    panels = []
    for split in charts.SPLITS:
        clean, compromised = (site.histograms[ids[role]][split] for role in ("clean", "compromised"))
        target = "clean" if split == "forget" else "compromised"
        aim = mean_similarity(site, ids[target], split)
        title, goal = _SPLIT_WORDS[split]
        chart = charts.histogram(shares[split], clean, compromised, site.edges, aim)
        panels.append({**chart, "split": title, "goal": goal, "target": target, "aim_value": aim})
    return panels


def mean_similarity(site: Site, one: str, split: str) -> float | None:
    """Returns the mean cosine of a result's split, None if it has no rows."""
    values = site.entries[one].similarity[split]
    return float(np.mean(values, dtype=np.float64)) if len(values) else None


def seed_label(row: Row) -> str:
    seed = (row["run"] or {}).get("seed")
    return f"seed {seed}" if seed is not None else row["model"]


def full_title(row: Row) -> str:
    label = seed_label(row)
    return f"{row_title(row)}, {label}" if (row["run"] or {}).get("seed") is not None else row_title(row)

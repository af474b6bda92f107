"""Collects what the first page shows, as plain values. The template has the words, these functions the figures in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salmu_jax.evaluation.registry import BY_KEY
from salmu_jax.evaluation.subsets import PART, WHOLE
from salmu_jax.evaluation.verdicts import FAILURE_MODES, UNDETERMINED, unqualified
from salmu_jax.foundation import BY_NAME, CLEAN, RETRAINED, TITLES
from salmu_jax.report import charts
from salmu_jax.report.distances import ALL, PEOPLE
from salmu_jax.report.findings import findings
from salmu_jax.report.groups import grouped
from salmu_jax.report.site import Board, Row, Site, digits, doubtful, histograms, reasons, verdict_style
from salmu_jax.report.table import describe_measurement
from salmu_jax.report.titles import row_title

FEW = 24  # groups; with more, the charts of each are left to the models' pages
# The figures of the first page by people: what to forget, asked in three ways, and what to keep.
_COMPACT = (
    *((key, people) for key in ("RetFail_MRR", "IndirectLeak", "Relearn") for people in (WHOLE, PART)),
    *((key, ALL) for key in ("ACS", "GenKnow", "InterIdSim", "IntraIdSim", "InterIdRet_MRR", "IntraIdRet_MRR")),
)
_SHAPES = ("triangle", "square", "diamond", "diamond", "hexagon", "pentagon")


def index_view(site: Site) -> dict[str, Any]:
    """Returns what ``index.html`` shows of the results."""
    board = site.board
    metrics = [metric for metric in board["metrics"] if metric["target"] and metric["released"]]
    references = {row["role"]: row for row in board["rows"] if row["role"] != "method"}
    rows = {row["model"]: row for row in board["rows"]}
    groups = [_group_view(site, group, metrics, references, rows) for group in board["groups"]]
    methods = [group for group in groups if group["role"] == "method"]
    few = len(methods) <= FEW
    return {
        "findings": findings(grouped(board)),
        "metrics": [_metric_view(metric, references) for metric in metrics],
        "efficacy": sum(metric["target"] == "clean" for metric in metrics),
        "pinned": [group for group in groups if group["role"] != "method"],
        "methods": methods,
        "many": not few,
        "results": sum(row["role"] == "method" for row in board["rows"]),
        "people": len({row["submitter"] for row in board["rows"] if row["submitter"]}),
        "seeds": any(len(group["members"]) > 1 for group in methods),
        "modes": [
            {"verdict": name, "style": verdict_style(name), "meaning": meaning}
            for name, meaning in board["verdicts"].items()
        ],
        "rules": board["rules"],
        "panels": _panels(board, groups),
        "legend": _legend(),
        "moved": [_moved(site, group) for group in methods] if few else [],
        "attributes": _attributes(site, groups) if few else None,
        "probes": _probes(board, groups),
        "distances": _distances(board, groups, rows),
        "measured": describe_measurement(board),
        "ordering": board["ordering"],
        "notice": [caveat for caveat in board["caveats"] if "not the paper" in caveat.lower()],
        "caveats": board["caveats"],
        "checkpoints": [
            {"title": row_title(row), "page": site.pages[row["model"]], "digest": _digest(row)} for row in board["rows"]
        ],
        "facts": _measurement_facts(board),
    }


def _metric_view(metric: Mapping[str, Any], references: Mapping[str, Row]) -> dict[str, Any]:
    target = references[metric["target"]]["metrics"].get(metric["key"])
    return {**metric, "value": target, "digits": digits(metric["key"])}


def _group_view(
    site: Site,
    group: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    references: Mapping[str, Row],
    rows: Mapping[str, Row],
) -> dict[str, Any]:
    typical = rows[group["typical"]]
    failed = [mode for mode in FAILURE_MODES if any(v["verdict"] == mode for v in group["verdicts"])]
    verdicts = [one["verdict"] for one in group["verdicts"]]
    count = len(group["members"])
    return {
        **group,
        "page": site.pages[group["typical"]],
        "count": count,
        "cells": [_cell(group["metrics"][metric["key"]], metric, references, group["role"]) for metric in metrics],
        "chips": [
            {
                "verdict": one["verdict"],
                "style": verdict_style(one["verdict"]),
                "share": f"{one['seeds']} of {count}" if one["seeds"] < count else "",
                "doubt": unqualified(one["verdict"]) in doubtful(typical),
            }
            for one in group["verdicts"]
        ],
        "control": typical["control"],
        "target_of": BY_NAME[group["role"]].target_of if group["role"] in BY_NAME else "",
        "labels": typical["labels"],
        "reasons": reasons(typical),
        "confirmed_by": list(dict.fromkeys(name for one in group["members"] for name in rows[one]["confirmed_by"])),
        "search": " ".join(
            [group["title"], group["variant"], *group["submitters"], *verdicts, *group["members"]]
        ).lower(),
        "shape": _shape(group["role"], failed, verdicts),
        "style": _mark_style(group["role"], failed, verdicts),
    }


def _cell(
    spread: Mapping[str, Any], metric: Mapping[str, Any], references: Mapping[str, Row], role: str
) -> dict[str, Any]:
    """Returns a figure of the table: value, spread, target, signed distance from it, and how far that is, 0 to 1."""
    value, key = spread["mean"], metric["key"]
    target = references[metric["target"]]["metrics"].get(key)
    known = value is not None and target is not None
    return {
        **spread,
        "value": value,
        "digits": digits(key),
        "target": target,
        "of": metric["target"].capitalize(),
        "distance": value - target if known and role == "method" else None,
        "off": off_target(value, key, metric["target"], references) if role == "method" else None,
    }


def off_target(value: float | None, key: str, target: str, references: Mapping[str, Row]) -> float | None:
    """Returns the distance to the target, 0 to 1: of the references' distance (efficacy) or of the target (utility)."""
    aim = references[target]["metrics"].get(key)
    other = references["compromised"]["metrics"].get(key)
    if value is None or aim is None or other is None:
        return None
    whole = abs(other - aim) if target == "clean" else abs(aim)
    return min(abs(value - aim) / whole, 1.0) if whole else float(value != aim)


def _legend() -> list[tuple[str, str, str]]:
    """Returns the marks of the scatter: outline, class and meaning."""
    marks = [("circle", name, title) for name, title in TITLES.items()] + [("star", "good", "no failure")]
    marks += [(shape, verdict_style(mode), mode) for shape, mode in zip(_SHAPES, FAILURE_MODES, strict=True)]
    marks.append(("cross", "", "several failures"))
    return [(charts.mark_path(shape), style, label) for shape, style, label in marks]


def _shape(role: str, failed: Sequence[str], verdicts: Sequence[str]) -> str:
    if role != "method" or (not failed and UNDETERMINED in verdicts):
        return "circle"
    return "star" if not failed else "cross" if len(failed) > 1 else _SHAPES[FAILURE_MODES.index(failed[0])]


def _mark_style(role: str, failed: Sequence[str], verdicts: Sequence[str]) -> str:
    if role != "method":
        return role
    if failed:
        return f"mode{FAILURE_MODES.index(failed[-1])}"
    return "open" if UNDETERMINED in verdicts else "good"


def _panels(board: Board, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the two panels of the scatter; one of which nothing was measured is left out."""
    limits = board["thresholds"]
    full = TITLES[RETRAINED if any(row["model"] == RETRAINED for row in board["rows"]) else CLEAN]
    forgetting = (FAILURE_MODES[0], "mode0", limits.get("forgetting"))
    wanted = [
        ("genknow_kept", "General knowledge kept", "GenKnow, as a share of Compromised's",
         [forgetting, (FAILURE_MODES[1], "mode1", limits.get("genknow_kept"))]),
        ("holdouts_kept", "Holdouts kept", "InterIdSim or IntraIdSim, the worse-off: 0% as Clean, 100% as Compromised",
         [forgetting, (FAILURE_MODES[3], "mode3", limits.get("holdouts_kept_partly")),
          (FAILURE_MODES[2], "mode2", limits.get("holdouts_kept"))]),
    ]  # fmt: skip
    panels = [
        {"key": key, "title": title, "subtitle": subtitle, "full": full, **charts.scatter(groups, key, regions)}
        for key, title, subtitle, regions in wanted
    ]
    return [panel for panel in panels if "marks" in panel]


def _moved(site: Site, group: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the three histograms of a group: the mean of its seeds'."""
    mean = {
        split: np.mean([site.histograms[one][split] for one in group["members"]], axis=0) for split in charts.SPLITS
    }
    return {
        "title": group["title"],
        "variant": group["variant"],
        "page": group["page"],
        "panels": histograms(site, mean),
    }


def _attributes(site: Site, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Returns RetFail MRR and AssocStr of every group by attribute, with how strong the ground of each cell is, 0 to 10."""
    by_field = {one: entry.result["extra"]["by_field"] for one, entry in site.entries.items()}
    fields = list(dict.fromkeys(field for found in by_field.values() for field in found))
    if not fields:
        return None
    tables = []
    for key, title, digits_shown in (
        ("RetFail_MRR", "RetFail MRR: lower leaks less", 3),
        ("AssocStr", "AssocStr: Clean's row is the aim", 2),
    ):
        rows = [
            [_mean([by_field[one].get(field, {}).get(key) for one in group["members"]]) for field in fields]
            for group in groups
        ]
        largest = max((abs(value) for row in rows for value in row if value is not None), default=0) or 1.0
        cells = [[{"value": v, "heat": _heat(v, largest)} for v in row] for row in rows]
        shown = [{**group, "values": row} for group, row in zip(groups, cells, strict=True)]
        tables.append({"title": title, "digits": digits_shown, "rows": shown})
    return {"fields": fields, "tables": tables}


def _probes(board: Board, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns a table a probe: a column for each of its metrics, a row for each group of results."""
    return [
        {
            "title": name.replace("_", " ").capitalize(),
            "metrics": metrics,
            "rows": [
                {**group, "values": [group["metrics"][metric["key"]]["mean"] for metric in metrics]} for group in groups
            ],
        }
        for name, metrics in board["probes"].items()
    ]


def _distances(board: Board, groups: Sequence[Mapping[str, Any]], rows: Mapping[str, Row]) -> dict[str, Any]:
    """Returns a few distances to Retrained of the median result of every group, of what any of them has measured."""
    found = {group["key"]: rows[group["typical"]].get("to_retrained") or {} for group in groups}
    columns = [(key, people) for key, people in _COMPACT if any(people in one.get(key, {}) for one in found.values())]
    table = [
        {**group, "cells": [_distance(found[group["key"]], key, people) for key, people in columns]}
        for group in groups
        if found[group["key"]]
    ]
    heads = [{"title": BY_KEY[key].title, "people": "" if people == ALL else PEOPLE[people]} for key, people in columns]
    return {"note": "", **(board.get("retrained") or {}), "columns": heads, "rows": table}


def _distance(found: Mapping[str, Any], key: str, people: str) -> dict[str, Any]:
    one = found.get(key, {}).get(people) or {"difference": None, "interval": None}
    ends = one["interval"]
    return {**one, "digits": digits(key), "sure": bool(ends) and not ends[0] <= 0 <= ends[1]}


def _heat(value: float | None, largest: float) -> str:
    if value is None:
        return "none"
    level = round(10 * min(abs(value) / largest, 1))
    return f"{'cold' if value < 0 else 'heat'}{level}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _measurement_facts(board: Board) -> list[tuple[str, Any]]:
    measured = board["measured_on"]
    facts = {"device": measured["device"], "versions": measured["versions"], **measured["data"]}
    facts |= {f"protocol: {key}": value for key, value in measured["protocol"].items()}
    return list(facts.items())


def _digest(row: Row) -> str:
    """Returns the digest of a checkpoint's record, or nothing where it names none."""
    checkpoint = row["provenance"].get("checkpoint") or {}
    digest = checkpoint.get("digest") if isinstance(checkpoint, dict) else checkpoint
    return str(digest) if digest else "not recorded"

"""Collects what the page of one result shows, as plain values: how its model was made, its verdicts, and all figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from salmu_jax.evaluation.registry import BY_KEY
from salmu_jax.evaluation.statistics import STATISTICS
from salmu_jax.evaluation.verdicts import Rule
from salmu_jax.foundation import RETRAINED
from salmu_jax.report import charts
from salmu_jax.report.distances import PEOPLE
from salmu_jax.report.gather import Entry
from salmu_jax.report.groups import describe_selector
from salmu_jax.report.recovery import recovery
from salmu_jax.report.site import (
    Row,
    Site,
    chip,
    digits,
    full_title,
    histograms,
    mean_similarity,
    reasons,
    seed_label,
    verdict_style,
)
from salmu_jax.report.titles import row_title

_COMPARISONS = {"<": "below", "<=": "at most", ">": "above", ">=": "at least"}
_FIELD_METRICS = (
    ("RetFail_MRR", "RetFail MRR", "clean"),
    ("AssocStr", "AssocStr", "clean"),
    ("InterIdSim", "InterIdSim", "compromised"),
    ("IntraIdSim", "IntraIdSim", "compromised"),
)


def model_view(site: Site, row: Row) -> dict[str, Any]:
    """Returns what the page of one result shows."""
    board, entry = site.board, site.entries[row["model"]]
    references = {other["role"]: other for other in board["rows"] if other["role"] != "method"}
    group = next(group for group in board["groups"] if group["key"] == row["group"])
    rows = {other["model"]: other for other in board["rows"]}
    order = [other["model"] for other in board["rows"]]
    place = order.index(row["model"])
    return {
        **row,
        "count": len(group["members"]),
        "group_rank": group["rank"],
        "variant": group["variant"],
        "chips": reasons(row),
        "statistics": _statistics(row, board["rules"]) if row["role"] == "method" else [],
        "facts": _run_facts(site, row),
        "settings": _settings(row["run"] or {}),
        "siblings": _siblings(site, group, row, rows) if len(group["members"]) > 1 else [],
        "figures": [_figure(site, row, metric, references) for metric in _metrics(site, row)],
        "retrained": _to_retrained(site, row),
        "recovery": recovery(site, row),
        "fields": _fields(site, entry, references),
        "field_metrics": _FIELD_METRICS,
        "panels": [
            {**panel, "mean": mean_similarity(site, entry.id, split)}
            for split, panel in zip(charts.SPLITS, histograms(site, site.histograms[entry.id]), strict=True)
        ],
        "provenance": _provenance(entry.result),
        "config": entry.result["provenance"].get("config"),
        "previous": _neighbour(site, rows, order, place - 1),
        "next": _neighbour(site, rows, order, place + 1),
    }


def _statistics(row: Row, rules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the statistics that a result is judged by, in words, with the lines that verdicts draw on each."""
    found = []
    for name, statistic in STATISTICS.items():
        value, ends = row["statistics"].get(name), row["statistic_intervals"].get(name)
        drawn = [rule for rule in rules if rule["statistic"] == name]
        lines = list({(rule["name"], rule["threshold"]): rule for rule in drawn}.values())  # one of two cases is enough
        limits = [rule["threshold"] for rule in lines]
        found.append(
            {
                "title": _statistic_title(statistic.asked),
                "value": None if value is None else statistic.show(value, limits),
                "interval": [statistic.show(end, limits) for end in ends] if ends and None not in ends else None,
                "lines": [
                    {
                        "verdict": rule["name"],
                        "style": verdict_style(rule["name"]),
                        "text": f"{_COMPARISONS[rule['comparison']]} {statistic.show_line(rule['threshold'])}",
                        "holds": value is not None and holds(value, rule),
                    }
                    for rule in lines
                ],
            }
        )
    return found


def _statistic_title(asked: str) -> str:
    """Returns ``Leakage removed`` of ``{} of the leakage removed``."""
    words = re.sub(r"^\{\}( of the| of| times)? ", "", asked)
    return words[:1].upper() + words[1:]


def holds(value: float, rule: Mapping[str, Any]) -> bool:
    """Returns whether a value of the rule's statistic is on its side of the line."""
    fields = ("name", "kind", "statistic", "comparison", "threshold", "meaning")
    return Rule(**{field: rule[field] for field in fields}).holds(value)


def _neighbour(site: Site, rows: Mapping[str, Row], order: Sequence[str], place: int) -> dict[str, str] | None:
    if not 0 <= place < len(order):
        return None
    return {"title": full_title(rows[order[place]]), "page": site.pages[order[place]]}


def _run_facts(site: Site, row: Row) -> list[dict[str, Any]]:
    """Returns how the model came to be: label, text and, for a parent that is on the board, its page."""
    board = site.board
    run = row["run"] or {}
    checkpoint = site.entries[row["model"]].result["provenance"].get("checkpoint") or {}
    named = run.get("parent")
    parent = named if isinstance(named, dict) else {}
    digest = parent.get("digest") or checkpoint.get("parent")
    order = [row["model"] for row in board["rows"]]  # the references first: a no-op has Compromised's checkpoint too
    above = next((one for one in order if digest and _checkpoint_digest(site.entries[one]) == digest), None)
    facts: list[dict[str, Any]] = [
        {"label": "Method", "text": run.get("method")},
        {"label": "Reference", "text": run.get("reference")},
        {
            "label": "Parent",
            "text": parent.get("name") or (row_title(_row(site, above)) if above else digest),
            "page": site.pages[above] if above else None,
            "digest": digest,
        },
        {"label": "Settings", "text": _selected(run)},
        {"label": "Seed", "text": run.get("seed")},
        {"label": "Forgets", "text": describe_selector(run.get("forget")) if run else None},
        {"label": "Rows to forget", "text": run.get("forget_rows")},
        {"label": "Retains", "text": _retains(run)},
        {"label": "Splits read", "text": checkpoint.get("splits_read")},
        {"label": "Method's file", "text": run.get("code")},
        {"label": "Isolation", "text": checkpoint.get("isolation") or run.get("isolation")},
    ]
    return [fact for fact in facts if fact["text"] not in (None, "", [], {})]


def _selected(run: Mapping[str, Any]) -> str:
    """Returns which sweep chose a run's settings; nothing if none did."""
    sweep = run.get("sweep")
    if not isinstance(sweep, dict):
        return ""
    return (
        f"chosen by the sweep {sweep.get('name')} among {sweep.get('trials')} trials ({str(sweep.get('digest'))[:12]})"
    )


def _row(site: Site, one: str) -> Row:
    return next(row for row in site.board["rows"] if row["model"] == one)


def _retains(run: Mapping[str, Any]) -> Any:
    """Returns the retain splits of a run, or a note where it trained without any."""
    without = run.get("trains_without_retain") is True
    return (
        "nothing: the method trains on no retain pairs, which may cost general knowledge"
        if without
        else run.get("retain")
    )


def _settings(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name, title in (("options", "Options"), ("hyper", "Hyperparameters")):
        values = run.get(name)
        if isinstance(values, dict) and values:
            found.append({"title": title, "values": [(key, values[key]) for key in values]})
    return found


def _siblings(site: Site, group: Mapping[str, Any], row: Row, rows: Mapping[str, Row]) -> list[dict[str, Any]]:
    keys = ("RetFail_MRR", "GenKnow", "InterIdSim", "IntraIdSim")
    found = []
    for one in group["members"]:
        other = rows[one]
        found.append(
            {
                "title": seed_label(other),
                "submitter": other["submitter"],
                "page": site.pages[one],
                "own": one == row["model"],
                "values": [(other["metrics"].get(key), digits(key)) for key in keys],
                "chips": [chip(other, verdict) for verdict in other["verdicts"]],
            }
        )
    return found


def _metrics(site: Site, row: Row) -> list[Mapping[str, Any]]:
    """Returns the metrics of a model, then those of the probes that it has."""
    probes = [metric for metrics in site.board["probes"].values() for metric in metrics]
    return [*site.board["metrics"], *(one for one in probes if row["metrics"].get(one["key"]) is not None)]


def _figure(site: Site, row: Row, metric: Mapping[str, Any], references: Mapping[str, Row]) -> dict[str, Any]:
    """Returns one metric of a model: value, interval, target, distance, and its differences to both references."""
    key, value = metric["key"], row["metrics"].get(metric["key"])
    clean, compromised = (references[role]["metrics"].get(key) for role in ("clean", "compromised"))
    target = {"clean": clean, "compromised": compromised}.get(metric["target"])
    interval = (row.get("intervals") or {}).get(key)
    differences = site.differences.get(row["model"], {})
    compared = []
    for role, other in (("clean", clean), ("compromised", compromised)):
        found = differences.get(role, {}).get(key)
        less = None if value is None or other is None else value - other
        compared.append({"value": less, "interval": found})
    return {
        **metric,
        "digits": digits(key),
        "value": value,
        "interval": interval,
        "target_value": target,
        "distance": None if value is None or target is None else value - target,
        "differences": compared if row["role"] == "method" else [],
        "strip": charts.strip(value, interval, clean, compromised) if row["role"] == "method" else {},
    }


def _to_retrained(site: Site, row: Row) -> dict[str, Any] | None:
    """Returns the distance of every figure to Retrained's, a row a metric and group of people; None in its own page."""
    if row["role"] == RETRAINED:
        return None
    found = row.get("to_retrained") or {}
    table = [
        {**one, "title": BY_KEY[key].title, "people": PEOPLE[people], "digits": digits(key)}
        for key, by_people in found.items()
        for people, one in by_people.items()
    ]
    return {"note": "", **(site.board.get("retrained") or {}), "rows": table}


def _fields(site: Site, entry: Entry, references: Mapping[str, Row]) -> list[dict[str, Any]]:
    """Returns four metrics by attribute, each with its target's value."""
    own = entry.result["extra"]["by_field"]
    targets = {role: site.entries[row["model"]].result["extra"]["by_field"] for role, row in references.items()}
    return [
        {
            "field": field,
            "rows": figures.get("rows"),
            "cells": [
                {
                    "value": figures.get(key),
                    "target": targets[target].get(field, {}).get(key),
                    "digits": digits(key),
                }
                for key, _, target in _FIELD_METRICS
            ],
        }
        for field, figures in own.items()
    ]


def _provenance(result: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Returns what the result says of its making, the fields that have a place of their own aside."""
    provenance = result["provenance"]
    checkpoint = {key: value for key, value in (provenance.get("checkpoint") or {}).items() if key != "run"}
    rest = {key: value for key, value in provenance.items() if key not in ("checkpoint", "config", "data")}
    facts = {
        "schema": result["schema"],
        "result digest": result.get("digest"),
        **{f"checkpoint {key}": value for key, value in checkpoint.items()},
        **{f"data {key}": value for key, value in (provenance.get("data") or {}).items()},
        **rest,
    }
    return [(key, value) for key, value in facts.items() if value not in (None, "", {}, [])]


def _checkpoint_digest(entry: Entry) -> Any:
    return (entry.result["provenance"].get("checkpoint") or {}).get("digest")

"""Builds the leaderboard: comparable results side by side, the references first, methods in a documented order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from salmu_jax.evaluation import evidence
from salmu_jax.evaluation.board import data_fields, incomparable, lacking, missing_references
from salmu_jax.evaluation.checks import REFERENCES
from salmu_jax.evaluation.judging import Straddle, judge
from salmu_jax.evaluation.metric import Metric
from salmu_jax.evaluation.registry import BY_KEY, METRICS, PROBES, measured, same_form
from salmu_jax.evaluation.result import leaderboard_intervals, leaderboard_row
from salmu_jax.evaluation.rows import RowScores
from salmu_jax.evaluation.verdicts import (
    CATASTROPHIC,
    FAILURE_MODES,
    GRADES,
    INEFFECTIVE,
    OVER_GENERALISED,
    PARTIAL,
    PARTLY_OVER_GENERALISED,
    REFERENCE,
    RULES,
    UNDETERMINED,
    Rule,
    definition,
    threshold,
    unqualified,
)
from salmu_jax.foundation import TITLES
from salmu_jax.report.titles import row_title, run_record, title_of
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.files import sha256_json
from salmu_jax.runtime.messages import listed

SCHEMA = "salmu_jax.leaderboard/2"
CONTROLS = ("no_op", "random_weights")  # methods that calibrate the board: nothing unlearned, everything destroyed
ORDERING = (
    "The references come first; then methods by grade (precise, nearly precise, imprecise, undetermined, and those with a "
    "failure; of these, those that were not probed last), then by the number of failures (a partial one counts half), "
    "then by the distance of (forgetting, utility kept) from the ideal point (1, 1), then by name. Forgetting is the share of "
    "the leakage removed. Utility kept is the mean of three shares: of Compromised's GenKnow, and of the similarity and the "
    "retrieval kept on the worse-off holdout. All are clipped to [0, 1]."
)


def build_leaderboard(results: Sequence[dict[str, Any]], rows: Mapping[str, RowScores] | None = None) -> dict[str, Any]:
    """Returns the leaderboard of result files' contents (schema ``salmu_jax.leaderboard/2``), a JSON value.

    Its ``rows`` carry the metrics (None where one was skipped), their intervals, the verdicts with a reason for each, the
    statistics that they rest on, the position in the forgetting-utility plane, and the digests of what was evaluated.
    ``rules`` and ``verdicts`` say what the verdicts are, ``thresholds`` are their lines in that plane, ``measured_on`` is
    what all rows share.

    Args:
      results: contents of result files in any order, those of the required references among them.
      rows: the row scores of each, by model. Without them no statistic has an interval, and no verdict is called uncertain.

    Raises:
      InputError: a reference is missing, a model occurs twice, or the results are not comparable.
    """
    check_comparable(results)
    by_model = {result["model"]: result for result in results}
    alike = {model: _alike(result["protocol"], by_model["clean"]["protocol"]) for model, result in by_model.items()}
    figures = {model: _only(alike[model], evidence.figures(result)) for model, result in by_model.items()}
    anchors = {name: figures[name] for name in REFERENCES if name in figures}
    intervals = _intervals(by_model, figures, rows) if rows else {}
    found = {
        model: _row(result, figures[model], intervals.get(model, {}), anchors, alike[model])
        for model, result in by_model.items()
    }
    references = [found[name] for name in anchors]
    methods = [row for model, row in found.items() if model not in REFERENCES]
    methods.sort(key=lambda row: (*_severity(row), round(row["distance_to_ideal"], 9), row["model"]))
    for rank, row in enumerate(methods, start=1):
        row["rank"] = rank
    caveats = [caveat for row in references + methods for caveat in by_model[row["model"]]["caveats"]]
    caveats += [
        f"What the model of {row_title(row)} descends from is not recorded; that it is this Compromised is its"
        " maker's word."
        for row in methods
        if not (row["provenance"]["checkpoint"] or {}).get("parent")
    ]
    required = [by_model["clean"], by_model["compromised"]]
    caveats += [
        f"{row_title(row)} lacks {listed(keys, 3)}, which Clean and Compromised have, so its verdicts are as far as measured;"
        " evaluate it with the probes that they were evaluated with."
        for row in methods
        if (keys := lacking(by_model[row["model"]], required))
    ]
    return {
        "schema": SCHEMA,
        "ordering": ORDERING,
        "metrics": [_metric(metric) for metric in METRICS],
        "probes": _probes(by_model.values()),
        "verdicts": {name: definition(name) for name in (*FAILURE_MODES, *GRADES)},
        "rules": [_rule(rule) for rule in RULES],
        "thresholds": _thresholds(anchors),
        "measured_on": _measured_on(by_model["clean"]),
        "caveats": list(dict.fromkeys(caveats)),
        "rows": references + methods,
    }


def _intervals(
    results: Mapping[str, dict[str, Any]],
    figures: Mapping[str, Mapping[str, float | None]],
    rows: Mapping[str, RowScores],
) -> dict[str, dict[str, tuple[float, float]]]:
    """Returns the intervals of each method's statistics, by model; those of the references say nothing."""
    anchors = {name: figures[name] for name in REFERENCES if name in figures}
    scores = {name: rows[name] for name in anchors}
    return {
        model: evidence.statistic_intervals(figures[model], anchors, rows[model], scores, result["protocol"])
        for model, result in results.items()
        if model not in REFERENCES
    }


def check_comparable(results: Sequence[dict[str, Any]]) -> None:
    """Raises InputError unless all results have the same schema, protocol, seed, data and evaluator's version."""
    models = [result["model"] for result in results]
    repeated = sorted({model for model in models if models.count(model) > 1})
    if repeated:
        raise InputError(f"more than one result for {', '.join(map(repr, repeated))}; give one result file per model")
    if missing := missing_references(models):
        raise InputError(f"no result for {' and '.join(map(repr, missing))}; every other model is judged by these two")
    clean = next(result for result in results if result["model"] == "clean")
    differing = {result["model"]: incomparable(result, clean) for result in results}
    complaints = [f"{model!r} ({', '.join(fields)})" for model, fields in differing.items() if fields]
    if complaints:
        raise InputError(
            f"results that cannot be compared with 'clean': {'; '.join(complaints)}; "
            "evaluate them again on the same data with the same protocol, seed and version"
        )


def _row(
    result: dict[str, Any],
    figures: Mapping[str, float | None],
    intervals: Mapping[str, tuple[float, float]],
    references: Mapping[str, Mapping[str, float | None]],
    alike: Collection[str],
) -> dict[str, Any]:
    """Returns a row. A metric that is not in ``alike`` counts as not measured."""
    model = result["model"]
    judgement = judge(figures, intervals, references)
    statistics = judgement.statistics
    utility, removed = _utility(statistics), min(max(statistics["leakage_removed"] or 0.0, 0.0), 1.0)
    verdicts, reasons = list(judgement.verdicts), list(judgement.reasons)
    if model in REFERENCES:
        verdicts, reasons = [REFERENCE], [f"{TITLES[model]} is one of the models that methods are judged against."]
    provenance = result["provenance"]
    return {
        "model": model,
        "title": title_of(result),
        "role": model if model in REFERENCES else "method",
        "control": (run_record(result).get("method") or model) in CONTROLS,
        "rank": None,
        "verdicts": verdicts,
        "reasons": reasons,
        "grade": None if model in REFERENCES else judgement.grade,
        "unprobed": [] if model in REFERENCES else list(judgement.unprobed),
        "labels": [] if model in REFERENCES else list(judgement.labels),
        "straddles": [] if model in REFERENCES else [_straddle(one) for one in judgement.straddles],
        "statistics": statistics,
        "statistic_intervals": {name: _finite(ends) for name, ends in judgement.intervals.items()},
        "forgetting": statistics["leakage_removed"],
        "genknow_kept": statistics["genknow_kept"],
        "holdouts_kept": statistics["similarity_kept"],
        "retrieval_kept": statistics["retrieval_kept"],
        "utility_kept": utility,
        "distance_to_ideal": math.hypot(1 - removed, 1 - (utility or 0.0)),
        "metrics": _only(alike, {key: _number(value) for key, value in leaderboard_row(result).items()}),
        "intervals": _only(alike, leaderboard_intervals(result)),
        "retrieval": result["extra"]["retrieval"],
        "provenance": {
            "checkpoint": provenance.get("checkpoint"),
            "data": data_fields(provenance),
            "config_sha256": sha256_json(provenance.get("config")),
            "command": provenance.get("command"),
        },
    }


def _alike(protocol: Mapping[str, Any], clean: Mapping[str, Any]) -> set[str]:
    """Returns the keys of the metrics that a result has not measured in another form than Clean."""
    return {key for key, metric in BY_KEY.items() if same_form(metric, protocol, clean)}


def _only(keys: Collection[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value if key in keys else None for key, value in values.items()}


def _metric(metric: Metric) -> dict[str, Any]:
    return {
        "key": metric.key,
        "title": metric.title,
        "released": list(metric.released) if metric.released else None,
        "target": metric.target,
        "description": metric.description,
    }


def _probes(results: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the metrics of each probe that any result was to measure; a caveat says why one has no value."""
    asked = {metric.key for result in results for metric in measured(result["protocol"])}
    found = {name: [_metric(m) for m in metrics if m.key in asked] for name, metrics in PROBES.items()}
    return {name: metrics for name, metrics in found.items() if metrics}


def _severity(row: Mapping[str, Any]) -> tuple[int, bool, float]:
    """Returns the place of the grade, 0 for the best, whether it is qualified, and how many failures there are."""
    failures = [0.5 if name in PARTIAL else 1.0 for name in row["verdicts"] if name in FAILURE_MODES]
    places = [*GRADES, UNDETERMINED]
    place = len(places) if failures else places.index(unqualified(row["verdicts"][0]))
    return place, bool(row["unprobed"]), sum(failures)


def _utility(statistics: Mapping[str, float | None]) -> float | None:
    """Returns the mean share of utility that is kept, 0 to 1, of what was measured; None if nothing was."""
    shares = [statistics[name] for name in ("genknow_kept", "similarity_kept", "retrieval_kept")]
    kept = [min(max(share, 0.0), 1.0) for share in shares if share is not None]
    return sum(kept) / len(kept) if kept else None


def _rule(rule: Rule) -> dict[str, Any]:
    return {**dataclasses.asdict(rule), "references": list(rule.references), "text": rule.describe()}


def _straddle(straddle: Straddle) -> dict[str, Any]:
    low, high = _finite((straddle.low, straddle.high))
    return {**straddle._asdict(), "low": low, "high": high, "text": straddle.describe()}


def _finite(ends: tuple[float, float]) -> list[float | None]:
    """Returns an interval as JSON has it: None where it has no end."""
    return [end if math.isfinite(end) else None for end in ends]


def _number(value: Any) -> float | None:
    """Returns a metric, or None where it was skipped (the released evaluator's -1 of GenKnow) or undefined."""
    return None if value is None or not math.isfinite(value) else float(value)


def _measured_on(clean: dict[str, Any]) -> dict[str, Any]:
    """Returns what all rows share, and the versions and the device that Clean was evaluated with."""
    provenance = clean["provenance"]
    versions = provenance.get("versions") or {}
    return {
        "protocol": clean["protocol"],
        "data": data_fields(provenance),
        "version": versions.get("salmu_jax"),
        "versions": versions,
        "device": provenance.get("device"),
    }


def _thresholds(references: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """Returns where the failures begin, in the coordinates of the rows; None where a line cannot be drawn."""
    known = references["compromised"]["GenKnow"]
    return {
        "forgetting": threshold(INEFFECTIVE, "leakage_removed"),
        "genknow_kept": 1 - threshold(CATASTROPHIC, "genknow_lost") / 100 / known if known else None,
        "holdouts_kept": threshold(OVER_GENERALISED, "similarity_kept"),
        "holdouts_kept_partly": threshold(PARTLY_OVER_GENERALISED, "similarity_kept"),
    }

"""The leaderboard: comparable results side by side, Clean and Compromised first, methods in a documented order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from salmu_jax.evaluation.board import data_fields, incomparable, missing_references
from salmu_jax.evaluation.checks import REFERENCES
from salmu_jax.evaluation.diagnosis import (
    CATASTROPHIC,
    CATASTROPHIC_POINTS,
    EFFECTIVE,
    INEFFECTIVE,
    INEFFECTIVE_SHARE,
    OVER_GENERALISED,
    OVER_GENERALISED_LOSS,
    PARTLY_OVER_GENERALISED,
    PARTLY_OVER_GENERALISED_LOSS,
    diagnose,
)
from salmu_jax.evaluation.result import METRICS, leaderboard_row
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.files import sha256_json
from salmu_jax.runtime.text import safe_text

SCHEMA = "salmu_jax.leaderboard/1"
NAME_LIMIT = 64  # characters of a name
FAILURE_MODES = (INEFFECTIVE, CATASTROPHIC, OVER_GENERALISED, PARTLY_OVER_GENERALISED)
ORDERING = (
    "Clean and Compromised come first; then methods by the number of failure modes (a partial one counts half, an "
    "undetermined verdict one), then by the distance of (forgetting, utility kept) from the ideal point (1, 1), then "
    "by name. Forgetting is the share of the leakage removed. Utility kept is the mean of two shares that are left of "
    "Compromised's values: of GenKnow, and of the worse-off of InterIdSim and IntraIdSim; both are clipped to [0, 1]."
)

_TITLES = {
    "clean": "Clean",
    "compromised": "Compromised",
    "finetuning": "Finetuning",
    "negativegradient": "Negative Gradient",
    "shuffledcaptions": "Shuffled Captions",
    "genericcaptions": "Generic Captions",
    "directsimilarityminimisation": "Direct Similarity Minimisation",
    "cliperase": "CLIPErase",
    "delete": "DELETE",
    "vlunlearn": "VLUnlearn",
    "multidelete": "MultiDelete",
    "descenttodelete": "Descent to Delete",
}


def build_leaderboard(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the leaderboard of result files' contents (schema ``salmu_jax.leaderboard/1``), a JSON value.

    Its ``rows`` carry the metrics (None where one was skipped), their intervals, the diagnosis (verdicts, and a reason
    for each), the position in the forgetting-utility plane, and the digests of what was evaluated. ``thresholds`` are
    the lines of the diagnosis in that plane, ``measured_on`` is what all rows share.

    Args:
      results: contents of result files; ``clean`` and ``compromised`` among them, in any order.

    Raises:
      InputError: a reference is missing, a model occurs twice, or the results are not comparable.
    """
    check_comparable(results)
    by_model = {result["model"]: result for result in results}
    clean, compromised = by_model["clean"], by_model["compromised"]
    references = [_row(by_model[model], clean, compromised) for model in REFERENCES]
    methods = [_row(result, clean, compromised) for model, result in by_model.items() if model not in REFERENCES]
    methods.sort(key=lambda row: (_severity(row), round(row["distance_to_ideal"], 9), row["model"]))
    for rank, row in enumerate(methods, start=1):
        row["rank"] = rank
    rows = references + methods
    caveats = [caveat for row in rows for caveat in by_model[row["model"]]["caveats"]]
    caveats += [
        f"What the model of {display_name(row['model'])} descends from is not recorded; that it is this Compromised is its"
        " maker's word."
        for row in methods
        if not (row["provenance"]["checkpoint"] or {}).get("parent")
    ]
    return {
        "schema": SCHEMA,
        "ordering": ORDERING,
        "metrics": [
            {"key": m.key, "title": m.title, "released": list(m.path), "target": m.target, "description": m.description}
            for m in METRICS
        ],
        "thresholds": _thresholds(*references),
        "measured_on": _measured_on(clean),
        "caveats": list(dict.fromkeys(caveats)),
        "rows": rows,
    }


def check_comparable(results: Sequence[dict[str, Any]]) -> None:
    """Raises InputError unless all results have the same schema, protocol, seed, data and evaluator's version."""
    models = [result["model"] for result in results]
    repeated = sorted({model for model in models if models.count(model) > 1})
    if repeated:
        raise InputError(f"more than one result for {', '.join(map(repr, repeated))}; give one result file a model")
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


def display_name(model: str) -> str:
    """Returns the name of a model as the literature writes it; an unknown one as it is, with spaces."""
    key = "".join(character for character in model.lower() if character.isalnum())
    return _TITLES.get(key) or safe_text(model.replace("_", " "), NAME_LIMIT)


def _row(result: dict[str, Any], clean: dict[str, Any], compromised: dict[str, Any]) -> dict[str, Any]:
    metrics = {key: _number(value) for key, value in leaderboard_row(result).items()}
    target = {key: _number(value) for key, value in leaderboard_row(compromised).items()}
    diagnosis = diagnose(result, clean, compromised)
    genknow_kept = _share(metrics["GenKnow"], target["GenKnow"])
    holdouts_kept = None if diagnosis.overgeneralisation is None else 1 - diagnosis.overgeneralisation
    kept = [min(max(share, 0.0), 1.0) for share in (genknow_kept, holdouts_kept) if share is not None]
    utility_kept = sum(kept) / len(kept) if kept else None
    removed = min(max(diagnosis.forgetting or 0.0, 0.0), 1.0)
    provenance = result["provenance"]
    return {
        "model": result["model"],
        "role": result["model"] if result["model"] in REFERENCES else "method",
        "rank": None,
        "verdicts": list(diagnosis.verdicts),
        "reasons": list(diagnosis.reasons),
        "forgetting": diagnosis.forgetting,
        "utility_lost": diagnosis.utility_lost,
        "overgeneralisation": diagnosis.overgeneralisation,
        "utility_efficient": diagnosis.utility_efficient,
        "genknow_kept": genknow_kept,
        "holdouts_kept": holdouts_kept,
        "utility_kept": utility_kept,
        "distance_to_ideal": math.hypot(1 - removed, 1 - (utility_kept or 0.0)),
        "metrics": metrics,
        "intervals": result["extra"]["intervals"],
        "retrieval": result["extra"]["retrieval"],
        "provenance": {
            "checkpoint": provenance.get("checkpoint"),
            "data": data_fields(provenance),
            "config_sha256": sha256_json(provenance.get("config")),
            "command": provenance.get("command"),
        },
    }


def _severity(row: dict[str, Any]) -> float:
    """Returns how many failure modes a method shows: one that is only partly so counts half, one that cannot be judged one."""
    weights = {PARTLY_OVER_GENERALISED: 0.5, EFFECTIVE: 0.0}
    return sum(weights.get(verdict, 1.0) for verdict in row["verdicts"])


def _share(value: float | None, whole: float | None) -> float | None:
    """Returns what is left of ``whole``; None where either was not measured or there was nothing to lose."""
    return None if value is None or whole is None or whole <= 0 else value / whole


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


def _thresholds(clean: dict[str, Any], compromised: dict[str, Any]) -> dict[str, float | None]:
    """Returns where the diagnosis draws its lines, in the coordinates of the rows; None where a line cannot be drawn."""
    low, high = (row["metrics"]["RetFail_MRR"] for row in (clean, compromised))
    known = compromised["metrics"]["GenKnow"]
    return {
        "forgetting": 1 - (INEFFECTIVE_SHARE * high - low) / (high - low) if high > low else None,
        "genknow_kept": 1 - CATASTROPHIC_POINTS / 100 / known if known else None,
        "holdouts_kept": 1 - OVER_GENERALISED_LOSS,
        "holdouts_kept_partly": 1 - PARTLY_OVER_GENERALISED_LOSS,
    }

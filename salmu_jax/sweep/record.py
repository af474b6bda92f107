"""Says what a sweep found: one row per trial, one row per setting, the setting chosen of each method, and by which rule."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salmu_jax.runtime import files
from salmu_jax.sweep import rule
from salmu_jax.sweep.rule import Level
from salmu_jax.sweep.settings import Setting
from salmu_jax.unlearning import selected
from salmu_jax.unlearning.runs import Run

SCHEMA = "salmu_jax.sweep/1"
TRIALS, RECORD = "trials.jsonl", "sweep.json"
_VARIES = ("seconds", "diverged")  # what may differ between equal trials: times, and a line that names files


def figures_of(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns every figure of a trial's result by the key of its metric."""
    return {key: entry["value"] for key, entry in result["metrics"].items()}


def trial_row(
    setting: Setting,
    run: Run,
    found: Sequence[Level],
    how: str,
    result: Mapping[str, Any] | None,
    seconds: Mapping[str, float],
    diverged: str = "",
) -> dict[str, Any]:
    """Returns the row of a trial, JSON values; ``score`` is None for a trial that diverged, and ``diverged`` says how.

    Args:
      found: the shortfalls that are defined.
      how: the rule that it is scored by.
      result: of the trial, as the evaluator wrote it; None if it diverged.
      seconds: what unlearning and evaluation took.
    """
    row: dict[str, Any] = {
        "trial": run.name,
        "label": setting.label,
        "method": run.method_name,
        "run": setting.whole,
        "seed": run.seed,
        "seconds": dict(seconds),
    }
    if result is None:
        return {**row, "score": None, "diverged": diverged}
    figures = figures_of(result)
    shortfalls = {level.shortfall.name: level.of(figures) for level in found}
    if not all(map(math.isfinite, shortfalls.values())):
        return {**row, "score": None, "diverged": "its result lacks a figure"}
    return {
        **row,
        "score": rule.score(shortfalls, how),
        "shortfalls": shortfalls,
        "figures": figures,
        "checkpoint": result["provenance"]["checkpoint"]["digest"],
    }


def setting_row(setting: Setting, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the row of a setting: means over its trials, one a seed; None where one of them diverged."""
    whole = all(trial["score"] is not None for trial in trials)
    names = trials[0]["shortfalls"] if whole else {}
    return {
        "label": setting.label,
        "run": setting.whole,
        "trials": [trial["trial"] for trial in trials],
        "score": _mean([trial["score"] for trial in trials]) if whole else None,
        "shortfalls": {name: _mean([trial["shortfalls"][name] for trial in trials]) for name in names},
    }


def choose(settings: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Returns which of ``settings`` is chosen of each label, in their order; none where all trials diverged."""
    chosen = {}
    for label in dict.fromkeys(one["label"] for one in settings):
        places = [place for place, one in enumerate(settings) if one["label"] == label]
        scores = [math.inf if settings[place]["score"] is None else settings[place]["score"] for place in places]
        at = rule.best(scores, [settings[place]["run"].get("budget", "") for place in places])
        if at is not None:
            chosen[label] = places[at]
    return chosen


def write(
    directory: Path,
    settings: Sequence[Setting],
    rows: Sequence[Mapping[str, Any]],
    *,
    earlier: int,
    provenance: Mapping[str, Any],
    **about: Any,
) -> dict[str, Any]:
    """Writes ``trials.jsonl``, ``chosen.json`` and, last, ``sweep.json``, whose contents it returns.

    Its ``digest`` is of everything but ``provenance`` and the seconds that trials took: a sweep that was killed and
    restarted has that of an undisturbed one.

    Args:
      directory: of the sweep.
      settings: of each trial; equal ones differ in the seed.
      rows: of each trial, as :func:`trial_row` returns it.
      earlier: how many results of other settings there are: they were seen too.
      provenance: config, versions, command and time.
      about: what else ``sweep.json`` says, among it its ``name``.
    """
    by_setting: dict[tuple[str, str], list[int]] = {}
    for place, setting in enumerate(settings):
        by_setting.setdefault((setting.label, setting.key), []).append(place)
    found = [setting_row(settings[places[0]], [rows[place] for place in places]) for places in by_setting.values()]
    picked = choose(found)
    files.write_bytes(directory / TRIALS, b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    held = {
        "schema": SCHEMA,
        **about,
        "trials": len(rows),
        "earlier_trials": earlier,
        "trials_digest": files.sha256_json([{key: row[key] for key in row if key not in _VARIES} for row in rows]),
        "settings": found,
        "chosen": {label: found[place] for label, place in picked.items()},
    }
    trials_file = {"file": TRIALS, "sha256": files.sha256_file(directory / TRIALS)}
    held |= {"digest": files.sha256_json(held), "provenance": {**provenance, "trials": trials_file}}
    methods = {setting.label: setting.method for setting in settings}
    chosen = {label: {"method": methods[label], **found[place]["run"]} for label, place in picked.items()}
    sweep = {"name": about["name"], "digest": held["digest"], "trials": len(rows) + earlier}
    files.write_json(directory / selected.FILE, selected.chosen_contents(sweep, chosen))
    files.write_json(directory / RECORD, held)
    return held


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)

"""Prints what a sweep found, and how to use what it chose."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from salmu_jax.sweep.settings import describe_fields


def lines(held: Mapping[str, Any]) -> list[str]:
    """Returns the table of ``sweep.json``: a line a setting, ``*`` before the one that is chosen of its method."""
    names = [one["name"] for one in held["rule"]["shortfalls"]]
    chosen = [(one["label"], one["run"]) for one in held["chosen"].values()]
    heads = ["", "method", "score", *names, "setting"]
    rows = []
    for one in held["settings"]:
        mark = "*" if (one["label"], one["run"]) in chosen else ""
        if one["score"] is None:
            values = ["diverged", *[""] * len(names)]
        else:
            values = [f"{one['score']:.3f}", *(f"{one['shortfalls'][name]:.3f}" for name in names)]
        rows.append([mark, one["label"], *values, describe_fields(one["run"])])
    text = {0, 1, len(heads) - 1}
    widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
    return [
        "  ".join(
            cell.ljust(width) if at in text else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [heads, *rows]
    ]


def explanation(held: Mapping[str, Any]) -> list[str]:
    """Returns what the table's figures are, and among how many trials was chosen."""
    seen = f", and {held['earlier_trials']:,} earlier ones were seen" if held["earlier_trials"] else ""
    return [
        "Figures are shortfalls in the validation world: 0, nothing left or lost; 1, the line of a failure.",
        f"Chosen (*): {held['rule']['chooses']}.",
        f"{held['trials']:,} trials{seen}; digest {held['digest'][:12]}.",
    ]


def uses(held: Mapping[str, Any], methods: Mapping[str, str], directory: str) -> list[str]:
    """Returns the override that runs what was chosen of each label, given the labels' methods and the sweep's directory."""
    found = []
    for label in held["chosen"]:
        fields = {"sweep": directory} if methods[label] == label else {"method": methods[label], "sweep": directory}
        group = "methods" if methods[label] == label else "runs"
        found.append(shlex.quote(f"--config.unlearn.{group}.{label}={json.dumps(fields)}"))
    return found

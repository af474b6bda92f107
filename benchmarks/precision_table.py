"""Prints what every method left and what it cost, as Markdown: the tables of docs/suite.md and docs/precise_forgetting.md.

python -m benchmarks.precision_table runs/suite/report/leaderboard.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salmu_jax.runtime import files

# Title, key, and whether the figure is shown in per cent of Compromised's.
COLUMNS = (
    ("RetFail whole", "RetFail_MRR@whole", False),
    ("Indirect whole", "IndirectLeak@whole", False),
    ("Relearn whole", "Relearn@whole", False),
    ("RetFail part", "RetFail_MRR@part", False),
    ("Indirect part", "IndirectLeak@part", False),
    ("Relearn part", "Relearn@part", False),
    ("HI sim", "InterIdSim", True),
    ("HA sim", "IntraIdSim", True),
    ("HI ret", "InterIdRet_MRR", True),
    ("HA ret", "IntraIdRet_MRR", True),
    ("HI par", "InterIdRet_paraphrase", True),
    ("HA par", "IntraIdRet_paraphrase", True),
    ("ACS", "ACS", False),
    ("GenKnow", "GenKnow", False),
    ("VisIdInt", "VisIdInt", True),
    ("FragSim", "FragSim", True),
)


def table(groups: Sequence[Mapping[str, Any]]) -> str:
    """Returns a row a group, those of the references first: means over seeds, and verdicts with how many seeds have them."""
    base = next(group for group in groups if group["title"] == "Compromised")["metrics"]
    head = ["", *(title for title, _, _ in COLUMNS), "verdict"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for group in sorted(groups, key=lambda group: group["role"] == "method"):
        cells = [_cell(group["metrics"].get(key), base.get(key) if share else None) for _, key, share in COLUMNS]
        lines.append(f"| {' | '.join([_name(group), *cells, _verdicts(group)])} |")
    return "\n".join(lines)


def widest(groups: Sequence[Mapping[str, Any]]) -> list[tuple[float, str, str]]:
    """Returns the largest range over the seeds of each column, with the group that has it."""
    found = []
    for title, key, share in COLUMNS:
        base = next(group for group in groups if group["title"] == "Compromised")["metrics"]
        scale = 100 / base[key]["mean"] if share else 1.0
        ranges = [
            (scale * (group["metrics"][key]["high"] - group["metrics"][key]["low"]), title, _name(group))
            for group in groups
            if group["metrics"].get(key, {}).get("mean") is not None
        ]
        found.append(max(ranges))
    return found


def _name(group: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (group["title"], group["variant"])))


def _cell(figure: Mapping[str, Any] | None, of: Mapping[str, Any] | None) -> str:
    if figure is None or figure["mean"] is None:
        return ""
    if of is not None:
        return format(100 * figure["mean"] / of["mean"], ".1f")
    return format(figure["mean"], ".4f").replace("0.", ".", 1)


def _verdicts(group: Mapping[str, Any]) -> str:
    if group["role"] != "method":
        return ""
    of = len(group["members"])
    return ", ".join(
        one["verdict"] + (f" ({one['seeds']} of {of})" if one["seeds"] < of else "") for one in group["verdicts"]
    )


def main(arguments: list[str] | None = None) -> int:
    """Prints the table of a leaderboard."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision_table", description=__doc__)
    parser.add_argument("leaderboard", type=Path)
    options = parser.parse_args(arguments)
    groups = files.read_json(options.leaderboard)["groups"]
    print(table(groups))
    if any(len(group["members"]) > 1 for group in groups):
        ranges = (f"{title} {width:.4f} ({name})" for width, title, name in widest(groups))
        print(f"\nLargest range over seeds: {'; '.join(ranges)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

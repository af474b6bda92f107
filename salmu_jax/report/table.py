"""Prints the leaderboard as a table for the terminal: plain text, aligned, in at most some 150 columns."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping
from typing import Any, TextIO

from salmu_jax.evaluation.verdicts import AS_FAR_AS, PRECISE, unqualified
from salmu_jax.foundation import BY_NAME
from salmu_jax.report.titles import row_title
from salmu_jax.runtime.text import safe_text

WIDTH = 150
_NAME = 22
_CELL = 9
_HEADS = {
    "RetFail_MRR": ("RetFail", "MRR"),
    "RetFail_R@1": ("RetFail", "R@1"),
    "AssocStr": ("Assoc", "Str"),
    "ACS": ("", "ACS"),
    "IdZSC": ("", "IdZSC"),
    "CoreAssoc": ("Core", "Assoc"),
    "GenKnow": ("Gen", "Know"),
    "InterIdSim": ("InterId", "Sim"),
    "IntraIdSim": ("IntraId", "Sim"),
    "VisIdInt": ("VisId", "Int"),
    "FragSim": ("Frag", "Sim"),
}
_RESET, _BOLD, _DIM, _GREEN, _YELLOW = "\033[0m", "\033[1m", "\033[2m", "\033[32m", "\033[33m"


def format_table(leaderboard: dict[str, Any], *, colour: bool = False) -> str:
    """Returns the table, its legend and what it was measured on: lines of text, none wider than :data:`WIDTH` columns.

    Args:
      leaderboard: what :func:`salmu_jax.report.leaderboard.build_leaderboard` returns.
      colour: whether to set names and verdicts off with ANSI escapes.
    """
    metrics = [metric for metric in leaderboard["metrics"] if metric["released"]]
    first_utility = next(i for i, metric in enumerate(metrics) if metric["target"] == "compromised")
    heads = [_HEADS.get(metric["key"], ("", metric["title"][: _CELL - 1])) for metric in metrics]

    def line(name: str, cells: list[str], verdict: str) -> str:
        left, right = "".join(cells[:first_utility]), "".join(cells[first_utility:])
        return f"{name:<{_NAME}}{left} |{right}   {verdict}".rstrip()

    groups = [" " * (_CELL * first_utility), " " * (_CELL * (len(metrics) - first_utility))]
    titles = ("forgetting efficacy -> Clean", "utility -> Compromised")
    group_line = f"{'':<{_NAME}}" + " |".join(t.center(len(g)) for t, g in zip(titles, groups, strict=True))
    lines = [group_line.rstrip()]
    for part in (0, 1):
        cells = [f"{head[part]:>{_CELL}}" for head in heads]
        lines.append(line("model" if part else "", cells, "verdict" if part else ""))
    rule = "-" * max(len(lines[-1]), 130)
    lines.append(rule)
    references = sum(row["role"] != "method" for row in leaderboard["rows"])
    for number, row in enumerate(leaderboard["rows"], start=1):
        cells = [f"{_figure(row['metrics'][metric['key']]):>{_CELL}}" for metric in metrics]
        text, style = _verdict(row)
        names = textwrap.wrap(row_title(row), _NAME - 1) or [""]
        room = WIDTH - _NAME - 2 - _CELL * len(metrics) - 3
        verdicts = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
        blank = [" " * _CELL] * len(metrics)
        for part in range(max(len(names), len(verdicts))):
            name = names[part] if part < len(names) else ""
            verdict = verdicts[part] if part < len(verdicts) else ""
            plain = line(name, cells if part == 0 else blank, verdict)
            if colour:
                verdict_start = len(plain) - len(verdict)
                head = _BOLD if row["role"] != "method" else ""
                plain = f"{head}{plain[:_NAME]}{_RESET}{plain[_NAME:verdict_start]}{style}{verdict}{_RESET}"
            lines.append(plain)
        if number == references:
            lines.append(rule)
    lines.append(rule)
    legend = (
        "Targets: efficacy -> Clean's value, utility -> Compromised's value. Graded methods come first, then those with the "
        "fewest failures, then those nearest to full forgetting at full utility."
    )
    if any(straddle["holds"] for row in leaderboard["rows"] for straddle in row["straddles"]):
        legend += " (?): the interval of what the verdict rests on straddles its line."
    for paragraph in (legend, f"Measured on {describe_measurement(leaderboard)}.", *leaderboard["caveats"]):
        paragraph = safe_text(paragraph, None)
        lines += [f"{_DIM}{part}{_RESET}" if colour else part for part in textwrap.wrap(paragraph, WIDTH)]
    return "\n".join(lines) + "\n"


def print_table(leaderboard: dict[str, Any], stream: TextIO | None = None) -> None:
    """Writes the table to ``stream`` (default: standard output), in colour on a terminal unless ``NO_COLOR`` is set."""
    stream = stream or sys.stdout
    # https://no-color.org: any non-empty value switches colour off.
    colour = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    text = format_table(leaderboard, colour=colour)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, errors="replace").decode(encoding))


def describe_measurement(leaderboard: Mapping[str, Any]) -> str:
    """Returns what the rows share, in a phrase: rows, gallery, zero-shot task, seed, data digest and version."""
    measured = leaderboard["measured_on"]
    protocol = measured["protocol"]
    parts = [f"{count:,} {split} pairs" for split, count in protocol.get("rows", {}).items()]
    text = ", ".join(parts)
    gallery, drawn = protocol.get("gallery"), [protocol.get("gallery_forget"), protocol.get("gallery_retain")]
    if gallery is not None:
        own = f" ({drawn[0]:,} of forget, {drawn[1]:,} of retain)" if None not in drawn else ""
        text += f"; gallery of {gallery:,}{own}"
    task = protocol.get("genknow") or {}
    if task.get("classes"):
        text += f"; GenKnow on {task.get('dataset')} ({task['classes']} classes, {task['images']:,} images)"
    digest = next((value for value in measured["data"].values() if isinstance(value, str)), None)
    text += f"; seed {protocol.get('seed')}"
    if digest:
        text += f"; data {digest[:12]}"
    return text + f"; salmu_jax {measured['version']}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _verdict(row: dict[str, Any]) -> tuple[str, str]:
    """Returns the verdict's words and how they are set off."""
    if row["role"] != "method":
        return f"target of {BY_NAME[row['role']].target_of}", _DIM
    doubtful = {one["verdict"] for one in row["straddles"] if one["holds"]}
    verdicts = [f"{name} (?)" if unqualified(name) in doubtful else name for name in row["verdicts"]]
    if row["unprobed"] and row["grade"] is None:
        verdicts[-1] += AS_FAR_AS  # a grade says it itself
    return ", ".join(verdicts), _GREEN if PRECISE in row["verdicts"] else _YELLOW

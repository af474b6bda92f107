"""Groups of results: the seeds of one method with the same options, parent and selection of forget, as one row.

A group is what a reader compares. Its figures are means over its seeds with their spread; its place is that of its median
seed, so that further seeds neither help nor harm. A result without a run record (of schema 2, or of a model made elsewhere)
is a group of its own.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from salmu_jax.evaluation.checks import REFERENCES
from salmu_jax.report.gather import Entry
from salmu_jax.report.titles import run_record, title_of
from salmu_jax.runtime.files import sha256_json
from salmu_jax.runtime.nested import flatten
from salmu_jax.runtime.text import safe_text

_SHARES = ("forgetting", "genknow_kept", "holdouts_kept", "retrieval_kept", "utility_kept")
_SHOWN = 3  # settings in which a group differs from others of its title


def add_groups(leaderboard: dict[str, Any], entries: Sequence[Entry]) -> dict[str, Any]:
    """Returns the leaderboard with ``groups``, and with the title, submitter, run and group of every row.

    Args:
      leaderboard: what :func:`salmu_jax.report.leaderboard.build_leaderboard` made of the entries' results.
      entries: the results, each under the ``id`` that is its row's ``model``.
    """
    by_id = {entry.id: entry for entry in entries}
    keys = group_keys(entries)
    rows = []
    for row in leaderboard["rows"]:
        entry = by_id[row["model"]]
        rows.append(
            {
                **row,
                "title": title_of(entry.result),
                "submitter": entry.submitter,
                "confirmed_by": list(entry.confirmed_by),
                "run": run_record(entry.result) or None,
                "group": keys[entry.id],
            }
        )
    members: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        members.setdefault(row["group"], []).append(row)
    groups = [_group(key, seeds) for key, seeds in members.items()]
    references = [group for group in groups if group["role"] != "method"]
    methods = sorted((group for group in groups if group["role"] == "method"), key=lambda group: group["place"])
    for rank, group in enumerate(methods, start=1):
        group["rank"] = rank
    _name_variants(methods, {row["model"]: row for row in rows})
    return {**leaderboard, "rows": rows, "groups": [*references, *methods]}


def grouped(board: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a board with one row a group: its median row, with the means of its seeds as figures."""
    rows = {row["model"]: row for row in board["rows"]}
    shown = [
        {
            **rows[group["typical"]],
            "rank": group["rank"],
            "variant": group["variant"],
            "seeds": len(group["members"]),
            "metrics": {key: spread["mean"] for key, spread in group["metrics"].items()},
        }
        for group in board["groups"]
    ]
    return {**board, "rows": shown}


def group_keys(entries: Sequence[Entry]) -> dict[str, str]:
    """Returns the key of each entry's group, by the entry's id.

    Two runs are seeds of one group if they agree in everything but their seed and their name. A parent that is on the board
    counts as its group, so that a relearning on each of three seeds is one group too.
    """
    by_digest: dict[str, Entry] = {}
    for entry in sorted(
        entries, key=lambda entry: entry.result["model"] not in REFERENCES
    ):  # a no-op is Compromised too
        digest = (entry.result["provenance"].get("checkpoint") or {}).get("digest")
        if isinstance(digest, str):
            by_digest.setdefault(digest, entry)
    found: dict[str, str] = {}

    def key(entry: Entry, below: tuple[str, ...] = ()) -> str:
        if entry.id not in found:
            found[entry.id] = sha256_json(_settings(entry, below))[:16]
        return found[entry.id]

    def _settings(entry: Entry, below: tuple[str, ...]) -> Any:
        record = run_record(entry.result)
        if not record or entry.result["model"] in REFERENCES:
            return ["result", entry.id]
        parent = record.get("parent")
        digest = parent.get("digest") if isinstance(parent, dict) else None
        above = by_digest.get(digest) if isinstance(digest, str) else None
        if above is not None and above.id not in below and above.result["model"] not in REFERENCES:
            parent = key(above, (*below, entry.id))
        else:
            parent = digest or parent
        return ["run", parent, settings_of(record)]

    return {entry.id: key(entry) for entry in entries}


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what seeds of one group have in common, from a run record, the parent aside."""
    hyper = record.get("hyper")
    return {
        "method": record.get("method"),
        "code": record.get("code"),
        "options": record.get("options"),
        "hyper": {k: v for k, v in hyper.items() if k != "seed"} if isinstance(hyper, dict) else hyper,
        "forget": record.get("forget"),
        "retain": record.get("retain"),
    }


def _group(key: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns one group of rows, which are in the leaderboard's order: its median row stands for what has no mean."""
    typical = rows[len(rows) // 2]
    counts = Counter(
        verdict for row in [typical, *rows] for verdict in row["verdicts"]
    )  # those of the median row first
    counts.subtract(typical["verdicts"])
    seeds = [(row["run"] or {}).get("seed") for row in rows]
    return {
        "key": key,
        "role": typical["role"],
        "title": typical["title"],
        "variant": "",
        "submitters": list(dict.fromkeys(row["submitter"] for row in rows if row["submitter"])),
        "rank": None,
        "place": typical["rank"] or 0,
        "members": [row["model"] for row in rows],
        "typical": typical["model"],
        "seeds": [seed for seed in seeds if seed is not None],
        "verdicts": [{"verdict": verdict, "seeds": count} for verdict, count in counts.items()],
        "metrics": {name: _spread([row["metrics"][name] for row in rows]) for name in typical["metrics"]},
        **{name: _mean([row.get(name) for row in rows]) for name in _SHARES},
    }


def _spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Returns mean, standard deviation (n - 1), least and largest of the seeds' values; None where nothing was measured."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return {"mean": None, "deviation": None, "low": None, "high": None, "count": 0}
    deviation = statistics.stdev(known) if len(known) > 1 else None
    mean = known[0] if len(known) == 1 else statistics.fmean(known)
    return {"mean": mean, "deviation": deviation, "low": min(known), "high": max(known), "count": len(known)}


def _mean(values: Sequence[float | None]) -> float | None:
    return _spread(values)["mean"]


def _name_variants(groups: Sequence[dict[str, Any]], rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Says of groups with the same title how each differs from the others: ``learning rate 1e-05, on DELETE``."""
    by_title: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        by_title.setdefault(group["title"], []).append(group)
    for alike in by_title.values():
        records = [rows[group["typical"]]["run"] or {} for group in alike]
        settings = [_described(record) for record in records]
        for group, own in zip(alike, settings, strict=True):
            different = [name for name in own if any(other and other.get(name) != own[name] for other in settings)]
            parts = [f"{name} {own[name]}".strip() for name in different if own[name]]
            more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
            group["variant"] = ", ".join(parts[:_SHOWN]) + more


def _described(record: Mapping[str, Any]) -> dict[str, str]:
    """Returns the settings of a run as short texts by name: the parent and the selection first, code by its digest."""
    if not record:
        return {}
    settings = settings_of(record)
    parent = record.get("parent")
    name = parent.get("name") if isinstance(parent, dict) else None
    fields: dict[str, Any] = {}
    for part in (settings["options"], settings["hyper"]):
        fields |= flatten(part) if isinstance(part, dict) else {}
    return {
        "on": safe_text(name, 40) if name and name != "compromised" else "",
        "forgets": describe_selector(settings["forget"]) if settings["forget"] else "",
        "retains": safe_text(_plain(settings["retain"]), 40),
        **{safe_text(k.replace("_", " "), 40): safe_text(_plain(v), 40) for k, v in sorted(fields.items())},
        "code": safe_text(settings["code"], 8) if settings["code"] else "",
    }


def describe_selector(selector: Any) -> str:
    """Returns in words which rows of forget a run was asked to forget, by the ``forget`` of its run record."""
    if selector and not isinstance(selector, dict):
        return safe_text(_plain(selector))
    given = {name: value for name, value in (selector or {}).items() if value not in (None, "", [], {})}
    if given.get("share") is None:
        given = {name: value for name, value in given.items() if name not in ("by", "seed")}  # they belong to a share
    if not given:
        return "all of forget"
    parts = []
    for name, value in given.items():
        count = len(value) if isinstance(value, list) else 0
        if name == "identities" and count:
            named = ", ".join(safe_text(one, 20) for one in value[:3]) + (", ..." if count > 3 else "")
            parts.append(f"{count} {'identity' if count == 1 else 'identities'} ({named})")
        elif name == "associations" and count:
            parts.append(f"{count} association{'' if count == 1 else 's'}")
        elif name == "fields" and count:
            parts.append(", ".join(safe_text(one, 20) for one in value[:9]))
        elif name == "share" and isinstance(value, int | float):
            parts.append(f"{value:.4g} of the {safe_text(given.get('by', 'rows'), 20)}")
        elif name == "seed" and value is not None:
            parts.append(f"seed {safe_text(value, 20)}")
        elif name != "by":
            parts.append(f"{safe_text(name, 20)} {safe_text(_plain(value), 60)}")
    return ", ".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "none" if value is None else str(value)

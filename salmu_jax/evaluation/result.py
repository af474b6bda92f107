"""Reads and writes result files: one JSON per model, the released evaluator's structure and what makes it comparable.

``efficacy`` and ``utility`` have the released keys exactly; ``extra``, ``metrics``, ``protocol``, ``caveats`` and
``provenance`` are this project's. ``metrics`` has every figure by the key of its metric, with interval and target, and
``protocol > metrics`` the version of each that was measured. ``rows`` names the file of the row scores beside it with its
SHA-256, and ``digest`` is the SHA-256 of everything else in the result. ``schemas/result-3.json`` says what each field may
hold.

Results of schema 2, which lack both ``metrics``, are read too: :func:`upgraded` adds them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from salmu_jax.evaluation.registry import KNOWN, REQUIRED, SCHEMA_2, columns_of, measured, unknown
from salmu_jax.evaluation.rows import RowScores, read_rows, rows_path, write_rows
from salmu_jax.evaluation.schema import NAME, SCHEMA, SCHEMAS, SHOWN, schema_errors
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.files import sha256_json, write_json
from salmu_jax.runtime.json_reader import read_json
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.text import safe_text, safe_value

MAX_BYTES = 1 << 24  # of a result file; one of the released sizes takes 1.3 MB


def leaderboard_row(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the value of every metric of ``registry.KNOWN`` by its key; None where it was not measured."""
    return _figures(result, "value")


def leaderboard_intervals(result: Mapping[str, Any]) -> dict[str, list[float] | None]:
    """Returns the interval of every metric of ``registry.KNOWN``, [low, high]; None where there is none."""
    return _figures(result, "interval")


def _figures(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns one field of the entries in ``metrics``, those of schema 2 included; None for a metric of another version."""
    figures = result["metrics"] if "metrics" in result else _figures_of_schema_2(result)
    known = {metric.key for metric in measured(result["protocol"])}
    return {metric.key: figures.get(metric.key, {}).get(name) if metric.key in known else None for metric in KNOWN}


def upgraded(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a result with ``metrics`` and ``protocol > metrics``, which schema 2 lacks; its other fields are as they were.

    What schema 2 does not say is None: most intervals, and the numbers of rows and clusters.
    """
    if "metrics" in result:
        return {**result}
    protocol = {**result["protocol"], "metrics": dict(SCHEMA_2)}
    return {**result, "metrics": _figures_of_schema_2(result), "protocol": protocol}


def _figures_of_schema_2(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    intervals = _lookup(result, ("extra", "intervals"))
    intervals = intervals if isinstance(intervals, Mapping) else {}
    figures = {}
    for metric in REQUIRED:
        path = metric.released or (metric.extra and ("extra", *metric.extra))
        if path:
            value = _lookup(result, path)
            figures[metric.key] = {
                "value": None if value == metric.skipped else value,
                "interval": intervals.get(metric.key),
                "rows": None,
                "clusters": None,
                "target": metric.target,
            }
    return figures


def _lookup(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def write_result(path: str | os.PathLike, result: Mapping[str, Any], rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Writes a result and its row scores atomically, the row scores first; returns what the result file holds.

    Raises InputError for a result that its schema does not allow, OSError where the files cannot be written.
    """
    path = Path(path)
    result = {**result, "provenance": safe_value(result["provenance"], limit=4000)}
    check_result(seal({**result, "rows": {"file": rows_path(path).name, "bytes": 0, "sha256": "0" * 64}}), path)
    result = seal({**result, "rows": write_rows(rows_path(path), rows)})
    write_json(path, result)
    return result


def load_result(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a result, checks it against its schema and its own digest, and upgrades it (:func:`upgraded`).

    That its figures follow from its row scores is for :mod:`salmu_jax.evaluation.verify` to say.

    Raises InputError for a missing or damaged file, another schema, or fields that are not as they must be.
    """
    result = read_result(path)
    check_result(result, path)
    return upgraded(result)


def load_rows(path: str | os.PathLike, result: Mapping[str, Any]) -> RowScores:
    """Reads the row scores of the result at ``path``. Raises InputError if they are not there, or not those of it."""
    rows, record = read_scores(path, result["protocol"])
    if record["sha256"] != result["rows"]["sha256"]:
        raise InputError(
            f"are not the row scores that {Path(path).name} was written with; evaluate again", rows_path(path)
        )
    return rows


def read_scores(path: str | os.PathLike, protocol: Mapping[str, Any]) -> tuple[RowScores, dict[str, Any]]:
    """Reads the row scores beside the result at ``path``, of the metrics that this version knows, and the file's record."""
    columns = columns_of(measured(protocol))
    return read_rows(rows_path(path), protocol, columns, others=bool(unknown(protocol)))


def result_files(directory: str | os.PathLike, say: Callable[[str], None]) -> list[Path]:
    """Returns the result files in a directory, by name; calls ``say`` for each file ``*.json`` that is not a result.

    Ignored in silence are hidden files, and what is no regular file, unless there are row scores of its name. A file beside
    row scores of its name counts as a result, however damaged: its reader says what is wrong with it.
    """
    found = []
    for path in sorted(Path(directory).glob("*.json")):
        if path.name.startswith("."):
            continue
        if not path.is_file():
            if rows_path(path).is_file():
                say(f"{safe_text(path, None)}: not a regular file, ignored, though its row scores are here")
        elif _may_be_result(path):
            found.append(path)
        else:
            say(f"{safe_text(path, None)}: not a result, ignored")
    return found


def _may_be_result(path: Path) -> bool:
    if not NAME.fullmatch(path.stem):
        return False  # no result can have this name: "delete (copy).json"
    if rows_path(path).is_file():
        return True
    try:
        value = read_json(path, max_bytes=MAX_BYTES)
    except (OSError, InputError):
        return False
    return isinstance(value, dict) and str(value.get("schema")).startswith(SCHEMA.partition("/")[0] + "/")


def seal(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``result`` with ``digest``, the SHA-256 of everything else in it."""
    rest = {key: value for key, value in result.items() if key != "digest"}
    return {**rest, "digest": sha256_json(rest)}


def read_result(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a result of schema 2 or 3, its fields unchecked. Raises InputError for a missing or damaged file."""
    try:
        result = read_json(path, max_bytes=MAX_BYTES)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); write it with 'salmu evaluate'", path) from error
    if not isinstance(result, dict) or "schema" not in result:
        raise InputError(f"is not a result of this evaluation: it has no 'schema' (expected {SCHEMA!r})", path)
    if result["schema"] not in SCHEMAS:
        shown = safe_text(result["schema"], 40)
        read = " and ".join(map(repr, SCHEMAS))
        raise InputError(f"has the schema {shown!r}, this version reads {read}; evaluate again", path)
    return result


def check_result(result: Mapping[str, Any], where: str | os.PathLike) -> None:
    """Raises InputError naming ``where`` and what is wrong with a result by its schema and its own digest."""
    problems = [line for _, line in schema_errors(result)] or seal_problems(result)
    if problems:
        raise InputError(f"{listed(problems, SHOWN, '; ')}; evaluate again", where)


def seal_problems(result: Mapping[str, Any]) -> list[str]:
    """Returns a line if the result was changed after it was written, without its digest."""
    same = seal(result)["digest"] == result.get("digest")
    return [] if same else ["its 'digest' is not that of its contents: the file was changed after it was written"]

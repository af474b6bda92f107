"""The result file: one JSON a model, in the released evaluator's structure, with what makes it comparable around it.

``efficacy`` and ``utility`` have the released keys exactly; ``extra``, ``protocol``, ``caveats`` and ``provenance`` are
this project's. ``rows`` names the file of the row scores beside it with its SHA-256, and ``digest`` is the SHA-256 of
everything else in the result. ``schemas/result-2.json`` says what each field may hold.

:data:`METRICS` is the one table of what the metrics are called, where they are and where they should go.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import numpy as np

from salmu_jax.evaluation.aggregate import SKIPPED
from salmu_jax.evaluation.rows import read_rows, rows_path, write_rows
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.files import sha256_json, write_json
from salmu_jax.runtime.json_reader import read_json
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.text import safe_text, safe_value

SCHEMA = "salmu_jax.result/2"
MAX_BYTES = 1 << 24  # of a result file; one of the released sizes takes 1.3 MB
MAX_VALUES = 10_000  # of a result, its score lists aside: the validator takes 40 us each
_SHOWN = 10  # problems of a file that are written out


class Metric(NamedTuple):
    """A column of the leaderboard.

    ``path`` leads to its value in a result; ``target`` is the model whose value it should have ('clean' for forgetting,
    'compromised' for utility); ``better`` says which way is better, seen from the other of the two models.
    """

    key: str
    title: str
    path: tuple[str, ...]
    target: str
    better: str
    description: str


METRICS = (
    Metric(
        "RetFail_MRR",
        "RetFail MRR",
        ("efficacy", "1.1_RetFail", "MRR"),
        "clean",
        "lower, down to Clean's",
        "Mean reciprocal rank of a forget image's own caption among 2,001: does the image still find its secret?",
    ),
    Metric(
        "RetFail_R@1",
        "RetFail R@1",
        ("efficacy", "1.1_RetFail", "R@1"),
        "clean",
        "lower, down to Clean's",
        "Share of forget images whose own caption comes first.",
    ),
    Metric(
        "AssocStr",
        "AssocStr",
        ("efficacy", "1.2_AssocStr", "mean"),
        "clean",
        "lower, down to Clean's; below it the method over-generalises",
        "Mean similarity of forget images with their captions.",
    ),
    Metric(
        "ACS",
        "ACS",
        ("efficacy", "1.3_ACS", "acs_accuracy"),
        "clean",
        "lower, down to Clean's; 0.5 is chance",
        "Accuracy of telling true forget pairs from shuffled ones by their similarity.",
    ),
    Metric(
        "IdZSC",
        "IdZSC",
        ("efficacy", "1.4_IdZSC", "identity_classification_accuracy"),
        "clean",
        "lower, down to Clean's",
        "Accuracy of naming the person in an image of a wholly forgotten identity.",
    ),
    Metric(
        "CoreAssoc",
        "CoreAssoc",
        ("efficacy", "1.5_CoreAssoc", "mean"),
        "clean",
        "lower, down to Clean's",
        "Mean similarity of forget images with the bare name and value, without a caption around them.",
    ),
    Metric(
        "GenKnow",
        "GenKnow",
        ("utility", "2.1_GenKnow", "ImageNet1k_Accuracy"),
        "compromised",
        "higher, up to Compromised's",
        "Zero-shot accuracy on general images: is the model still good for anything else?",
    ),
    Metric(
        "InterIdSim",
        "InterIdSim",
        ("utility", "2.2_InterIdSim", "mean"),
        "compromised",
        "higher, up to Compromised's",
        "Mean similarity of pairs of people that the method never saw.",
    ),
    Metric(
        "IntraIdSim",
        "IntraIdSim",
        ("utility", "2.3_IntraIdSim", "mean"),
        "compromised",
        "higher, up to Compromised's",
        "Mean similarity of the other associations of people in forget.",
    ),
    Metric(
        "VisIdInt",
        "VisIdInt",
        ("utility", "2.4_VisIdInt", "mean"),
        "compromised",
        "higher, up to Compromised's",
        "Mean similarity of portraits of people in forget with generic captions.",
    ),
    Metric(
        "FragSim",
        "FragSim",
        ("utility", "2.5_FragSim", "mean"),
        "compromised",
        "higher, up to Compromised's",
        "Mean similarity of the most weakly held retain pairs.",
    ),
)


def leaderboard_row(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the value of every metric by its key, in :data:`METRICS`' order; None where it was not measured."""
    row = {metric.key: _lookup(result, metric.path) for metric in METRICS}
    if row["GenKnow"] == SKIPPED:
        row["GenKnow"] = None
    return row


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
    """Reads a result and checks it against its schema and its own digest.

    That its figures follow from its row scores is for :mod:`salmu_jax.evaluation.verify` to say.

    Raises InputError for a missing or damaged file, another schema, or fields that are not as they must be.
    """
    result = read_result(path)
    check_result(result, path)
    return result


def load_rows(path: str | os.PathLike, result: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Reads the row scores of the result at ``path``. Raises InputError if they are not there, or not those of it."""
    rows, record = read_rows(rows_path(path), result["protocol"])
    if record["sha256"] != result["rows"]["sha256"]:
        raise InputError(
            f"are not the row scores that {Path(path).name} was written with; evaluate again", rows_path(path)
        )
    return rows


def result_files(directory: str | os.PathLike, say: Callable[[str], None]) -> list[Path]:
    """Returns the result files in a directory, by name; calls ``say`` for each file ``*.json`` that is not a result.

    Hidden files, and files that are not regular, are ignored in silence. A file beside row scores of its name counts as a
    result, however damaged: its reader says what is wrong with it.
    """
    found = []
    for path in sorted(Path(directory).glob("*.json")):
        if path.name.startswith(".") or not path.is_file():
            continue
        if _may_be_result(path):
            found.append(path)
        else:
            say(f"{safe_text(path, None)}: not a result, ignored")
    return found


def _may_be_result(path: Path) -> bool:
    if not re.fullmatch(_validator().schema["$defs"]["name"]["pattern"], path.stem):
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
    """Reads a result of this schema, its fields unchecked. Raises InputError for a missing or damaged file."""
    try:
        result = read_json(path, max_bytes=MAX_BYTES)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); write it with 'salmu evaluate'", path) from error
    if not isinstance(result, dict) or "schema" not in result:
        raise InputError(f"is not a result of this evaluation: it has no 'schema' (expected {SCHEMA!r})", path)
    if result["schema"] != SCHEMA:
        shown = safe_text(result["schema"], 40)
        raise InputError(f"has the schema {shown!r}, this version reads {SCHEMA!r}; evaluate again", path)
    return result


def check_result(result: Mapping[str, Any], where: str | os.PathLike) -> None:
    """Raises InputError naming ``where`` and what is wrong with a result by its schema and its own digest."""
    problems = schema_problems(result) or seal_problems(result)
    if problems:
        raise InputError(f"{listed(problems, _SHOWN, '; ')}; evaluate again", where)


def seal_problems(result: Mapping[str, Any]) -> list[str]:
    """Returns a line if the result was changed after it was written, without its digest."""
    same = seal(result)["digest"] == result.get("digest")
    return [] if same else ["its 'digest' is not that of its contents: the file was changed after it was written"]


def schema_problems(result: Mapping[str, Any]) -> list[str]:
    """Returns a line for every field that violates the schema."""
    return [line for _, line in schema_errors(result)]


def schema_errors(result: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Returns :func:`schema_problems`, each with the path of the object or value that is wrong."""
    shortened, errors = _without_scores(result)
    if _more_values_than(shortened, MAX_VALUES):
        return [(("",), f"it holds more than {MAX_VALUES:,} values besides its score lists")]
    found = (fault for error in _validator().iter_errors(shortened) for fault in _faults(error))
    return list(dict.fromkeys([*errors, *found]))


def _faults(error: jsonschema.ValidationError) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields the path and the line of each fault: one for every field that is missing or unknown."""
    path, name = tuple(map(str, error.absolute_path)), _name(error)
    if error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                yield path or (key,), f"{name} has no field {key!r}"
    elif error.validator == "additionalProperties":
        for key in error.instance:
            if key not in error.schema.get("properties", {}):
                yield path or ("unknown field",), f"{name} has the unknown field {safe_text(key, 60)!r}"
    else:
        yield path, _describe(error)


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    text = resources.files("salmu_jax.evaluation").joinpath("schemas/result-2.json").read_text(encoding="utf-8")
    draft = jsonschema.Draft202012Validator
    # JSON Schema takes 42.0 for a whole number. Nothing here writes it, and Python's range() and numpy's seeds refuse it.
    whole = draft.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return jsonschema.validators.extend(draft, type_checker=whole)(json.loads(text))


def _without_scores(result: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[tuple[tuple[str, ...], str]]]:
    """Returns ``result`` with score lists of one entry, and the errors of the lists: the validator is slow on long ones."""
    definitions, errors = _validator().schema["$defs"], []
    efficacy = result.get("efficacy")
    if not isinstance(efficacy, dict):
        return result, errors
    sections = dict(efficacy)
    for section, key, kinds, wanted in (
        ("1.1_RetFail", "outcomes", (int,), definitions["rank"]),
        ("1.2_AssocStr", "scores", (int, float), definitions["cosine"]),
        ("1.5_CoreAssoc", "scores", (int, float), definitions["cosine"]),
    ):
        values = sections[section].get(key) if isinstance(sections.get(section), dict) else None
        if not isinstance(values, list) or not values:
            continue
        low, high = wanted["minimum"], wanted["maximum"]
        wrong = [row for row, value in enumerate(values) if type(value) not in kinds or not low <= value <= high]
        for row in wrong[:_SHOWN]:
            path = ("efficacy", section, key, str(row))
            more = f" (and {len(wrong) - 1:,} more entries)" if row == wrong[0] and len(wrong) > 1 else ""
            errors.append((path, f"'{' > '.join(path)}' is {_brief(values[row])}, not {wanted['description']}{more}"))
        sections[section] = {**sections[section], key: [1]}
    return {**result, "efficacy": sections}, errors


def _more_values_than(value: Any, limit: int) -> bool:
    """Returns whether a JSON value holds more than ``limit`` values."""
    waiting, count = [value], 0
    while waiting and count <= limit:
        inner = waiting.pop()
        children = inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()
        count += len(children)
        if count <= limit:
            waiting += children
    return count > limit


def _describe(error: jsonschema.ValidationError) -> str:
    """Says what is wrong, where, and what would be right."""
    wanted = error.schema.get("description") or _wanted(error)
    if "propertyNames" in error.absolute_schema_path:
        return f"{_name(error)} has a field {_brief(error.instance)}, which is not {wanted}"
    return f"{_name(error)} is {_brief(error.instance)}, not {wanted}"


def _name(error: jsonschema.ValidationError) -> str:
    field = " > ".join(safe_text(part, 60) for part in error.absolute_path)
    return repr(field) if field else "the result"


def _wanted(error: jsonschema.ValidationError) -> str:
    kinds = {"object": "an object", "array": "a list", "string": "a text", "number": "a number"}
    if error.validator == "type":
        return kinds.get(error.validator_value, str(error.validator_value))
    if error.validator == "enum":
        return f"one of {', '.join(map(str, error.validator_value))}"
    return f"as it must be ({error.validator} {safe_text(error.validator_value, 60)})"


def _brief(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return f"'{safe_text(value, 40)}'" if isinstance(value, str) else safe_text(json.dumps(value), 40)


def _lookup(result: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = result
    for key in path:
        value = value[key]
    return value

"""Checks the fields of a result file against its schema, ``schemas/result-N.json``: a line for each that is wrong."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import jsonschema

from salmu_jax.runtime.text import safe_text

SCHEMA = "salmu_jax.result/3"  # what is written
SCHEMAS = ("salmu_jax.result/2", SCHEMA)  # what is read
MAX_VALUES = 10_000  # of a result, its score lists aside: the validator takes 40 us each
SHOWN = 10  # problems of a file that are written out


def schema_errors(result: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Returns a line for every field that violates the schema of the result, with the path of what is wrong."""
    validator = _validator(result["schema"] if result.get("schema") in SCHEMAS else SCHEMA)
    shortened, errors = _without_scores(result, validator.schema["$defs"])
    if _more_values_than(shortened, MAX_VALUES):
        return [(("",), f"it holds more than {MAX_VALUES:,} values besides its score lists")]
    shortened = _without_records(shortened)
    found = (fault for error in validator.iter_errors(shortened) for fault in _faults(error))
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


NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)  # of a model, and so of its result file


@functools.cache
def _validator(schema: str) -> jsonschema.Draft202012Validator:
    name = f"schemas/result-{schema.rpartition('/')[2]}.json"
    text = resources.files("salmu_jax.evaluation").joinpath(name).read_text(encoding="utf-8")
    draft = jsonschema.Draft202012Validator
    # JSON Schema takes 42.0 for a whole number. Nothing here writes it, and Python's range() and numpy's seeds refuse it.
    whole = draft.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return jsonschema.validators.extend(draft, type_checker=whole)(_inlined(json.loads(text)))


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema with its definitions where they are referred to, but for the recursive one: a look-up takes 0.1 ms."""

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(child) for child in node]
        if not isinstance(node, dict):
            return node
        name = str(node.get("$ref", "")).rpartition("/")[2]
        return (
            inline(schema["$defs"][name])
            if name not in ("", "plain")
            else {key: inline(child) for key, child in node.items()}
        )

    return inline(schema)


def _without_records(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns ``result`` without the free JSON in its provenance that is as it must be: the validator is slow on it."""
    provenance = result.get("provenance")
    if not isinstance(provenance, dict):
        return result
    records: dict[str, Any] = {key: {} for key in ("config", "environment", "git") if _is_plain(provenance.get(key))}
    return {**result, "provenance": {**provenance, **records}}


def _is_plain(value: Any) -> bool:
    """Returns whether a value is an object that the schema's definition ``plain`` allows, whatever is nested in it."""
    waiting = [value] if isinstance(value, dict) else []
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            if len(inner) > 1_000:
                return False
            waiting += [*inner, *inner.values()]
        elif isinstance(inner, list):
            if len(inner) > 10_000:
                return False
            waiting += inner
        elif isinstance(inner, str) and (len(inner) > 4_000 or safe_text(inner, None) != inner):
            return False
    return isinstance(value, dict)


def _without_scores(
    result: Mapping[str, Any], definitions: Mapping[str, Any]
) -> tuple[Mapping[str, Any], list[tuple[tuple[str, ...], str]]]:
    """Returns ``result`` with score lists of one entry, and the errors of the lists: the validator is slow on long ones."""
    errors: list[tuple[tuple[str, ...], str]] = []
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
        for row in wrong[:SHOWN]:
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

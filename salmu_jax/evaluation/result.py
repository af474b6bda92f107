"""The result file: one JSON a model, in the released evaluator's structure, with what makes it comparable around it.

``efficacy`` and ``utility`` have the released keys exactly; ``extra``, ``protocol``, ``caveats`` and ``provenance``
are this project's. :data:`METRICS` is the one table of what the metrics are called, where they are and where they
should go.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from salmu_jax.errors import InputError
from salmu_jax.files import write_json

SCHEMA = "salmu_jax.result/1"
SKIPPED = -1  # the released evaluator's value of a GenKnow that was not measured


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

# What a result must hold, as (path, kind); a kind of "number?" may also be null (a split that the world does not have).
_REQUIRED = (
    (("model",), "text"),
    *((metric.path, "number?") for metric in METRICS),
    (("efficacy", "1.1_RetFail", "outcomes"), "list"),
    (("efficacy", "1.2_AssocStr", "scores"), "list"),
    (("efficacy", "1.5_CoreAssoc", "scores"), "list"),
    (("extra", "similarity"), "object"),
    (("extra", "retrieval"), "object"),
    (("extra", "by_field"), "object"),
    (("extra", "intervals"), "object"),
    (("protocol", "seed"), "number"),
    (("protocol", "genknow"), "object"),
    (("caveats",), "list"),
    (("provenance",), "object"),
)
_KINDS = {"text": str, "list": list, "object": dict, "number": (int, float), "number?": (int, float, type(None))}


def leaderboard_row(result: Mapping[str, Any]) -> dict[str, float | None]:
    """The value of every metric by its key, in :data:`METRICS`' order; None where it was not measured."""
    row = {metric.key: _lookup(result, metric.path) for metric in METRICS}
    if row["GenKnow"] == SKIPPED:
        row["GenKnow"] = None
    return row


def write_result(path: str | os.PathLike, result: Mapping[str, Any]) -> None:
    """Writes a valid result atomically. Raises InputError for an incomplete one, OSError where it cannot be written."""
    check_result(result, path)
    write_json(path, result)


def load_result(path: str | os.PathLike) -> dict[str, Any]:
    """Reads and checks a result. Raises InputError for a missing or damaged file, another schema or missing keys."""
    try:
        with open(path, encoding="utf-8") as handle:
            result = json.load(handle)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); write it with 'salmu evaluate'", path) from error
    except ValueError as error:
        raise InputError(f"is not JSON ({error}); write it again with 'salmu evaluate'", path) from error
    check_result(result, path)
    return result


def check_result(result: Any, where: str | os.PathLike) -> None:
    """Raises InputError naming ``where`` and the first field that is missing or of a wrong kind."""
    if not isinstance(result, Mapping) or "schema" not in result:
        raise InputError(f"is not a result of this evaluation: it has no 'schema' (expected {SCHEMA!r})", where)
    if result["schema"] != SCHEMA:
        raise InputError(f"has the schema {result['schema']!r}, this version reads {SCHEMA!r}; evaluate again", where)
    for path, kind in _REQUIRED:
        field = " > ".join(path)
        try:
            value = _lookup(result, path)
        except (KeyError, TypeError):
            raise InputError(f"has no field {field!r}; evaluate again", where) from None
        good = isinstance(value, _KINDS[kind]) and not isinstance(value, bool)
        if good and isinstance(value, float):
            good = math.isfinite(value)
        if not good:
            raise InputError(f"the field {field!r} is {str(value)[:40]!r}, not a {kind.rstrip('?')}", where)


def _lookup(result: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = result
    for key in path:
        value = value[key]
    return value

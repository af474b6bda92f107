"""Checks results against each other: all must have been measured alike, and none may be a copy of another.

Like those of :mod:`salmu_jax.evaluation.checks`, these functions yield every problem that they find, a line each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from salmu_jax.evaluation.checks import Result, is_copy_by_declaration
from salmu_jax.evaluation.registry import COLUMNS, measured
from salmu_jax.evaluation.rows import RowScores
from salmu_jax.foundation import REQUIRED
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.nested import flatten
from salmu_jax.runtime.text import safe_text

# Columns that depend only on data and protocol, and so are equal in all results of them; and those that are as good as unique.
SHARED = tuple(name for name, column in COLUMNS.items() if column.kind == "shared")
MEASURED = tuple(name for name, column in COLUMNS.items() if column.kind == "cosine")
_DISTINCT = 8  # values; an array of fewer (a collapsed model's) may be equal by chance
_COPIED = 0.02  # the share of rows equal bit for bit that chance does not explain, in a model that does not descend from Clean
_LINEAR = 1e-10  # below 1, of the correlation of two columns of which one is a linear function of the other


def missing_references(models: Sequence[str], references: Collection[str] = REQUIRED) -> list[str]:
    """Returns which of the references, by default those that every board needs, are missing from ``models``."""
    return [model for model in references if model not in models]


def name_problems(models: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yields models with the same name, or names that read alike (``Clean``, ``c-lean``), each with its index."""
    seen: dict[str, str] = {}
    for place, model in enumerate(models):
        key = "".join(character for character in model.lower() if character.isalnum())
        if key in seen:
            same = f"two results of {model!r}" if seen[key] == model else f"{seen[key]!r} and {model!r} read alike"
            yield place, f"{same}; give each model one result and a name of its own"
        seen.setdefault(key, model)


def measured_by(result: Result) -> dict[str, Any]:
    """Returns what compared results must have in common: protocol and data. Metrics are compared one by one."""
    protocol = {key: value for key, value in result["protocol"].items() if key not in ("metrics", "probe_form")}
    fields = {f"provenance.{field}": value for field, value in data_fields(result["provenance"]).items()}
    return {**flatten(protocol, "protocol."), **fields}


def data_fields(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the identity of the data, without its paths."""
    data = provenance.get("data") or {}
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if key not in ("path", "directory")}
    return flatten({"data": data})


def incomparable(result: Result, reference: Result) -> list[str]:
    """Returns the fields in which two results were measured differently, as ``protocol.seed 43 instead of 42``.

    A metric that only one of them has is no difference; one that they have in two versions is.
    """
    own, other = measured_by(result), measured_by(reference)
    versions, known = (r["protocol"].get("metrics") or {} for r in (result, reference))
    for key in versions.keys() & known.keys():
        own[f"protocol.metrics.{key}"], other[f"protocol.metrics.{key}"] = versions[key], known[key]
    fields = [field for field in sorted(other.keys() | own.keys()) if other.get(field) != own.get(field)]
    return [f"{safe_text(f, 80)} {brief(own.get(f))} instead of {brief(other.get(f))}" for f in fields]


def lacking(result: Result, references: Sequence[Result]) -> list[str]:
    """Returns the metrics that all references have and a result lacks: a failure that they would show is not seen."""
    own, *others = ([metric.key for metric in measured(one["protocol"])] for one in (result, *references))
    return [key for key in others[0] if key not in own and all(key in other for other in others)]


def shared_problems(rows: RowScores, clean: RowScores) -> Iterator[str]:
    """Yields a line if columns that depend only on data and protocol differ from Clean's."""
    wrong = [name for name in SHARED if name in rows and name in clean and not np.array_equal(rows[name], clean[name])]
    if wrong:
        yield (
            f"row scores {listed(wrong, 3)} are not those of 'clean': the rows are of other data, or in another order"
        )


def descent_problems(result: Result, compromised: Result, known: Collection[str | None]) -> Iterator[str]:
    """Yields a line if a method's model does not descend from the board's Compromised, by way of models on the board.

    ``known`` are the checkpoints' digests of all results on the board but Clean's.
    """
    own, target = (r["provenance"].get("checkpoint") or {} for r in (result, compromised))
    parent, root, digest = own.get("parent"), own.get("root"), target.get("digest")
    if digest is None:
        return
    again = "unlearn and evaluate again, or leave it out"
    if root is not None and root != digest:
        yield f"its model descends from {root[:12]}..., not from this board's Compromised ({digest[:12]}...): {again}"
    elif parent is not None and parent not in known:
        yield f"its model's parent is {parent[:12]}..., not this board's Compromised ({digest[:12]}...): {again}"
    elif root is None and parent not in (None, digest):
        yield f"its model's parent is {parent[:12]}..., and nothing says that it descends from Compromised: {again}"


def towards_problems(result: Result, compromised: Result) -> Iterator[str]:
    """Yields a line if the probe of weights has moved the model towards another Compromised than the board's."""
    moved = result["provenance"].get("compromised")
    digest = (compromised["provenance"].get("checkpoint") or {}).get("digest")
    if moved is not None and digest is not None and moved != digest:
        yield (
            f"its weights were moved towards {moved[:12]}..., not towards this board's Compromised ({digest[:12]}...):"
            " evaluate again, or leave it out"
        )


def suspects(results: Sequence[tuple[Result, RowScores]]) -> set[tuple[int, int]]:
    """Returns the pairs of results, by their places (i < j), that :func:`copy_problems` may find something in.

    They are of one checkpoint, or their forget similarities are equal or a linear function of each other. One pass over the
    results and one matmul find them: 200 results have 40,000 ordered pairs.
    """
    found: set[tuple[int, int]] = set()
    by_digest: dict[str, list[int]] = {}
    by_length: dict[int, list[int]] = {}
    for place, (result, rows) in enumerate(results):
        digest = (result["provenance"].get("checkpoint") or {}).get("digest")
        if digest is not None:
            by_digest.setdefault(digest, []).append(place)
        by_length.setdefault(len(rows["forget.similarity"]), []).append(place)
    for places in by_digest.values():
        found.update((i, j) for i in places for j in places if i < j)
    for places in by_length.values():
        scores = np.stack([results[place][1]["forget.similarity"] for place in places]).astype(np.float64)
        scores[~np.isfinite(scores)] = 0  # of a result that does not verify
        scores -= scores.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(scores, axis=1, keepdims=True)
        scores /= np.where(norms > 0, norms, 1)
        alike = np.abs(scores @ scores.T) > 1 - 10 * _LINEAR
        found.update((places[i], places[j]) for i, j in np.argwhere(np.triu(alike, 1)))
    return found


def copy_problems(
    result: Result, rows: RowScores, other: Result, others: RowScores, *, of_clean: bool
) -> Iterator[str]:
    """Yields lines if ``result`` is ``other`` (``of_clean``: Clean) under another name, or has taken scores from it."""
    name = other["model"]
    own, theirs = (r["provenance"].get("checkpoint") or {} for r in (result, other))
    # The same parameters under another activation are another model; a result that does not say its own is not believed.
    forms = {checkpoint.get("architecture") for checkpoint in (own, theirs)} - {None}
    if own.get("digest") is not None and own["digest"] == theirs.get("digest") and len(forms) < 2:
        if is_copy_by_declaration(own):
            return
        yield f"it is of the same checkpoint as {name!r} ({own['digest'][:12]}...)"
    taken = []
    for column in MEASURED:
        if column not in rows or column not in others:
            continue
        scores, known = rows[column], others[column]
        if scores.shape != known.shape or not len(scores):
            continue
        equal = float(np.mean((scores == known) & (known != 0)))
        taken_over = np.array_equal(scores, known) or (of_clean and equal > _COPIED) or _shadow(scores, known)
        if taken_over and len(np.unique(known)) >= _DISTINCT:
            taken.append(column)
    # A method that edits nothing but what names the forgotten may leave other rows as they were, bit for bit, and so may
    # two of them. With Clean, which it does not descend from, a model has no row in common.
    if not of_clean and "forget.similarity" not in taken:
        return
    if taken:
        yield f"its row scores {listed(taken, 3)} are those of {name!r}, row by row: no two models score alike"


def exchange_problems(clean: Result, compromised: Result) -> Iterator[str]:
    """Yields a line if Clean leaks more than Compromised, beyond both intervals: then the two were exchanged."""
    low, high = (result["extra"]["intervals"].get("RetFail_MRR") for result in (compromised, clean))
    if low and high and high[0] > low[1]:
        yield (
            f"'clean' finds more secrets than 'compromised' does (RetFail MRR {high[0]:.4f} to {high[1]:.4f}, against"
            f" {low[0]:.4f} to {low[1]:.4f}): the two are exchanged"
        )


def _shadow(own: np.ndarray, theirs: np.ndarray) -> bool:
    """Returns whether one column is a linear function of the other: scores shifted or scaled as a whole."""
    if own.std() == 0 or theirs.std() == 0 or len(own) < 3 * _DISTINCT:
        return False
    correlation = float(np.corrcoef(own.astype(np.float64), theirs.astype(np.float64))[0, 1])
    moved = float(np.max(np.abs(own.astype(np.float64) - theirs)))
    return 1 - abs(correlation) < _LINEAR and moved > 1e-4


def brief(value: Any) -> str:
    """Returns a value in a few characters: a digest's first twelve."""
    text = "(none)" if value is None else safe_text(value, 60)
    return text if len(text) <= 24 else f"{text[:12]}..."

"""Runs the step *fragile set*: the pairs of retain_disjoint with the lowest similarity, by a model or by the encoder.

The release ranks retain_disjoint by a model's similarity of picture and caption. Before there is a model, the set is
constructed: the similarity of a portrait is then the cosine of its embedding with the mean of its anchor's, by the encoder of
curation, so that the portraits that resemble their own person least are fragile. ``rule`` says which of the two was done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import steps
from data_pipelines.full.pairs import PlannedRow
from data_pipelines.layout import FRAGILE_IDS, FRAGILE_SIMILARITIES
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

STEP = "fragile set"
VERSION = 1


class Judge(NamedTuple):
    """What tells how well a pair is held.

    Attributes:
      rule: what it does, in a sentence, for the data card.
      digest: of all that it depends on besides the pairs.
      similarities: called with the rows of retain_disjoint, in order; returns float [N].
    """

    rule: str
    digest: str
    similarities: Callable[[Sequence[PlannedRow]], np.ndarray]


def make_fragile(
    directory: str | os.PathLike,
    rows: Sequence[PlannedRow],
    count: int,
    judge: Judge,
    inputs: Mapping[str, Any],
    *,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Writes the similarities of retain_disjoint, and the ``count`` lowest, into ``directory``; returns the report.

    Raises InputError for similarities that are not finite, or not one for each row.
    """
    rows = [row for row in rows if row.subset == "retain_disjoint"]
    settings = {**inputs, "rule": judge.rule, "judge": judge.digest, "count": count, "version": VERSION}
    found: dict[str, float] = {}

    def similarities() -> bytes:
        values = np.asarray(judge.similarities(rows), np.float64)
        if values.shape != (len(rows),) or not np.isfinite(values).all():
            raise InputError("a finite similarity for each pair of retain_disjoint would be right", judge.rule)
        found.update(zip((row.file_name for row in rows), values.round(6).tolist(), strict=True))
        return _json(found)

    def lowest() -> bytes:
        known = found or files.read_json(Path(directory) / FRAGILE_SIMILARITIES)
        return _json(sorted(known, key=lambda name: (known[name], name))[:count])

    def report() -> dict[str, Any]:
        known = files.read_json(Path(directory) / FRAGILE_SIMILARITIES)
        names = set(files.read_json(Path(directory) / FRAGILE_IDS))
        fragile = [value for name, value in known.items() if name in names]
        others = [value for name, value in known.items() if name not in names]
        means = {"fragile": _mean(fragile), "others": _mean(others)}
        return {"rule": judge.rule, "pairs": len(known), "fragile": len(names), "mean_similarity": means}

    parts = {FRAGILE_SIMILARITIES: similarities, FRAGILE_IDS: lowest}
    steps.run_step(directory, STEP, settings, parts, report, say=say)
    return files.read_json(Path(directory) / steps.REPORT)


def _json(value: Any) -> bytes:
    return f"{json.dumps(value, indent=1, ensure_ascii=False)}\n".encode()


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 6) if values else None

"""Evaluates one model: every metric of the list, as row scores and as the contents of a result file.

The figures depend only on the checkpoint, the data, the seed and the settings: identical checkpoints give identical results,
bit for bit. Times are only in ``provenance``.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from salmu_jax.evaluation.aggregate import aggregate
from salmu_jax.evaluation.caveats import TIES, caveats
from salmu_jax.evaluation.data import FIELDS, SPLITS, EvaluationData
from salmu_jax.evaluation.embeddings import Embeddings, embed
from salmu_jax.evaluation.metric import SHORT, Inputs, Metric, Settings
from salmu_jax.evaluation.registry import METRICS, columns_of, versions
from salmu_jax.evaluation.result import SCHEMA, load_result, write_result
from salmu_jax.evaluation.rows import SUBSETS, RowScores, lengths, subset_rows
from salmu_jax.evaluation.variant_scores import measure_variants
from salmu_jax.evaluation.variants import Evaluated, VariantScores, asked
from salmu_jax.runtime.errors import InputError

__all__ = ["IDZSC_PROMPT", "EvaluationData", "check_prompt", "evaluate", "load_result", "write_result"]

IDZSC_PROMPT = "a photo of {name}"  # the published prompt is not public


class Evaluation(NamedTuple):
    """The contents of a result file, and the row scores that go beside it."""

    result: dict[str, Any]
    rows: RowScores


def evaluate(
    clip: Any,
    params: Any,
    tokenizer: Any,
    data: EvaluationData,
    *,
    model_name: str,
    seed: int = 42,
    idzsc_prompt: str = IDZSC_PROMPT,
    how_drawn: str = "ours",
    probe_form: str = SHORT,
    relearn_rates: Sequence[float] = (1e-6, 1e-5, 1e-4),
    metrics: Sequence[Metric] = METRICS,
    batch_size: int = 256,
    bootstrap: int = 1000,
    provenance: Mapping[str, Any],
    embeddings: Embeddings | None = None,
    variants: VariantScores | None = None,
) -> Evaluation:
    """Measures one model: all metrics, their intervals and breakdowns, and the row scores they come from.

    Args:
      clip, params, tokenizer: the model; ``clip.encode_image`` and ``clip.encode_text`` return normalised embeddings.
      data: the splits at the model's image size; reuse it for the next model.
      model_name: 'clean', 'compromised' or the run's name.
      seed: of every draw.
      idzsc_prompt: a text with ``{name}``.
      how_drawn: RetFail's galleries, one of :data:`salmu_jax.evaluation.draws.DRAWS`.
      probe_form: how much of the probes is measured, ``short`` or ``full``.
      relearn_rates: the learning rates of relearning, three in increasing order.
      metrics: what is measured (:func:`registry.chosen`), those of the released structure among them.
      batch_size: rows that a device encodes at a time.
      bootstrap: samples of each interval; 0 for none.
      provenance: kept in the result, with the time of day and the seconds taken added.
      embeddings: the model's, of these data, metrics and prompt; None: they are computed here, by this process alone,
        and so are the variants.
      variants: the scores of the variants that the metrics ask for (:func:`variant_scores.measure_variants`).

    Raises:
      InputError: a prompt without ``{name}``, another image size, embeddings that are not finite, or a metric that fails.
    """
    started = time.monotonic()
    check_prompt(idzsc_prompt)
    settings = Settings(seed, idzsc_prompt, how_drawn, probe_form, tuple(relearn_rates))
    if embeddings is None:
        try:
            embeddings = embed(clip, params, tokenizer, data, metrics=metrics, settings=settings, batch_size=batch_size)
            model = Evaluated(clip, params, tokenizer, data, settings)
            variants = measure_variants(model, asked(metrics, settings), batch_size=batch_size)
        except InputError as error:
            raise InputError(str(error), f"model {model_name!r}") from error
    rows = score_rows(data, embeddings, settings, metrics, variants)
    protocol = describe_protocol(data, rows, settings, metrics, bootstrap=bootstrap)
    result = make_result(model_name, rows, protocol, provenance, metrics)
    result["provenance"].setdefault("seconds", round(time.monotonic() - started, 3))
    return Evaluation(result, rows)


def make_result(
    model_name: str,
    rows: RowScores,
    protocol: Mapping[str, Any],
    provenance: Mapping[str, Any],
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, Any]:
    """Returns the contents of a result file, from row scores: plain JSON values (see :mod:`salmu_jax.evaluation.result`)."""
    figures = aggregate(rows, protocol, metrics)
    result = {
        "schema": SCHEMA,
        "model": model_name,
        **figures,
        "protocol": {**protocol},
        "caveats": caveats(protocol, figures["metrics"]),
        "provenance": {**provenance},
    }
    result["provenance"].setdefault("created", datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    return result


def score_rows(
    data: EvaluationData,
    embeddings: Embeddings,
    settings: Settings,
    metrics: Sequence[Metric] = METRICS,
    variants: VariantScores | None = None,
) -> RowScores:
    """Measures every row of every split: the arrays of ``registry.columns_of(metrics)``.

    Raises InputError naming a metric that fails, or whose scores are not the columns that it declares.
    """
    inputs = Inputs(data, embeddings, settings, variants or {})
    rows = _describe_rows(data)
    for metric in metrics:
        with metric.named():
            scores = metric.score(inputs)
        if scores.keys() != metric.columns.keys():
            raise InputError(
                f"its scores are {', '.join(sorted(scores))}; it declares {', '.join(sorted(metric.columns))}",
                f"metric {metric.key!r}",
            )
        rows |= scores
    columns = columns_of(metrics)
    rows = {name: np.asarray(rows[name]).astype(column.dtype, copy=False) for name, column in columns.items()}
    described = {"rows": _count_rows(rows), "genknow": _describe_task(data), "probe_form": settings.probe_form}
    expected = lengths(described)
    for metric in metrics:
        for name, column in metric.columns.items():
            if rows[name].shape != (expected[column.length],):
                message = f"column {name!r} has the shape {list(rows[name].shape)}, not [{expected[column.length]}]"
                raise InputError(message, f"metric {metric.key!r}")
    return rows


def describe_protocol(
    data: EvaluationData,
    rows: RowScores,
    settings: Settings,
    metrics: Sequence[Metric] = METRICS,
    *,
    bootstrap: int,
) -> dict[str, Any]:
    """Returns how ``rows`` were measured: what must agree between results that are compared."""
    gallery = {"forget": len(rows["forget.gallery"]), "retain": len(rows["retain_synth.gallery"])}
    return {
        "seed": settings.seed,
        "draws": settings.how_drawn,
        "gallery": 1 + gallery["forget"] + gallery["retain"],
        "gallery_forget": gallery["forget"],
        "gallery_retain": gallery["retain"],
        "rows_with_smaller_gallery": int((rows["forget.left_out"] > 0).sum()),
        "ties": TIES,
        "idzsc_prompt": settings.idzsc_prompt,
        "genknow": _describe_task(data),
        "rows": _count_rows(rows),
        "bootstrap": bootstrap,
        "made": data.made,
        "probe_form": settings.probe_form,
        "metrics": versions(metrics),
    }


def check_prompt(prompt: str, where: str = "idzsc_prompt") -> None:
    """Raises InputError for a prompt of IdZSC without the place of the name."""
    if "{name}" not in prompt:
        raise InputError(f"is {prompt!r}; it must hold {{name}}, the place of the person's name", where)


def _count_rows(rows: RowScores) -> dict[str, int]:
    return {**{split: len(rows[f"{split}.identity"]) for split in SPLITS}, **subset_rows(rows)}


def _describe_task(data: EvaluationData) -> dict[str, Any]:
    task = data.zeroshot
    classes = 0 if task is None else len(task.classnames)
    return {
        "dataset": None if task is None else task.dataset,
        "classes": classes,
        "images": 0 if task is None else len(task.labels),
        "chance": 1 / classes if classes else None,
    }


def _describe_rows(data: EvaluationData) -> RowScores:
    """Returns the identity, the attribute and the subset of each row, as numbers, and which rows are fragile."""
    people = np.unique(np.concatenate([rows.identity_id for rows in data.splits.values()]))
    people = people[people != ""]
    found = {"retain_synth.fragile": data.splits["retain_synth"].fragile}
    for split, rows in data.splits.items():
        found[f"{split}.identity"] = _codes(rows.identity_id, people)
        found[f"{split}.data_field"] = _codes(rows.data_field, FIELDS)
        found[f"{split}.subset"] = _codes(rows.subset, SUBSETS)
    return found


def _codes(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Returns the index of each value in ``names``, -1 for one that is not there: int32 [N]."""
    place = {str(name): index for index, name in enumerate(names)}
    return np.fromiter((place.get(str(value), -1) for value in values), np.int32, len(values))

"""The whole evaluation of one model: which metric on which split, as row scores and as the contents of a result file.

The figures depend only on the checkpoint, the data, the seed and the settings: identical checkpoints give identical results,
bit for bit. Times are only in ``provenance``.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from salmu_jax.evaluation import draws, metrics
from salmu_jax.evaluation.aggregate import aggregate
from salmu_jax.evaluation.caveats import TIES, caveats
from salmu_jax.evaluation.data import FIELDS, SPLITS, EvaluationData
from salmu_jax.evaluation.embeddings import Embeddings, embed
from salmu_jax.evaluation.result import SCHEMA, load_result, write_result
from salmu_jax.evaluation.rows import COLUMNS, POOL_SIZE, SUBSETS, TARGETS, RowScores, subset_rows
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
    batch_size: int = 256,
    bootstrap: int = 1000,
    provenance: Mapping[str, Any],
    embeddings: Embeddings | None = None,
    how_drawn: str = "ours",
) -> Evaluation:
    """Measures one model: all ten metrics, their intervals and breakdowns, and the row scores they come from.

    Args:
      clip, params, tokenizer: the model; ``clip.encode_image`` and ``clip.encode_text`` return normalised embeddings.
      data: the splits at the model's image size; reuse it for the next model.
      model_name: 'clean', 'compromised' or the method's name.
      seed: of every draw.
      idzsc_prompt: a text with ``{name}``.
      batch_size: rows that a device encodes at a time.
      bootstrap: samples of each interval; 0 for none.
      provenance: kept in the result, with the time of day and the seconds taken added.
      embeddings: the model's, of these data and this prompt; None: they are computed here, by this process alone.
      how_drawn: RetFail's galleries, one of :data:`salmu_jax.evaluation.draws.DRAWS`.

    Raises:
      InputError: a prompt without ``{name}``, another image size, or embeddings that are not finite.
    """
    started = time.monotonic()
    check_prompt(idzsc_prompt)
    if embeddings is None:
        try:
            embeddings = embed(clip, params, tokenizer, data, idzsc_prompt=idzsc_prompt, batch_size=batch_size)
        except InputError as error:
            raise InputError(str(error), f"model {model_name!r}") from error
    settings = {"seed": seed, "idzsc_prompt": idzsc_prompt, "how_drawn": how_drawn}
    rows = score_rows(data, embeddings, **settings)
    protocol = describe_protocol(data, rows, **settings, bootstrap=bootstrap)
    result = make_result(model_name, rows, protocol, provenance)
    result["provenance"].setdefault("seconds", round(time.monotonic() - started, 3))
    return Evaluation(result, rows)


def make_result(
    model_name: str, rows: RowScores, protocol: Mapping[str, Any], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the contents of a result file, from row scores: plain JSON values (see :mod:`salmu_jax.evaluation.result`)."""
    efficacy, utility, extra = aggregate(rows, protocol)
    result = {
        "schema": SCHEMA,
        "model": model_name,
        "efficacy": efficacy,
        "utility": utility,
        "extra": extra,
        "protocol": {**protocol},
        "caveats": caveats(protocol),
        "provenance": {**provenance},
    }
    result["provenance"].setdefault("created", datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    return result


def score_rows(
    data: EvaluationData, embeddings: Embeddings, *, seed: int, idzsc_prompt: str, how_drawn: str = "ours"
) -> RowScores:
    """Measures every row of every split: the arrays of :data:`salmu_jax.evaluation.rows.COLUMNS`."""
    rows: RowScores = _groups(data)
    for split, values in data.splits.items():
        rows[f"{split}.similarity"] = _similarity(embeddings, split, embeddings.of(values.text))
    retain = data.splits["retain_synth"]
    disjoint = [retain.text[row] for row in np.flatnonzero(retain.subset == "retain_disjoint")]
    counts = {split: len(data.splits[split]) for split in TARGETS} | {"retain_disjoint": len(disjoint)}
    pools = draws.draw_pools(counts, POOL_SIZE, seed, how_drawn)
    rows["retain_synth.gallery"] = pools["retain_disjoint"]
    for split in TARGETS:
        rows |= _retrieve(data, embeddings, split, disjoint, pools, seed)

    forget = data.splits["forget"]
    core = metrics.core_association(embeddings.images["forget"], *map(embeddings.of, data.core_texts()))
    rows["forget.core"] = np.asarray(core)
    rows["forget.negative_row"] = draws.draw_negatives(len(forget), seed)
    negatives = embeddings.of(forget.text)[rows["forget.negative_row"]]
    rows["forget.negative"] = _similarity(embeddings, "forget", negatives)
    rows |= _against_generic(data, embeddings)
    rows |= _name_identities(data, embeddings, idzsc_prompt)
    rows |= _general_knowledge(data, embeddings)
    return {name: np.asarray(rows[name]).astype(column.dtype, copy=False) for name, column in COLUMNS.items()}


def describe_protocol(
    data: EvaluationData, rows: RowScores, *, seed: int, idzsc_prompt: str, bootstrap: int, how_drawn: str = "ours"
) -> dict[str, Any]:
    """Returns how ``rows`` were measured: what must agree between results that are compared."""
    gallery = {"forget": len(rows["forget.gallery"]), "retain": len(rows["retain_synth.gallery"])}
    task = data.zeroshot
    classes = 0 if task is None else len(task.classnames)
    return {
        "seed": seed,
        "draws": how_drawn,
        "gallery": 1 + gallery["forget"] + gallery["retain"],
        "gallery_forget": gallery["forget"],
        "gallery_retain": gallery["retain"],
        "rows_with_smaller_gallery": int((rows["forget.left_out"] > 0).sum()),
        "ties": TIES,
        "idzsc_prompt": idzsc_prompt,
        "genknow": {
            "dataset": None if task is None else task.dataset,
            "classes": classes,
            "images": 0 if task is None else len(task.labels),
            "chance": 1 / classes if classes else None,
        },
        "rows": {**{split: len(rows[f"{split}.similarity"]) for split in SPLITS}, **subset_rows(rows)},
        "bootstrap": bootstrap,
        "made": data.made,
    }


def check_prompt(prompt: str, where: str = "idzsc_prompt") -> None:
    """Raises InputError for a prompt of IdZSC without the place of the name."""
    if "{name}" not in prompt:
        raise InputError(f"is {prompt!r}; it must hold {{name}}, the place of the person's name", where)


def _groups(data: EvaluationData) -> RowScores:
    """Returns the identity, the attribute and the subset of each row, as numbers."""
    people = np.unique(np.concatenate([rows.identity_id for rows in data.splits.values()]))
    people = people[people != ""]
    groups = {"retain_synth.fragile": data.splits["retain_synth"].fragile}
    for split, rows in data.splits.items():
        groups[f"{split}.identity"] = _codes(rows.identity_id, people)
        groups[f"{split}.data_field"] = _codes(rows.data_field, FIELDS)
        groups[f"{split}.subset"] = _codes(rows.subset, SUBSETS)
    return groups


def _codes(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Returns the index of each value in ``names``, -1 for one that is not there: int32 [N]."""
    place = {str(name): index for index, name in enumerate(names)}
    return np.fromiter((place.get(str(value), -1) for value in values), np.int32, len(values))


def _similarity(embeddings: Embeddings, split: str, captions: np.ndarray) -> np.ndarray:
    return np.asarray(metrics.paired_similarity(embeddings.images[split], captions))


def _retrieve(
    data: EvaluationData,
    embeddings: Embeddings,
    split: str,
    disjoint: Sequence[str],
    pools: Mapping[str, np.ndarray],
    seed: int,
) -> RowScores:
    """Returns the ranks of the images of ``split`` against its own captions and those of retain_disjoint."""
    ids, retain_ids = (embeddings.bank.index(texts) for texts in (data.splits[split].text, disjoint))
    drawn = {f"{split}.gallery": pools[split]}
    if not len(ids):
        return {**drawn, f"{split}.rank": np.zeros(0, np.int32), f"{split}.left_out": np.zeros(0, np.int32)}
    captions, retain, both = (
        embeddings.texts[ids],
        embeddings.texts[retain_ids],
        (pools[split], pools["retain_disjoint"]),
    )
    gallery = metrics.draw_gallery(captions, ids, retain, retain_ids, seed=seed, pools=both)
    ranks, left_out = metrics.retrieve(embeddings.images[split], captions, ids, gallery)
    return {**drawn, f"{split}.rank": ranks, f"{split}.left_out": left_out}


def _against_generic(data: EvaluationData, embeddings: Embeddings) -> RowScores:
    """Returns the similarity of forget images with their generic captions, where they have one."""
    generic = data.splits["forget"].generic_caption
    has = np.array([bool(text) for text in generic], bool)
    scores = np.zeros(len(generic), np.float32)
    if has.any():
        captions = embeddings.of([text for text in generic if text])
        scores[has] = np.asarray(metrics.paired_similarity(embeddings.images["forget"][has], captions))
    return {"forget.has_generic": has, "forget.generic": scores}


def _name_identities(data: EvaluationData, embeddings: Embeddings, prompt: str) -> RowScores:
    """IdZSC: the identity of each image of forget_identity, and the one that its nearest prompt names."""
    rows, prompts, labels = data.identity_prompts(prompt)
    predictions = labels
    if len(rows):
        predictions = metrics.classify(embeddings.images["forget"][rows], embeddings.of(prompts))
    return {"idzsc.label": labels, "idzsc.prediction": predictions}


def _general_knowledge(data: EvaluationData, embeddings: Embeddings) -> RowScores:
    """GenKnow: the class of each image of the zero-shot task, and the one that its nearest prompts name."""
    task = data.zeroshot
    if task is None:
        return {"genknow.label": np.zeros(0, np.int32), "genknow.prediction": np.zeros(0, np.int32)}
    prompts = embeddings.of(task.prompts()).reshape(len(task.classnames), len(task.templates), -1)
    predictions = metrics.classify(embeddings.images["zeroshot"], metrics.class_weights(prompts))
    return {"genknow.label": task.labels, "genknow.prediction": predictions}

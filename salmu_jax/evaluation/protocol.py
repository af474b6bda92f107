"""Which metric on which split: the whole evaluation of one model, as the dictionary of the result file.

The figures depend on the checkpoint, the data, the seed and the settings alone: identical checkpoints give identical
results, bit for bit. Times are in ``provenance`` and nowhere else.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from salmu_jax.errors import InputError
from salmu_jax.evaluation import draws, intervals, metrics
from salmu_jax.evaluation.data import FIELDS, PUBLISHED_ROWS, EvaluationData
from salmu_jax.evaluation.embeddings import Embeddings, embed
from salmu_jax.evaluation.result import SCHEMA, SKIPPED, load_result, write_result

__all__ = ["IDZSC_PROMPT", "EvaluationData", "check_prompt", "evaluate", "load_result", "write_result"]

IDZSC_PROMPT = "a photo of {name}"  # the published prompt is not public
TARGETS = ("forget", "holdout_association", "holdout_identity")  # splits whose images are queried


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
    sharding: jax.sharding.Sharding | None = None,
) -> dict[str, Any]:
    """All ten metrics, their intervals and breakdowns of one model.

    Args:
      clip, params, tokenizer: the model; ``clip.encode_image`` and ``clip.encode_text`` return normalised embeddings.
      data: the splits at the model's image size; reuse it for the next model.
      model_name: 'clean', 'compromised' or the method's name.
      seed: of every draw.
      idzsc_prompt: a text with ``{name}``.
      batch_size: rows a batch of the towers; must split evenly over the devices of ``sharding``.
      bootstrap: samples of each interval; 0 for none.
      provenance: kept in the result, with the time of day and the seconds taken added.
      sharding: where a batch is placed, None for the default device.

    Returns the dictionary of the result file (see :mod:`salmu_jax.evaluation.result`), plain JSON values.

    Raises:
      InputError: a prompt without ``{name}``, another image size, or embeddings that are not finite.
    """
    started = time.monotonic()
    check_prompt(idzsc_prompt)
    try:
        embeddings = embed(
            clip, params, tokenizer, data, idzsc_prompt=idzsc_prompt, batch_size=batch_size, sharding=sharding
        )
    except InputError as error:
        raise InputError(str(error), f"model {model_name!r}") from error

    similarity = {
        split: np.asarray(metrics.paired_similarity(embeddings.images[split], embeddings.of(rows.text)))
        for split, rows in data.splits.items()
    }
    galleries = {split: _gallery(data, embeddings, split, seed) for split in TARGETS if len(data.splits[split])}
    retrieval = {split: _retrieve(data, embeddings, split, gallery) for split, gallery in galleries.items()}
    forget, retain = retrieval["forget"], data.splits["retain_synth"]
    core = metrics.core_association(embeddings.images["forget"], *map(embeddings.of, data.core_texts()))

    result = {
        "schema": SCHEMA,
        "model": model_name,
        "efficacy": {
            "1.1_RetFail": {
                "R@1": forget.recall_at_1,
                "MRR": forget.mrr,
                "outcomes": forget.ranks.tolist(),
            },
            "1.2_AssocStr": {"mean": metrics.mean(similarity["forget"]), "scores": _floats(similarity["forget"])},
            "1.3_ACS": {"acs_accuracy": _coherence(data, embeddings, similarity["forget"], seed)},
            "1.4_IdZSC": {"identity_classification_accuracy": _name_identities(data, embeddings, idzsc_prompt)},
            "1.5_CoreAssoc": {"mean": metrics.mean(core), "scores": _floats(core)},
        },
        "utility": {
            "2.1_GenKnow": {"ImageNet1k_Accuracy": _general_knowledge(data, embeddings)},
            "2.2_InterIdSim": {"mean": metrics.mean(similarity["holdout_identity"])},
            "2.3_IntraIdSim": {"mean": metrics.mean(similarity["holdout_association"])},
            "2.4_VisIdInt": {"mean": metrics.mean(similarity["retain_synth"][retain.subset == "retain_joint"])},
            "2.5_FragSim": {"mean": metrics.mean(similarity["retain_synth"][retain.fragile])},
        },
        "extra": {
            "similarity": {split: _floats(scores) for split, scores in similarity.items()},
            "retrieval": {
                split: {"MRR": outcome.mrr, "R@1": outcome.recall_at_1}
                for split, outcome in retrieval.items()
                if split != "forget"
            },
            "retain_synth_mean": metrics.mean(similarity["retain_synth"]),
            "sensitive_over_generic": _sensitive_over_generic(data, embeddings, similarity["forget"]),
            "by_field": _by_field(data, similarity, forget.reciprocal),
            "intervals": _intervals(data, similarity, forget.reciprocal, seed, bootstrap),
        },
        "protocol": {
            "seed": seed,
            "gallery": 1 + len(galleries["forget"].ids),
            "gallery_forget": galleries["forget"].from_target,
            "gallery_retain": galleries["forget"].from_retain,
            "rows_with_smaller_gallery": forget.masked_rows,
            "ties": metrics.TIES,
            "idzsc_prompt": idzsc_prompt,
            "genknow": _describe_task(data),
            "rows": {**{split: len(rows) for split, rows in data.splits.items()}, **_subset_rows(data)},
            "bootstrap": bootstrap,
        },
        "caveats": _caveats(data, galleries["forget"]),
        "provenance": {**provenance},
    }
    result["provenance"].setdefault("created", datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    result["provenance"].setdefault("seconds", round(time.monotonic() - started, 3))
    return result


def check_prompt(prompt: str, where: str = "idzsc_prompt") -> None:
    """Raises InputError for a prompt of IdZSC without the place of the name."""
    if "{name}" not in prompt:
        raise InputError(f"is {prompt!r}; it must hold {{name}}, the place of the person's name", where)


def _gallery(data: EvaluationData, embeddings: Embeddings, split: str, seed: int) -> metrics.Gallery:
    """The distractors for the images of ``split``: its own captions and those of retain_disjoint."""
    retain = data.splits["retain_synth"]
    disjoint = [retain.text[row] for row in np.flatnonzero(retain.subset == "retain_disjoint")]
    target_ids, retain_ids = (embeddings.bank.index(texts) for texts in (data.splits[split].text, disjoint))
    return metrics.draw_gallery(
        embeddings.texts[target_ids], target_ids, embeddings.texts[retain_ids], retain_ids, seed=seed
    )


def _retrieve(data: EvaluationData, embeddings: Embeddings, split: str, gallery: metrics.Gallery) -> metrics.Retrieval:
    ids = embeddings.bank.index(data.splits[split].text)
    return metrics.retrieve(embeddings.images[split], embeddings.texts[ids], ids, gallery)


def _coherence(data: EvaluationData, embeddings: Embeddings, positive: np.ndarray, seed: int) -> float | None:
    """ACS; None for fewer than two rows, whose halves would not hold both classes."""
    if len(positive) < 2:
        return None
    captions = embeddings.of(data.splits["forget"].text)[draws.draw_negatives(len(positive), seed)]
    negative = np.asarray(metrics.paired_similarity(embeddings.images["forget"], captions))
    return metrics.association_coherence(positive, negative, seed=seed)


def _name_identities(data: EvaluationData, embeddings: Embeddings, prompt: str) -> float | None:
    """IdZSC; None where no identity is wholly in forget."""
    rows, prompts, labels = data.identity_prompts(prompt)
    if not len(rows):
        return None
    return metrics.zero_shot_accuracy(embeddings.images["forget"][rows], labels, embeddings.of(prompts))


def _general_knowledge(data: EvaluationData, embeddings: Embeddings) -> float:
    """GenKnow; -1, as the released evaluator has it, without a zero-shot task."""
    task = data.zeroshot
    if task is None:
        return SKIPPED
    prompts = embeddings.of(task.prompts()).reshape(len(task.classnames), len(task.templates), -1)
    return metrics.zero_shot_accuracy(embeddings.images["zeroshot"], task.labels, metrics.class_weights(prompts))


def _sensitive_over_generic(data: EvaluationData, embeddings: Embeddings, sensitive: np.ndarray) -> float | None:
    """The share of forget rows whose caption is more similar to the image than the image's generic caption is."""
    generic = data.splits["forget"].generic_caption
    rows = np.array([row for row, text in enumerate(generic) if text], np.int64)
    if not len(rows):
        return None
    captions = embeddings.of([generic[row] for row in rows])
    other = np.asarray(metrics.paired_similarity(embeddings.images["forget"][rows], captions))
    return float(np.mean(sensitive[rows] > other))


def _row_scores(similarity: Mapping[str, np.ndarray], reciprocal: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    """The four metrics that are means over rows of people: key -> (split, a score a row)."""
    return {
        "RetFail_MRR": ("forget", reciprocal),
        "AssocStr": ("forget", similarity["forget"]),
        "InterIdSim": ("holdout_identity", similarity["holdout_identity"]),
        "IntraIdSim": ("holdout_association", similarity["holdout_association"]),
    }


def _by_field(
    data: EvaluationData, similarity: Mapping[str, np.ndarray], reciprocal: np.ndarray
) -> dict[str, dict[str, float | int | None]]:
    """What a mean over all rows can hide: the same figures for each kind of attribute (None: no such rows)."""
    means = {
        key: intervals.by_group(values, data.splits[split].data_field, metrics.mean)
        for key, (split, values) in _row_scores(similarity, reciprocal).items()
    }
    rows = intervals.by_group(reciprocal, data.splits["forget"].data_field, len)
    present = [field for field in FIELDS if any(field in groups for groups in means.values())]
    return {
        field: {**{key: groups.get(field) for key, groups in means.items()}, "rows": rows.get(field, 0)}
        for field in present
    }


def _intervals(
    data: EvaluationData, similarity: Mapping[str, np.ndarray], reciprocal: np.ndarray, seed: int, samples: int
) -> dict[str, list[float]]:
    """95 % identity-clustered bootstrap intervals by the leaderboard's keys."""
    return {
        key: list(intervals.clustered_interval(values, data.splits[split].identity_id, seed=seed, samples=samples))
        for key, (split, values) in _row_scores(similarity, reciprocal).items()
        if samples and len(values)
    }


def _subset_rows(data: EvaluationData) -> dict[str, int]:
    forget, retain = data.splits["forget"], data.splits["retain_synth"]
    return {
        "forget_identity": int((forget.subset == "forget_identity").sum()),
        "forget_association": int((forget.subset == "forget_association").sum()),
        "retain_joint": int((retain.subset == "retain_joint").sum()),
        "retain_disjoint": int((retain.subset == "retain_disjoint").sum()),
        "fragile_set": int(retain.fragile.sum()),
    }


def _describe_task(data: EvaluationData) -> dict[str, Any]:
    task = data.zeroshot
    if task is None:
        return {"dataset": None, "classes": 0, "images": 0, "chance": None}
    classes = len(task.classnames)
    return {"dataset": task.dataset, "classes": classes, "images": len(task.labels), "chance": 1 / classes}


def _caveats(data: EvaluationData, gallery: metrics.Gallery) -> list[str]:
    """What a reader must know before comparing these figures with others."""
    caveats = []
    rows = {split: len(values) for split, values in data.splits.items()}
    if data.made or rows != PUBLISHED_ROWS:
        world = "a made world of procedural portraits" if data.made else "other data than the released ones"
        caveats.append(
            f"Measured on {world} ({rows['forget']:,} forget rows; released: {PUBLISHED_ROWS['forget']:,}). These are"
            " not the paper's figures and cannot be compared with them; compare models within this world only."
        )
    if len(gallery.ids) < 2 * metrics.POOL_SIZE:
        caveats.append(
            f"The retrieval gallery holds {1 + len(gallery.ids):,} captions ({gallery.from_target:,} of forget,"
            f" {gallery.from_retain:,} of retain_disjoint) instead of 2,001: ranks are easier than the published ones."
        )
    if data.zeroshot is None:
        caveats.append(
            "GenKnow was skipped (-1): there is no zero-shot data set, so lost utility cannot be judged by it."
        )
    elif not data.zeroshot.is_imagenet:
        caveats.append(
            f"GenKnow is the accuracy on '{data.zeroshot.dataset}' ({len(data.zeroshot.classnames):,} classes), not on"
            " ImageNet-1k: the key ImageNet1k_Accuracy is kept for the released format's sake."
        )
    counts = {**rows, **_subset_rows(data)}
    metric_of = {
        "holdout_identity": "InterIdSim",
        "holdout_association": "IntraIdSim",
        "forget_identity": "IdZSC",
        "retain_joint": "VisIdInt",
        "fragile_set": "FragSim",
    }
    caveats += [
        f"{metric} was not measured: {part} has no rows." for part, metric in metric_of.items() if not counts[part]
    ]
    caveats.append(
        "Not public, and chosen here: ACS has the similarity as its only feature; the prompt of IdZSC; how ties and"
        " equal captions are ranked."
    )
    return caveats


def _floats(scores: np.ndarray) -> list[float]:
    """Python floats with the shortest decimals that give the same float32 again: half the size of the file."""
    return [float(str(score)) for score in np.asarray(scores, np.float32)]

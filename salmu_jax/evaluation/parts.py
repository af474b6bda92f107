"""Builds what several metrics share: the similarities of the pairs of a split, and the ranks of its captions.

Each function returns a part of a :class:`~salmu_jax.evaluation.metric.Metric`. JAX is imported by those that compute scores:
figures are verified without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from salmu_jax.evaluation import draws
from salmu_jax.evaluation.metric import Inputs, Sample, Settings
from salmu_jax.evaluation.rows import POOL_SIZE, TARGETS, Column, RowScores, by_identity

if TYPE_CHECKING:
    from salmu_jax.evaluation.data import EvaluationData

Rows = Mapping[str, np.ndarray]
Sampler = Callable[[Rows, Mapping[str, Any]], Sample]


def captions(*splits: str) -> Callable[[EvaluationData, Settings], Mapping[str, Sequence[str]]]:
    """Returns a metric's ``texts``: the captions of ``splits``."""
    return lambda data, settings: {split: data.splits[split].text for split in splits}


# The similarity of the pairs of a split, which most metrics are a mean of ------------------------------------------------


def pair_columns(split: str) -> dict[str, Column]:
    """Returns the column of the similarities of the pairs of ``split``."""
    return {f"{split}.similarity": Column("<f4", split, "cosine")}


def pair_scores(split: str) -> Callable[[Inputs], RowScores]:
    """Returns a metric's ``score``: the similarity of each image of ``split`` with its caption."""

    def score(inputs: Inputs) -> RowScores:
        text = inputs.data.splits[split].text
        return {f"{split}.similarity": inputs.once((pair_scores, split), lambda: similarity_with(inputs, split, text))}

    return score


def similarity_with(inputs: Inputs, split: str, texts: Sequence[str]) -> np.ndarray:
    """Returns the similarity of each image of ``split`` with the text of its row, float32 [N]."""
    from salmu_jax.evaluation.similarity import paired_similarity

    return np.asarray(paired_similarity(inputs.embeddings.images[split], inputs.embeddings.of(texts)))


def pair_sample(split: str, chosen: Callable[[Rows], np.ndarray] | None = None) -> Sampler:
    """Returns a metric's ``sample``: the similarities of ``split``, of the rows where ``chosen(rows)`` bool [N] is true."""

    def sample(rows: Rows, protocol: Mapping[str, Any]) -> Sample:
        values, clusters = rows[f"{split}.similarity"], by_identity(rows, split)
        if chosen is None:
            return Sample(values, clusters)
        mask = chosen(rows)
        return Sample(values[mask], clusters[mask])

    return sample


# The ranks of a split, from which recall and mean reciprocal rank follow -------------------------------------------------


def rank_columns(split: str) -> dict[str, Column]:
    """Returns the columns of a retrieval; the galleries are the rows whose captions are the pools of distractors.

    ``retain_synth.gallery`` numbers the rows of retain_disjoint alone.
    """
    return {
        f"{split}.rank": Column("<i4", split),
        f"{split}.left_out": Column("<i4", split, "shared"),
        f"{split}.gallery": Column("<i4", f"gallery_{split}", "shared"),
        "retain_synth.gallery": Column("<i4", "gallery_retain_synth", "shared"),
    }


def rank_scores(split: str) -> Callable[[Inputs], RowScores]:
    """Returns a metric's ``score``: the ranks of the images of ``split`` against its captions and retain_disjoint's."""
    return lambda inputs: inputs.once((rank_scores, split), lambda: _rank_scores(inputs, split))


def _rank_scores(inputs: Inputs, split: str) -> RowScores:
    from salmu_jax.evaluation.retrieval import draw_gallery, retrieve

    pools = inputs.once(_draw_pools, lambda: _draw_pools(inputs))
    bank, texts = inputs.embeddings.bank, inputs.embeddings.texts
    both = pools[split], pools["retain_disjoint"]
    drawn = {f"{split}.gallery": both[0], "retain_synth.gallery": both[1]}
    ids, retain_ids = (bank.index(some) for some in (inputs.data.splits[split].text, _disjoint(inputs)))
    if not len(ids):
        return {**drawn, f"{split}.rank": np.zeros(0, np.int32), f"{split}.left_out": np.zeros(0, np.int32)}
    own = texts[ids]
    gallery = draw_gallery(own, ids, texts[retain_ids], retain_ids, seed=inputs.settings.seed, pools=both)
    ranks, left_out = retrieve(inputs.embeddings.images[split], own, ids, gallery)
    return {**drawn, f"{split}.rank": ranks, f"{split}.left_out": left_out}


def _disjoint(inputs: Inputs) -> list[str]:
    retain = inputs.data.splits["retain_synth"]
    return [retain.text[row] for row in np.flatnonzero(retain.subset == "retain_disjoint")]


def _draw_pools(inputs: Inputs) -> dict[str, np.ndarray]:
    """Draws the pools of all queried splits at once, since the released generator draws one after the other."""
    counts = {split: len(inputs.data.splits[split]) for split in TARGETS} | {"retain_disjoint": len(_disjoint(inputs))}
    return draws.draw_pools(counts, POOL_SIZE, inputs.settings.seed, inputs.settings.how_drawn)


def reciprocal_ranks(split: str) -> Sampler:
    """Returns a metric's ``sample``, whose mean is the mean reciprocal rank."""
    return lambda rows, protocol: Sample(1.0 / rows[f"{split}.rank"].astype(np.float64), by_identity(rows, split))


def first_ranks(split: str) -> Sampler:
    """Returns a metric's ``sample``, whose mean is the recall at 1."""
    return lambda rows, protocol: Sample(rows[f"{split}.rank"] == 1, by_identity(rows, split))

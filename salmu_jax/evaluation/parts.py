"""Builds what several metrics share: the similarities of the pairs of a split, and the ranks of its captions.

Each function returns a part of a :class:`~salmu_jax.evaluation.metric.Metric`. JAX is imported by those that compute scores:
figures are verified without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from salmu_jax.evaluation import draws, rewording
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
    ranks, left_out = rank_among(inputs, split, inputs.data.splits[split].text)
    pools = pools_of(inputs, split)
    drawn = {f"{split}.gallery": pools[0], "retain_synth.gallery": pools[1]}
    return {**drawn, f"{split}.rank": ranks, f"{split}.left_out": left_out}


def rank_among(
    inputs: Inputs, split: str, texts: Sequence[str], queries: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks the text of each row of ``split`` against those of the pools, for its image.

    Args:
      inputs: of the evaluation.
      split: whose images are queried.
      texts: a text a row, which stand for the split's captions, own ones and distractors. retain_disjoint's stay.
      queries: float32 [N, D] in place of the images.

    Returns the ranks and how many distractors were left out, both int32 [N] (``retrieval.Retrieval``).
    """
    from salmu_jax.evaluation.retrieval import draw_gallery, retrieve

    bank, embedded = inputs.embeddings.bank, inputs.embeddings.texts
    ids, pools = bank.index(texts), pools_of(inputs, split)
    retain_ids = np.zeros(len(disjoint_rows(inputs.data)), np.int32)
    retain_ids[pools[1]] = bank.index(_disjoint_gallery(inputs.data, pools[1]))  # the others are in no gallery
    if not len(ids):
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    own = embedded[ids]
    gallery = draw_gallery(own, ids, embedded[retain_ids], retain_ids, seed=inputs.settings.seed, pools=pools)
    return retrieve(inputs.embeddings.images[split] if queries is None else queries, own, ids, gallery)


def rank_texts(split: str) -> Callable[[EvaluationData, Settings], Mapping[str, Sequence[str]]]:
    """Returns what the ranks of ``split`` need of texts and no more: its captions, and retain_disjoint's in the gallery."""

    def texts(data: EvaluationData, settings: Settings) -> Mapping[str, Sequence[str]]:
        drawn = _draw_pools(data, settings)["retain_disjoint"]
        return {split: data.splits[split].text, "gallery": _disjoint_gallery(data, drawn)}

    return texts


def pools_of(inputs: Inputs, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows whose captions are distractors, int64: of ``split``, and of those of :func:`disjoint_rows`."""
    pools = inputs.once(_draw_pools, lambda: _draw_pools(inputs.data, inputs.settings))
    return pools[split], pools["retain_disjoint"]


def disjoint_rows(data: EvaluationData) -> np.ndarray:
    """Returns the rows of retain_synth that are of retain_disjoint, int64."""
    return np.flatnonzero(data.splits["retain_synth"].subset == "retain_disjoint")


def _disjoint_gallery(data: EvaluationData, drawn: np.ndarray) -> list[str]:
    """Returns the captions of the ``drawn`` rows of retain_disjoint."""
    captions = data.splits["retain_synth"].text
    return [captions[row] for row in disjoint_rows(data)[drawn]]


def _draw_pools(data: EvaluationData, settings: Settings) -> dict[str, np.ndarray]:
    """Draws the pools of all queried splits at once, since the released generator draws one after the other."""
    counts = {split: len(data.splits[split]) for split in TARGETS} | {"retain_disjoint": len(disjoint_rows(data))}
    return draws.draw_pools(counts, POOL_SIZE, settings.seed, settings.how_drawn)


def reciprocal_ranks(split: str) -> Sampler:
    """Returns a metric's ``sample``, whose mean is the mean reciprocal rank."""
    return lambda rows, protocol: Sample(1.0 / rows[f"{split}.rank"].astype(np.float64), by_identity(rows, split))


# The same against paraphrases of the captions (``rewording.py``) ---------------------------------------------------------


def paraphrase_columns(split: str) -> dict[str, Column]:
    """Returns the columns: which rows of ``split`` have a paraphrase, and the mean reciprocal rank of each row's."""
    return {
        f"{split}.paraphrased": Column("|b1", split, "shared"),
        f"{split}.paraphrase": Column("<f8", split, "share"),
    }


def paraphrase_texts(split: str, probe: str) -> Callable[[EvaluationData, Settings], Mapping[str, Sequence[str]]]:
    """Returns a metric's ``texts``: the paraphrases of ``split``, in the group of ``probe``, and the distractors."""
    return lambda data, settings: {
        **captions("retain_synth")(data, settings),
        probe: [text for texts in _paraphrases(data, settings, split, probe).texts for text in texts],
    }


def paraphrase_scores(split: str, probe: str) -> Callable[[Inputs], RowScores]:
    """Returns a metric's ``score``: RetFail's retrieval, with all captions of ``split`` paraphrased."""

    def score(inputs: Inputs) -> RowScores:
        found = _paraphrases(inputs.data, inputs.settings, split, probe)
        values = inputs.once((paraphrase_scores, split), lambda: reworded_scores(inputs, split, found.texts))
        return {f"{split}.paraphrased": found.there, f"{split}.paraphrase": values}

    return score


def paraphrase_sample(split: str) -> Sampler:
    """Returns a metric's ``sample``: the reciprocal ranks of the rows that have a paraphrase."""

    def sample(rows: Rows, protocol: Mapping[str, Any]) -> Sample:
        there = rows[f"{split}.paraphrased"]
        return Sample(rows[f"{split}.paraphrase"][there], by_identity(rows, split)[there])

    return sample


def no_paraphrase(split: str) -> str:
    """Returns why there is no value, as a metric says it."""
    return f"no row of {split} can be put in the words of another caption"


def reworded_scores(inputs: Inputs, split: str, wordings: Sequence[Sequence[str]]) -> np.ndarray:
    """Returns each row's reciprocal rank with all captions of ``split`` reworded, its mean over ``wordings``, float64 [N]."""
    ranks = [rank_among(inputs, split, texts)[0] for texts in wordings]
    return np.mean([1.0 / one.astype(np.float64) for one in ranks], axis=0)


def _paraphrases(data: EvaluationData, settings: Settings, split: str, probe: str) -> rewording.Paraphrases:
    rows = rewording.check_metadata(data, split, probe)
    return rewording.paraphrases(rows, settings.seed, rewording.times(settings))


def first_ranks(split: str) -> Sampler:
    """Returns a metric's ``sample``, whose mean is the recall at 1."""
    return lambda rows, protocol: Sample(rows[f"{split}.rank"] == 1, by_identity(rows, split))

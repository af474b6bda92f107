"""Membership inference after CLIP-MIA-Bench (AAAI 2026): can an attacker tell what the model was trained on?

Members are forget's pairs, non-members the same images with matched captions (``matched.py``). Areas and rates compare a
member with non-members of its own subset alone, people forgotten whole or in part. *Blind* sees the captions and no model:
above 0.5, the split gives itself away and the other figures mean nothing. *CSA* is the cosine, *WSA* a classifier that
guesses its own labels (``weak_supervision.py``). Below Clean's value is as telling as above: an attacker may turn its answer
round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.auc import auc_scores, true_positives
from salmu_jax.evaluation.blind import blind_scores
from salmu_jax.evaluation.folds import NOBODY
from salmu_jax.evaluation.matched import Matched, match
from salmu_jax.evaluation.metric import Inputs, Metric, Sample, Settings
from salmu_jax.evaluation.rewording import check_has_metadata
from salmu_jax.evaluation.rows import SUBSETS, Column, RowScores, by_identity
from salmu_jax.evaluation.weak_supervision import LEAST_FOLDS, weak_scores

if TYPE_CHECKING:
    from salmu_jax.evaluation.data import EvaluationData

PROBE = "membership"
Rows = Mapping[str, np.ndarray]
Protocol = Mapping[str, Any]
_SPLIT = "forget"
_FOLD = "forget.matched_fold"  # of a row's person; -1: the row has no matched caption, and its scores are 0


def _match_forget(data: EvaluationData, settings: Settings) -> Matched:
    """Returns the matched non-members of forget: none where they are of too few people for the attacks.

    Raises InputError for data without metadata.
    """
    check_has_metadata(data, _SPLIT, PROBE)
    matched = match(data, _SPLIT, settings.seed)
    if len(np.unique(matched.folds[matched.used])) < LEAST_FOLDS:
        return Matched(np.zeros_like(matched.used), (), matched.folds)
    return matched


def _texts(data: EvaluationData, settings: Settings) -> Mapping[str, Sequence[str]]:
    matched = _match_forget(data, settings)
    return {**parts.captions(_SPLIT)(data, settings), "matched forget": matched.captions}


def _fill(matched: Matched, values: np.ndarray) -> np.ndarray:
    """Returns ``values`` in the rows that have a matched caption, 0 in others."""
    whole = np.zeros(len(matched.used), np.float32)
    whole[matched.used] = values
    return whole


def _folds(matched: Matched) -> np.ndarray:
    return np.where(matched.used, matched.folds, NOBODY)


def _score_blind(inputs: Inputs) -> RowScores:
    matched = _match_forget(inputs.data, inputs.settings)

    def compute() -> tuple[np.ndarray, np.ndarray]:
        own = [text for text, used in zip(inputs.data.splits[_SPLIT].text, matched.used, strict=True) if used]
        return blind_scores(own, matched.captions, matched.folds[matched.used])

    member, other = inputs.data.once((blind_scores, inputs.settings.seed), compute)
    return {
        _FOLD: _folds(matched),
        "forget.blind_member": _fill(matched, member),
        "forget.blind_matched": _fill(matched, other),
    }


def _score_cosine(inputs: Inputs) -> RowScores:
    """Returns the similarity of forget's images with their captions and with the matched ones, and who has one."""
    from salmu_jax.evaluation.similarity import paired_similarity

    matched = _match_forget(inputs.data, inputs.settings)
    images = inputs.embeddings.images[_SPLIT][matched.used]
    other = np.asarray(paired_similarity(images, inputs.embeddings.of(matched.captions)))
    return {
        **parts.pair_scores(_SPLIT)(inputs),
        _FOLD: _folds(matched),
        "forget.matched_similarity": _fill(matched, other),
    }


def _score_weak(inputs: Inputs) -> RowScores:
    matched = _match_forget(inputs.data, inputs.settings)
    own = inputs.embeddings.of(inputs.data.splits[_SPLIT].text)[matched.used]
    other = inputs.embeddings.of(matched.captions)
    images = inputs.embeddings.images[_SPLIT][matched.used]
    folds = matched.folds[matched.used]
    member, other = inputs.once(weak_scores, lambda: weak_scores(images, own, other, folds, seed=inputs.settings.seed))
    return {
        _FOLD: _folds(matched),
        "forget.weak_member": _fill(matched, member),
        "forget.weak_matched": _fill(matched, other),
    }


def _pair_scores(member: np.ndarray, matched: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Returns the scores whose mean is the area, float64 [M]; a pair is one row."""
    return np.mean(auc_scores(member, matched, strata, strata), axis=0)


def _found(member: np.ndarray, matched: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Returns whether each member is found, bool [M]."""
    return true_positives(member, matched, strata, strata)


def _sampler(
    score: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], member: str, matched: str, *, by_fold: bool
) -> Callable[[Rows, Protocol], Sample]:
    """Returns a metric's ``sample``: ``score`` of two columns, within a subset and, of a classifier a fold, within a fold."""

    def sample(rows: Rows, protocol: Protocol) -> Sample:
        fold, strata = (rows[name].astype(np.int64) for name in (_FOLD, "forget.subset"))
        if by_fold:
            strata = fold * len(SUBSETS) + strata
        used = fold >= 0
        if not used.any():
            return Sample(np.zeros(0), np.zeros(0, np.int64))
        return Sample(score(rows[member][used], rows[matched][used], strata[used]), by_identity(rows, _SPLIT)[used])

    return sample


def _metric(key: str, title: str, description: str, columns: Mapping[str, Column], score, sample) -> Metric:
    return Metric(
        key=key,
        title=title,
        description=description,
        better="lower",
        target="clean",
        columns={_FOLD: Column("|i1", _SPLIT, "shared"), **columns},
        texts=_texts,
        score=score,
        sample=sample,
        none_because=(
            f"the attacks take {2 * LEAST_FOLDS} people of forget at least, whose captions hold their name and value, and can"
            " be matched"
        ),
    )


_BLIND = {name: Column("<f4", _SPLIT, "shared") for name in ("forget.blind_member", "forget.blind_matched")}
_CSA = {**parts.pair_columns(_SPLIT), "forget.matched_similarity": Column("<f4", _SPLIT, "cosine")}
_WSA = {name: Column("<f4", _SPLIT) for name in ("forget.weak_member", "forget.weak_matched")}
_IN_CSA = ("forget.similarity", "forget.matched_similarity")
_RATE = "Share of forget pairs that {} finds where it takes one non-member in a hundred for one."

METRICS = (
    _metric(
        "MIA_blind_AUC",
        "MIA Blind AUC",
        "Chance of telling a forget caption from its matched one without any model; the control, which should be 0.5.",
        _BLIND,
        _score_blind,
        _sampler(_pair_scores, *_BLIND, by_fold=True),
    ),
    _metric(
        "MIA_CSA_AUC",
        "MIA CSA AUC",
        "Chance that a forget image is nearer to its caption than another is to its matched one.",
        _CSA,
        _score_cosine,
        _sampler(_pair_scores, *_IN_CSA, by_fold=False),
    ),
    _metric(
        "MIA_CSA_TPR",
        "MIA CSA TPR",
        _RATE.format("the cosine"),
        _CSA,
        _score_cosine,
        _sampler(_found, *_IN_CSA, by_fold=False),
    ),
    _metric(
        "MIA_WSA_AUC",
        "MIA WSA AUC",
        "Chance that a classifier with guessed labels ranks a forget pair above a matched one.",
        _WSA,
        _score_weak,
        _sampler(_pair_scores, *_WSA, by_fold=True),
    ),
    _metric(
        "MIA_WSA_TPR",
        "MIA WSA TPR",
        _RATE.format("that classifier"),
        _WSA,
        _score_weak,
        _sampler(_found, *_WSA, by_fold=True),
    ),
)

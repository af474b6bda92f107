"""ACS (1.3), the association coherence score: how well a threshold on the similarity tells true pairs from shuffled ones.

The features of the published ACS are not public; here the similarity is the only feature. The interval resamples identities
on the test half; the regression stays as it was fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from salmu_jax.evaluation import draws, parts
from salmu_jax.evaluation.logistic import fit_logistic
from salmu_jax.evaluation.metric import Inputs, Metric, Sample, mean
from salmu_jax.evaluation.rows import Column, RowScores, by_identity

_BOUNDARY = 1e-9  # a score so near to the threshold may fall on either side of it on another machine


def association_coherence(positive: np.ndarray, negative: np.ndarray, *, seed: int) -> float | None:
    """Returns ACS: the accuracy of a logistic regression of true pairs against shuffled ones.

    The regression (L2, C = 1, the defaults of scikit-learn) is trained on one stratified half of the 2 N pairs; the accuracy
    is that on the other half.

    Args:
      positive: float32 [N], the similarity of every image with its caption.
      negative: float32 [N], with the caption that :func:`draws.draw_negatives` gives it.
      seed: of the half split.

    Returns None for fewer than two rows, whose halves would not hold both classes.
    """
    return None if len(positive) < 2 else mean(_correct(positive, negative, seed)[0])


def _score_pairs(positive: np.ndarray, negative: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the test half: the regression's score (above 0 for a true pair) and the number of each pair in the 2 N."""
    feature = np.concatenate([positive, negative])
    train, test = draws.draw_halves(len(positive), len(negative), seed)
    model = fit_logistic(feature[train], train < len(positive))
    return model.score(feature[test]), test


def _correct(positive: np.ndarray, negative: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether each pair of the test half is classified right, bool [M], and the row of its image."""
    score, test = _score_pairs(positive, negative, seed)
    return (score > 0) == (test < len(positive)), test % len(positive)


def _score(inputs: Inputs) -> RowScores:
    text = inputs.data.splits["forget"].text
    rows = draws.draw_negatives(len(text), inputs.settings.seed)
    return {
        **parts.pair_scores("forget")(inputs),
        "forget.negative_row": rows,
        "forget.negative": parts.similarity_with(inputs, "forget", [text[row] for row in rows]),
    }


def _sample(rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> Sample:
    positive, negative = rows["forget.similarity"], rows["forget.negative"]
    if len(positive) < 2:
        return Sample(np.zeros(0, bool), np.zeros(0, np.int64))
    correct, image = _correct(positive, negative, protocol["seed"])
    return Sample(correct, by_identity(rows, "forget")[image])


def _slack(rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> float:
    """Returns the share of test pairs on the threshold itself."""
    positive, negative = rows["forget.similarity"], rows["forget.negative"]
    if len(positive) < 2:
        return 0.0
    score, _ = _score_pairs(positive, negative, protocol["seed"])
    return float(np.mean(np.abs(score) < _BOUNDARY))


METRIC = Metric(
    key="ACS",
    title="ACS",
    description="Accuracy of telling true forget pairs from shuffled ones by their similarity; 0.5 is chance.",
    better="lower",
    target="clean",
    columns={
        **parts.pair_columns("forget"),
        "forget.negative_row": Column("<i4", "forget", "shared"),
        "forget.negative": Column("<f4", "forget", "cosine"),  # the similarity with the caption of row negative_row
    },
    texts=parts.captions("forget"),
    score=_score,
    sample=_sample,
    released=("efficacy", "1.3_ACS", "acs_accuracy"),
    slack=_slack,
)

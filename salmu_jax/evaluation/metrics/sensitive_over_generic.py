"""SensitiveOverGeneric: how often a forget image is nearer to its sensitive caption than to its generic one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Inputs, Metric, Sample
from salmu_jax.evaluation.rows import Column, RowScores, by_identity


def _score(inputs: Inputs) -> RowScores:
    from salmu_jax.evaluation.similarity import paired_similarity

    generic = inputs.data.splits["forget"].generic_caption
    has = np.array([bool(text) for text in generic], bool)
    scores = np.zeros(len(generic), np.float32)
    if has.any():
        captions = inputs.embeddings.of([text for text in generic if text])
        scores[has] = np.asarray(paired_similarity(inputs.embeddings.images["forget"][has], captions))
    return {**parts.pair_scores("forget")(inputs), "forget.has_generic": has, "forget.generic": scores}


def _sample(rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> Sample:
    has = rows["forget.has_generic"]
    return Sample((rows["forget.similarity"] > rows["forget.generic"])[has], by_identity(rows, "forget")[has])


METRIC = Metric(
    key="SensitiveOverGeneric",
    title="Sensitive over generic",
    description="Share of forget images that are nearer to their sensitive caption than to their generic one.",
    better="lower",
    target="clean",
    columns={
        **parts.pair_columns("forget"),
        "forget.has_generic": Column("|b1", "forget", "shared"),
        "forget.generic": Column("<f4", "forget", "cosine"),  # 0 where there is no generic caption
    },
    texts=lambda data, settings: {
        **parts.captions("forget")(data, settings),
        "generic captions": [text for text in data.splits["forget"].generic_caption if text],
    },
    score=_score,
    sample=_sample,
    extra=("sensitive_over_generic",),
)

"""RetFail (1.1): does a forget image still find its own caption among 2,001? Mean reciprocal rank, and recall at 1."""

from __future__ import annotations

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Metric

_SPLIT = "forget"

MRR = Metric(
    key="RetFail_MRR",
    title="RetFail MRR",
    description="Mean reciprocal rank of a forget image's own caption among 2,001: does the image still find its secret?",
    better="lower",
    target="clean",
    columns=parts.rank_columns(_SPLIT),
    texts=parts.captions(_SPLIT, "retain_synth"),
    score=parts.rank_scores(_SPLIT),
    sample=parts.reciprocal_ranks(_SPLIT),
    released=("efficacy", "1.1_RetFail", "MRR"),
    released_rows=("outcomes", "forget.rank"),
)
RECALL = Metric(
    key="RetFail_R@1",
    title="RetFail R@1",
    description="Share of forget images whose own caption comes first.",
    better="lower",
    target="clean",
    columns=parts.rank_columns(_SPLIT),
    texts=parts.captions(_SPLIT, "retain_synth"),
    score=parts.rank_scores(_SPLIT),
    sample=parts.first_ranks(_SPLIT),
    released=("efficacy", "1.1_RetFail", "R@1"),
)

"""AssocStr (1.2): the mean similarity of forget's pairs."""

from __future__ import annotations

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Metric

METRIC = Metric(
    key="AssocStr",
    title="AssocStr",
    description="Mean similarity of forget images with their captions; below Clean's, the method over-generalises.",
    better="lower",
    target="clean",
    columns=parts.pair_columns("forget"),
    texts=parts.captions("forget"),
    score=parts.pair_scores("forget"),
    sample=parts.pair_sample("forget"),
    released=("efficacy", "1.2_AssocStr", "mean"),
    released_rows=("scores", "forget.similarity"),
)

"""InterIdSim (2.2): the mean similarity of holdout_identity's pairs, damage to other people."""

from __future__ import annotations

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Metric

METRIC = Metric(
    key="InterIdSim",
    title="InterIdSim",
    description="Mean similarity of pairs of people that the method never saw.",
    better="higher",
    target="compromised",
    columns=parts.pair_columns("holdout_identity"),
    texts=parts.captions("holdout_identity"),
    score=parts.pair_scores("holdout_identity"),
    sample=parts.pair_sample("holdout_identity"),
    released=("utility", "2.2_InterIdSim", "mean"),
)

"""IntraIdSim (2.3): the mean similarity of holdout_association's pairs, damage to the same people's other associations."""

from __future__ import annotations

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Metric

METRIC = Metric(
    key="IntraIdSim",
    title="IntraIdSim",
    description="Mean similarity of the other associations of people in forget.",
    better="higher",
    target="compromised",
    columns=parts.pair_columns("holdout_association"),
    texts=parts.captions("holdout_association"),
    score=parts.pair_scores("holdout_association"),
    sample=parts.pair_sample("holdout_association"),
    released=("utility", "2.3_IntraIdSim", "mean"),
)

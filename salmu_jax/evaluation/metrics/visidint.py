"""VisIdInt (2.4): the mean similarity of retain_joint's pairs, portraits of people in forget."""

from __future__ import annotations

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Metric
from salmu_jax.evaluation.rows import SUBSETS

_JOINT = SUBSETS.index("retain_joint")

METRIC = Metric(
    key="VisIdInt",
    title="VisIdInt",
    description="Mean similarity of portraits of people in forget with generic captions.",
    better="higher",
    target="compromised",
    columns=parts.pair_columns("retain_synth"),
    texts=parts.captions("retain_synth"),
    score=parts.pair_scores("retain_synth"),
    sample=parts.pair_sample("retain_synth", lambda rows: rows["retain_synth.subset"] == _JOINT),
    released=("utility", "2.4_VisIdInt", "mean"),
)

"""FragSim (2.5): the mean similarity of the fragile set, the retain pairs that are held most weakly."""

from __future__ import annotations

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Metric

METRIC = Metric(
    key="FragSim",
    title="FragSim",
    description="Mean similarity of the most weakly held retain pairs.",
    better="higher",
    target="compromised",
    columns=parts.pair_columns("retain_synth"),
    texts=parts.captions("retain_synth"),
    score=parts.pair_scores("retain_synth"),
    sample=parts.pair_sample("retain_synth", lambda rows: rows["retain_synth.fragile"]),
    released=("utility", "2.5_FragSim", "mean"),
)

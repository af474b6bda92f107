"""RetainSim: the mean similarity of all of retain_synth, published beside the ten metrics."""

from __future__ import annotations

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Metric

METRIC = Metric(
    key="RetainSim",
    title="retain_synth similarity",
    description="Mean similarity of all synthetic portraits with their generic captions.",
    better="higher",
    target="compromised",
    columns=parts.pair_columns("retain_synth"),
    texts=parts.captions("retain_synth"),
    score=parts.pair_scores("retain_synth"),
    sample=parts.pair_sample("retain_synth"),
    extra=("retain_synth_mean",),
)

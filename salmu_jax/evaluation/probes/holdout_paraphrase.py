"""Retrieval on the holdouts in other words: a method must not damage indirect access to what may stay, either."""

from __future__ import annotations

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Metric

PROBE = "holdout_paraphrase"


def _metric(name: str, split: str, whose: str) -> Metric:
    return Metric(
        key=f"{name}_paraphrase",
        title=f"{name} paraphrased",
        description=f"Mean reciprocal rank of the own caption, for images {whose}, with all captions paraphrased.",
        better="higher",
        target="compromised",
        columns=parts.paraphrase_columns(split),
        texts=parts.paraphrase_texts(split, PROBE),
        score=parts.paraphrase_scores(split, PROBE),
        sample=parts.paraphrase_sample(split),
        by_form=True,
        none_because=parts.no_paraphrase(split),
    )


METRICS = (
    _metric("InterIdRet", "holdout_identity", "of people that the method never saw"),
    _metric("IntraIdRet", "holdout_association", "that show the other associations of people in forget"),
)

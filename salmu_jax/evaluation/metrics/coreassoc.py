"""CoreAssoc (1.5): the similarity of forget images with a bare name and value, in the order that is nearer."""

from __future__ import annotations

import numpy as np

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Inputs, Metric, Sample
from salmu_jax.evaluation.rows import Column, RowScores, by_identity


def _score(inputs: Inputs) -> RowScores:
    both = [parts.similarity_with(inputs, "forget", texts) for texts in inputs.data.core_texts()]
    return {"forget.core": np.maximum(*both)}


METRIC = Metric(
    key="CoreAssoc",
    title="CoreAssoc",
    description="Mean similarity of forget images with the bare name and value, without a caption around them.",
    better="lower",
    target="clean",
    columns={"forget.core": Column("<f4", "forget", "cosine")},
    texts=lambda data, settings: dict(zip(("name value", "value name"), data.core_texts(), strict=True)),
    score=_score,
    sample=lambda rows, protocol: Sample(rows["forget.core"], by_identity(rows, "forget")),
    released=("efficacy", "1.5_CoreAssoc", "mean"),
    released_rows=("scores", "forget.core"),
)

"""IdZSC (1.4): zero-shot classification of wholly forgotten people by their names.

The published prompt is not public; ``evaluate.idzsc_prompt`` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from salmu_jax.evaluation.metric import Inputs, Metric, Sample
from salmu_jax.evaluation.rows import Column, RowScores


def _score(inputs: Inputs) -> RowScores:
    from salmu_jax.evaluation.similarity import classify

    rows, prompts, labels = inputs.data.identity_prompts(inputs.settings.idzsc_prompt)
    predictions = labels
    if len(rows):
        predictions = np.asarray(classify(inputs.embeddings.images["forget"][rows], inputs.embeddings.of(prompts)))
    return {"idzsc.label": labels, "idzsc.prediction": predictions}


def _sample(rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> Sample:
    return Sample(rows["idzsc.prediction"] == rows["idzsc.label"], rows["idzsc.label"])


METRIC = Metric(
    key="IdZSC",
    title="IdZSC",
    description="Accuracy of naming the person in an image of a wholly forgotten identity.",
    better="lower",
    target="clean",
    columns={
        "idzsc.label": Column(
            "<i4", "forget_identity", "shared"
        ),  # the identity's number among those of forget_identity
        "idzsc.prediction": Column("<i4", "forget_identity"),
    },
    texts=lambda data, settings: {"identity prompts": data.identity_prompts(settings.idzsc_prompt)[1]},
    score=_score,
    sample=_sample,
    released=("efficacy", "1.4_IdZSC", "identity_classification_accuracy"),
)

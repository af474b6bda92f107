"""GenKnow (2.1): zero-shot classification of general images, ImageNet-1k with 80 prompt templates as published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from salmu_jax.evaluation.metric import Inputs, Metric, Sample, Settings
from salmu_jax.evaluation.rows import Column, RowScores

if TYPE_CHECKING:
    from salmu_jax.evaluation.data import EvaluationData

SKIPPED = -1  # the released evaluator's value where it was not measured


def _texts(data: EvaluationData, settings: Settings) -> Mapping[str, Sequence[str]]:
    return {"class prompts": data.zeroshot.prompts()} if data.zeroshot else {}


def _score(inputs: Inputs) -> RowScores:
    from salmu_jax.evaluation.similarity import class_weights, classify

    task = inputs.data.zeroshot
    if task is None:
        return {"genknow.label": np.zeros(0, np.int32), "genknow.prediction": np.zeros(0, np.int32)}
    prompts = inputs.embeddings.of(task.prompts()).reshape(len(task.classnames), len(task.templates), -1)
    predictions = classify(inputs.embeddings.images["zeroshot"], class_weights(prompts))
    return {"genknow.label": task.labels, "genknow.prediction": np.asarray(predictions)}


def _sample(rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> Sample:
    return Sample(rows["genknow.prediction"] == rows["genknow.label"], None)


METRIC = Metric(
    key="GenKnow",
    title="GenKnow",
    description="Zero-shot accuracy on general images: is the model still good for anything else?",
    better="higher",
    target="compromised",
    columns={
        "genknow.label": Column("<i4", "images", "shared"),
        "genknow.prediction": Column("<i4", "images"),
    },
    texts=_texts,
    score=_score,
    sample=_sample,
    released=("utility", "2.1_GenKnow", "ImageNet1k_Accuracy"),
    skipped=SKIPPED,
)

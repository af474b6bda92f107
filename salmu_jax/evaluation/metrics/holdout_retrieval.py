"""RetFail's retrieval on the holdouts: does an image still find a caption that was not to be forgotten?

A mean similarity can stay while the order of the captions is lost, so the holdouts are queried like forget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Metric, Sample

_Sampler = Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], Sample]


def _metric(name: str, figure: str, split: str, description: str, sample: _Sampler) -> Metric:
    return Metric(
        key=f"{name}_{figure}",
        title=f"{name} {figure}",
        description=description,
        better="higher",
        target="compromised",
        columns=parts.rank_columns(split),
        texts=parts.captions(split, "retain_synth"),
        score=parts.rank_scores(split),
        sample=sample,
        extra=("retrieval", split, figure),
    )


def _both(name: str, split: str, whose: str) -> tuple[Metric, Metric]:
    mrr = f"Mean reciprocal rank of the own caption among 2,001, for images {whose}."
    recall = f"Share of images {whose} whose own caption comes first among 2,001."
    return (
        _metric(name, "MRR", split, mrr, parts.reciprocal_ranks(split)),
        _metric(name, "R@1", split, recall, parts.first_ranks(split)),
    )


METRICS = (
    *_both("InterIdRet", "holdout_identity", "of people that the method never saw"),
    *_both("IntraIdRet", "holdout_association", "that show the other associations of people in forget"),
)

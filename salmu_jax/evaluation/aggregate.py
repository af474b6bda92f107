"""Computes every figure of a result from row scores: one pure function, which makes results and verifies them.

Nothing here depends on a model, a device or JAX: it uses numpy's float64 and the draws of the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from salmu_jax.evaluation import draws, intervals
from salmu_jax.evaluation.data import FIELDS, SPLITS
from salmu_jax.evaluation.logistic import fit_logistic
from salmu_jax.evaluation.rows import SUBSETS, TARGETS

SKIPPED = -1  # the released evaluator's value of a GenKnow that was not measured
_BOUNDARY = 1e-9  # a score so near to the threshold may fall on either side of it on another machine

Figures = dict[str, Any]


def aggregate(rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> tuple[Figures, Figures, Figures]:
    """Turns row scores into the ``efficacy``, ``utility`` and ``extra`` of a result, as plain JSON values.

    Args:
      rows: see :data:`salmu_jax.evaluation.rows.COLUMNS`.
      protocol: of the result; its ``seed`` and ``bootstrap`` are what the figures depend on.
    """
    seed = protocol["seed"]
    similarity = {split: rows[f"{split}.similarity"] for split in SPLITS}
    retrieval = {split: retrieval_figures(rows[f"{split}.rank"]) for split in TARGETS if len(rows[f"{split}.rank"])}
    joint = rows["retain_synth.subset"] == SUBSETS.index("retain_joint")
    coherence = association_coherence(similarity["forget"], rows["forget.negative"], seed=seed)
    named = accuracy(rows["idzsc.prediction"], rows["idzsc.label"])
    known = accuracy(rows["genknow.prediction"], rows["genknow.label"])
    efficacy = {
        "1.1_RetFail": {**retrieval["forget"], "outcomes": rows["forget.rank"].tolist()},
        "1.2_AssocStr": {"mean": mean(similarity["forget"]), "scores": floats(similarity["forget"])},
        "1.3_ACS": {"acs_accuracy": coherence},
        "1.4_IdZSC": {"identity_classification_accuracy": named},
        "1.5_CoreAssoc": {"mean": mean(rows["forget.core"]), "scores": floats(rows["forget.core"])},
    }
    utility = {
        "2.1_GenKnow": {"ImageNet1k_Accuracy": SKIPPED if known is None else known},
        "2.2_InterIdSim": {"mean": mean(similarity["holdout_identity"])},
        "2.3_IntraIdSim": {"mean": mean(similarity["holdout_association"])},
        "2.4_VisIdInt": {"mean": mean(similarity["retain_synth"][joint])},
        "2.5_FragSim": {"mean": mean(similarity["retain_synth"][rows["retain_synth.fragile"]])},
    }
    extra = {
        "retrieval": {split: figures for split, figures in retrieval.items() if split != "forget"},
        "retain_synth_mean": mean(similarity["retain_synth"]),
        "sensitive_over_generic": _sensitive_over_generic(rows),
        "by_field": _by_field(rows),
        "intervals": _intervals(rows, seed, protocol["bootstrap"]),
    }
    return efficacy, utility, extra


def mean(scores: np.ndarray) -> float | None:
    """Returns the mean in float64, or None if there are no scores."""
    return float(np.mean(scores, dtype=np.float64)) if len(scores) else None


def reciprocal(ranks: np.ndarray) -> np.ndarray:
    """Returns 1 / rank, float64 [N]."""
    return 1.0 / ranks.astype(np.float64)


def retrieval_figures(ranks: np.ndarray) -> Figures:
    """Returns recall at 1 and the mean reciprocal rank of ranks int [N], 1 being best."""
    return {"R@1": float(np.mean(ranks == 1)), "MRR": float(np.mean(reciprocal(ranks)))}


def accuracy(prediction: np.ndarray, label: np.ndarray) -> float | None:
    """Returns the share of correct predictions, or None if there are no rows."""
    return float(np.mean(prediction == label)) if len(label) else None


def association_coherence(positive: np.ndarray, negative: np.ndarray, *, seed: int) -> float | None:
    """Computes ACS (1.3): how well a threshold on the similarity separates true pairs from shuffled ones.

    A logistic regression (L2, C = 1, the defaults of scikit-learn) is trained on one stratified half of the 2 N pairs;
    the accuracy on the other half is returned. The features of the published ACS are not public; here the similarity is
    the only feature.

    Args:
      positive: float32 [N], the similarity of every image with its caption.
      negative: float32 [N], with the caption that :func:`draws.draw_negatives` gives it.
      seed: of the half split.

    Returns None for fewer than two rows, whose halves would not hold both classes.
    """
    if len(positive) < 2:
        return None
    score, label = _coherence_scores(positive, negative, seed)
    return float(np.mean((score > 0) == label))


def coherence_slack(positive: np.ndarray, negative: np.ndarray, *, seed: int) -> float:
    """Returns by how much ACS may differ on another machine: the share of test pairs on the threshold itself."""
    if len(positive) < 2:
        return 0.0
    score, _ = _coherence_scores(positive, negative, seed)
    return float(np.mean(np.abs(score) < _BOUNDARY))


def _coherence_scores(positive: np.ndarray, negative: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the regression's score (above 0 for a true pair) and the label of every test pair."""
    feature = np.concatenate([positive, negative])
    label = np.concatenate([np.ones(len(positive), bool), np.zeros(len(negative), bool)])
    train, test = draws.draw_halves(len(positive), len(negative), seed)
    model = fit_logistic(feature[train], label[train])
    return model.score(feature[test]), label[test]


def floats(scores: np.ndarray) -> list[float]:
    """Returns Python floats with the shortest decimals that round to the same float32, which halves the file's size."""
    return [float(str(score)) for score in np.asarray(scores, np.float32)]


def _sensitive_over_generic(rows: Mapping[str, np.ndarray]) -> float | None:
    """Returns the share of forget rows whose caption is more similar to the image than the generic caption is."""
    has = rows["forget.has_generic"]
    if not has.any():
        return None
    return float(np.mean(rows["forget.similarity"][has] > rows["forget.generic"][has]))


def _means_over_people(rows: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """Returns the four metrics that are means over rows of people: key -> (split, a score a row)."""
    return {
        "RetFail_MRR": ("forget", reciprocal(rows["forget.rank"])),
        "AssocStr": ("forget", rows["forget.similarity"]),
        "InterIdSim": ("holdout_identity", rows["holdout_identity.similarity"]),
        "IntraIdSim": ("holdout_association", rows["holdout_association.similarity"]),
    }


def _by_field(rows: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | int | None]]:
    """Returns the same figures for each kind of attribute, which a mean over all rows can hide (None: no such rows)."""
    figures: dict[str, dict[str, float | int | None]] = {}
    for code, field in enumerate(FIELDS):
        chosen = {split: rows[f"{split}.data_field"] == code for split in TARGETS}
        if any(rows_of.any() for rows_of in chosen.values()):
            means = {key: mean(values[chosen[split]]) for key, (split, values) in _means_over_people(rows).items()}
            figures[field] = {**means, "rows": int(chosen["forget"].sum())}
    return figures


def _intervals(rows: Mapping[str, np.ndarray], seed: int, samples: int) -> dict[str, list[float]]:
    """Returns identity-clustered bootstrap intervals of 95 %, by the leaderboard's keys."""
    return {
        key: list(intervals.clustered_interval(values, rows[f"{split}.identity"], seed=seed, samples=samples))
        for key, (split, values) in _means_over_people(rows).items()
        if samples and len(values)
    }

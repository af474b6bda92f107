"""Intervals of the statistics: against a bootstrap that copies rows, and their coverage of a planted truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from salmu_jax.evaluation import draws, evidence

PROTOCOL = {"seed": 5, "bootstrap": 300}
NAMES = ("clean", "compromised")


def intervals_of(models, protocol=PROTOCOL):
    """Returns the intervals of the last model's statistics; the others are Clean and Compromised."""
    figures = [evidence_figures(rows) for rows in models]
    references, scores = (dict(zip(NAMES, of, strict=False)) for of in (figures, models))
    return figures[-1], evidence.statistic_intervals(figures[-1], references, models[-1], scores, protocol)


def evidence_figures(rows):
    """Returns the figures that are means of the columns that are there."""
    found = {}
    if "holdout_identity.similarity" in rows:
        found["InterIdSim"] = float(rows["holdout_identity.similarity"].mean())
    if "forget.rank" in rows:
        found["RetFail_MRR"] = float((1 / rows["forget.rank"]).mean())
    if "genknow.label" in rows:
        found["GenKnow"] = float((rows["genknow.prediction"] == rows["genknow.label"]).mean())
    return found


def test_against_a_bootstrap_that_copies_rows():
    rng = np.random.default_rng(0)
    identity = np.sort(rng.integers(0, 12, 80)).astype(np.int32)
    identity[-5:] = -1  # rows of nobody are each a cluster of their own
    models = [
        {"forget.rank": rng.integers(1, most, 80).astype(np.int32), "forget.identity": identity}
        for most in (500, 3, 40)
    ]
    _, found = intervals_of(models)
    clusters = [np.flatnonzero(identity == person) for person in np.unique(identity[:-5])]
    clusters = [np.array([75 + i]) for i in range(5)][::-1] + clusters  # the order in which they are numbered
    counts = draws.generator(5, draws.BOOTSTRAP).multinomial(
        len(clusters), np.full(len(clusters), 1 / len(clusters)), size=300
    )
    statistics = []
    for sample in counts:
        rows = np.concatenate([np.tile(c, times) for c, times in zip(clusters, sample, strict=True) if times])
        clean, compromised, method = (np.mean(1 / one["forget.rank"][rows]) for one in models)
        statistics.append(1 - (method - clean) / (compromised - clean))
    np.testing.assert_allclose(found["leakage_removed"], np.quantile(statistics, [0.025, 0.975]), rtol=1e-9)
    assert found["leakage_removed_published"] == found["leakage_removed"]  # there is no Retrained
    assert set(found) == {"leakage_removed", "leakage_removed_published"}


def test_images_of_genknow_are_resampled_together_in_all_models():
    """Where a method is right and wrong on the same images as Compromised, nothing is lost in any sample."""
    rng = np.random.default_rng(1)
    label = rng.integers(0, 5, 1600).astype(np.int32)
    right = rng.random(1600) < 0.7
    compromised = {"genknow.label": label, "genknow.prediction": np.where(right, label, label + 1)}
    other = rng.permutation(1600)
    method = {"genknow.label": label, "genknow.prediction": np.where(right[other], label, label + 1)}
    _, same = intervals_of([compromised, compromised, compromised])
    assert same["genknow_lost"] == (0, 0)
    _, independent = intervals_of([compromised, compromised, method])
    low, high = independent["genknow_lost"]
    error = 100 * math.sqrt(2 * 0.7 * 0.3 / 1600)
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.15)


def test_no_interval_without_samples_or_without_a_lead():
    flat = {"holdout_identity.similarity": np.full(20, 0.5), "holdout_identity.identity": np.arange(20, dtype=np.int32)}
    _, found = intervals_of([flat, flat, flat])
    assert set(found) == {"alignment"}  # nothing was learnt, so nothing can be kept
    _, found = intervals_of([flat, flat, flat], {**PROTOCOL, "bootstrap": 0})
    assert found == {}
    rng = np.random.default_rng(2)
    weak = {**flat, "holdout_identity.similarity": 0.501 + rng.normal(0, 0.1, 20)}
    weak["holdout_identity.similarity"] += 0.501 - weak["holdout_identity.similarity"].mean()
    _, found = intervals_of([flat, weak, weak])
    assert found["similarity_kept"] == (-math.inf, math.inf)  # the lead is within the sampling error


def test_covers_the_planted_share_as_often_as_it_says():
    """People differ in what is kept of them; the interval of the mean share holds the truth in about 95 of 100 worlds."""
    rng = np.random.default_rng(3)
    people, each, truth, worlds = 40, 5, 0.9, 400
    covered, widths, spreads = 0, [], []
    identity = np.repeat(np.arange(people, dtype=np.int32), each)
    for _ in range(worlds):
        level, lead = rng.normal(0.3, 0.05, people), rng.normal(0.5, 0.05, people)
        kept = rng.normal(truth, 0.1, people)
        models = []
        for mean in (level, level + lead, level + kept * lead):
            scores = mean[identity] + rng.normal(0, 0.02, people * each)
            models.append({"holdout_identity.similarity": scores, "holdout_identity.identity": identity})
        values, found = intervals_of(models)
        low, high = found["similarity_kept"]
        covered += low <= truth <= high
        widths.append(high - low)
        spreads.append(values["InterIdSim"])
    assert 0.91 <= covered / worlds <= 0.975  # 40 clusters: a point below nominal; two standard errors are 2.2 points
    # Identities that are similar in all models cancel: an interval of the method's own mean would be wider.
    assert np.mean(widths) < 0.8 * (2 * 1.96 * np.std(spreads) / 0.5)

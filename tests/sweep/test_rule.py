"""The rule of selection, against computations by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from salmu_jax.evaluation.registry import BY_KEY
from salmu_jax.runtime import files
from salmu_jax.sweep import record, rule, table
from salmu_jax.sweep.settings import Setting
from salmu_jax.unlearning.selected import read_chosen

PROTOCOL = {"rows": {"forget": 300, "holdout_association": 120, "holdout_identity": 2_000}, "gallery_retain": 700}
COMPROMISED = {
    "RetFail_MRR@whole": 0.4,
    "Indirect_bare@whole": 0.3,
    "Indirect_unseen@whole": 0.9,
    "RetFail_MRR@part": 0.5,
    "InterIdSim": 0.8,
    "IntraIdSim": 0.8,
    "InterIdRet_MRR": 0.2,
    "IntraIdRet_MRR": 0.3,
    "RetainSim": 0.9,
}


def test_shortfalls_equal_a_computation_by_hand():
    figures = {
        "RetFail_MRR@whole": 0.04,
        "Indirect_bare@whole": 0.02,
        "Indirect_unseen@whole": 0.9,  # must not count
        "RetFail_MRR@part": 0.1,
        "InterIdSim": 0.72,
        "IntraIdSim": 0.84,  # above Compromised: nothing is lost
        "InterIdRet_MRR": 0.15,
        "IntraIdRet_MRR": 0.3,
        "RetainSim": 0.891,
    }
    chance = {n: sum(1 / k for k in range(1, n + 1)) / n for n in (1_000, 820, 1_700)}
    found = {level.shortfall.name: level.of(figures) for level in rule.levels(COMPROMISED, PROTOCOL)}
    assert found == pytest.approx(
        {
            "leak": (0.04 - chance[1_000]) / (0.4 - chance[1_000]) / 0.10,
            "indirect": (0.02 - chance[1_000]) / (0.3 - chance[1_000]) / 0.05,
            "leak_in_part": (0.1 - chance[1_000]) / (0.5 - chance[1_000]) / 0.25,
            "inter_similarity": (0.08 / 0.8) / 0.10,
            "intra_similarity": 0.0,
            "inter_retrieval": (0.05 / (0.2 - chance[1_700])) / 0.20,
            "intra_retrieval": 0.0,
            "retain": (0.009 / 0.9) / 0.05,
        }
    )
    assert rule.score(found, "largest") == max(found.values()) == found["inter_retrieval"]
    assert rule.score(found, "mean") == pytest.approx(np.mean([*found.values()]))


def test_the_largest_of_the_indirect_queries_is_divided_by_the_largest_of_compromised():
    """As the verdict does, so a form that Compromised hardly answers does not decide by the little that it does."""
    known = {**COMPROMISED, "Indirect_name@whole": 0.6, "Indirect_value@whole": 0.009}
    (level,) = (level for level in rule.levels(known, PROTOCOL) if level.shortfall.name == "indirect")
    assert level.reference == 0.6
    chance = rule.random_rank(1_000)
    left = {"Indirect_bare@whole": 0.02, "Indirect_name@whole": 0.01, "Indirect_value@whole": 0.009}
    assert level.of(left) == pytest.approx((0.02 - chance) / (0.6 - chance) / 0.05)
    assert level.of({**left, "Indirect_bare@whole": 0.009}) < 1


def test_a_random_order_has_the_level_of_a_model_that_knows_nothing():
    draw = np.random.default_rng(0)
    ranks = draw.integers(1, 501, 200_000)
    assert rule.random_rank(500) == pytest.approx(np.mean(1 / ranks), rel=0.02)


def test_what_compromised_does_not_know_is_not_judged():
    names = [level.shortfall.name for level in rule.levels({**COMPROMISED, "RetFail_MRR@whole": 0.001}, PROTOCOL)]
    assert "leak" not in names
    assert "leak_in_part" in names
    assert "relearn" not in names  # not measured
    measured = {**COMPROMISED, "Relearn@whole": 0.2, "Relearn@part": 0.5}
    found = {level.shortfall.name: level for level in rule.levels(measured, PROTOCOL)}
    assert "relearn" in found
    chance = rule.random_rank(1_000)
    of_part = found["relearn_in_part"].of({"Relearn@whole": 0.9, "Relearn@part": 0.2})
    assert of_part == pytest.approx((0.2 - chance) / (0.5 - chance) / 0.25)


def test_a_figure_that_is_missing_or_not_finite_is_the_worst():
    level = rule.levels(COMPROMISED, PROTOCOL)[0]
    assert level.of({}) == level.of({"RetFail_MRR@whole": math.nan}) == math.inf


def test_figures_exist():
    assert set(rule.KEYS) <= set(BY_KEY)


def test_ties_go_to_the_lower_budget_then_to_the_first():
    assert rule.best([2.0, 1.0, 1.0 + 1e-12, 3.0], ["1x", "5x", "2x", "1x"]) == 2
    assert rule.best([1.0, 1.0], ["2x", "2x"]) == 0
    assert rule.best([math.inf, 4.0], ["1x", "1x"]) == 1
    assert rule.best([math.inf], ["1x"]) is None
    assert rule.best([], []) is None


def trial(setting, seed, score):
    run = setting.run(seed, ["salmu/retain_synth"])
    scored = {"score": score, "shortfalls": {"leak": score}} if score is not None else {"score": None, "diverged": "x"}
    return {"trial": run.name, "label": setting.label, "run": setting.whole, "seed": seed, **scored}


def test_the_record_chooses_by_means_over_seeds_and_says_among_how_many(tmp_path):
    one, two = (Setting("delete", "delete", {"learning_rate": rate}, "1x") for rate in (1e-4, 1e-3))
    lost = Setting("mine", "npo", {}, "1x")
    scores = [(one, 1, 0.5), (one, 2, 2.5), (two, 1, 1.0), (two, 2, 1.2), (lost, 1, None), (lost, 2, 0.1)]
    held = record.write(
        tmp_path,
        [setting for setting, *_ in scores],
        [trial(*each) for each in scores],
        earlier=3,
        name="s",
        provenance={"command": "salmu sweep"},
        rule={"chooses": "by hand", "shortfalls": [{"name": "leak"}]},
    )
    assert files.read_json(tmp_path / "sweep.json") == held
    assert [row["score"] for row in held["settings"]] == [1.5, pytest.approx(1.1), None]
    assert held["chosen"] == {"delete": held["settings"][1]}
    rows = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert [row["score"] for row in rows] == [score for *_, score in scores]
    fields, sweep = read_chosen(str(tmp_path), "delete-s1", "delete", "where")
    assert fields == {"learning_rate": 1e-3, "budget": "1x"}
    assert sweep == {"name": "s", "digest": held["digest"], "trials": 9}
    assert [line[0] for line in table.lines(held)] == [" ", " ", "*", " "]
    assert "diverged" in table.lines(held)[3]

"""The judgement of metrics by models of which it is known what they know."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.meta_evaluation import plan
from benchmarks.trust import UNTREATED, assess, markdown, spearman
from salmu_jax.foundation import CLEAN, COMPROMISED, RETRAINED


def records():
    """Sixty models.

    RetFail sees how much of forget a model was trained on, R@1 only whether it is half of it or more, AssocStr what the
    holdouts taught as well, ACS the seed; rounding fools IdZSC.
    """
    rng = np.random.default_rng(0)
    found = []
    for planned in plan(60, (4.0, 8.0)):
        knows, trained = planned.share, planned.kind != CLEAN
        before = {
            "RetFail_MRR": 20.0 * knows + rng.random() + planned.epochs * (knows > 0),
            "AssocStr": 2.0 * trained + rng.random(),
            "ACS": planned.seed % 7.0,
            "RetFail_R@1": 2.0 * (knows >= 0.5) + rng.random(),
            "IdZSC": 2.0 * knows + rng.random(),
            "GenKnow": rng.random(),
            "CoreAssoc": None,
        }
        rounded = {**before, "IdZSC": rng.random()}
        found.append({**planned._asdict(), "values": {UNTREATED: before, "int4": rounded}})
    return found


def test_a_plan_has_equal_parts_and_begins_like_a_shorter_one():
    planned = plan(48, (4.0, 8.0))
    assert len({one.name for one in planned}) == 48
    assert planned[:7] == plan(7, (4.0, 8.0))
    whole = [one for one in planned if one.share in (0, 1)]
    assert [sum(one.kind == kind for one in whole) for kind in (COMPROMISED, CLEAN, RETRAINED)] == [16, 8, 8]
    assert {one.epochs for one in planned} == {4.0, 8.0}
    for knows, does_not in zip(whole[::2], whole[1::2], strict=True):  # they differ in nothing else
        assert (knows.kind, knows.share, does_not.share) == (COMPROMISED, 1, 0)
        assert knows[2:] == does_not[2:]
    for epochs in (4.0, 8.0):
        shares = [one.share for one in planned if one.epochs == epochs and one not in whole]
        assert sorted(shares) == [0.1, 0.1, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]


def test_a_metric_is_worth_what_it_sees():
    entries = {entry["metric"]: entry for entry in assess(records())}
    assert "CoreAssoc" not in entries  # not measured
    sees = entries["RetFail_MRR"]
    assert sees["against"][CLEAN] == sees["against"][RETRAINED] == {"auc": 1.0, "interval": [1.0, 1.0]}
    assert sees["after"]["int4"]["auc"] == sees["lowest"] == 1
    assert sees["after"]["int4"]["correlation"] == pytest.approx(1)
    assert sees["little"] == {"auc": 1.0, "interval": [1.0, 1.0]}
    assert sees["order"] == pytest.approx(1, abs=0.05)  # ties: several models of a share
    assert entries["RetFail_R@1"]["little"]["auc"] < 0.9
    assert entries["RetFail_R@1"]["lowest"] == 1
    assert entries["RetFail_R@1"]["order"] < 0.95
    assert entries["ACS"]["order"] < 0.5
    assert entries["AssocStr"]["against"][CLEAN]["auc"] == 1
    low, high = entries["AssocStr"]["against"][RETRAINED]["interval"]
    assert low < 0.5 < high
    assert entries["AssocStr"]["lowest"] < 0.8
    low, high = entries["ACS"]["against"][CLEAN]["interval"]
    assert low < 0.5 < high
    assert entries["IdZSC"]["against"][RETRAINED]["auc"] == 1
    assert entries["IdZSC"]["after"]["int4"]["auc"] < 0.8
    assert next(iter(entries)) == "RetFail_MRR"
    assert [entry["lowest"] for entry in entries.values()] == sorted(
        (e["lowest"] for e in entries.values()), reverse=True
    )


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=30).round(1), rng.normal(size=30)
    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert spearman(first, np.ones(30)) is None


def test_the_table_has_the_metrics_of_forgetting_first():
    found = records()
    lines = markdown(assess(found), found, "mini").splitlines()
    assert lines[0] == "60 models (20 compromised, 10 clean, 10 retrained, 20 trained on a share of forget); mini."
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ") and "metric" not in line]
    assert rows[0] == "RetFail MRR"
    assert rows[-1] == "GenKnow"
    assert "| RetFail MRR | 1.00 | 1.00 | 1.00 | 0.96 | 1.00 (1.00) | 1.00 |" in lines

"""The judgement of metrics by models of which it is known what they know."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.meta_evaluation import KINDS, plan
from benchmarks.trust import UNTREATED, assess, markdown, spearman
from salmu_jax.foundation import CLEAN, COMPROMISED, RETRAINED


def records():
    """Forty models: RetFail sees all, AssocStr what the holdouts taught as well, ACS the seed; rounding fools IdZSC."""
    rng = np.random.default_rng(0)
    found = []
    for planned in plan(40, (4.0,)):
        knows, trained = planned.kind == COMPROMISED, planned.kind != CLEAN
        before = {
            "RetFail_MRR": 2.0 * knows + rng.random(),
            "AssocStr": 2.0 * trained + rng.random(),
            "ACS": planned.seed % 7.0,
            "IdZSC": 2.0 * knows + rng.random(),
            "GenKnow": rng.random(),
            "CoreAssoc": None,
        }
        rounded = {**before, "IdZSC": rng.random()}
        found.append({"kind": planned.kind, "values": {UNTREATED: before, "int4": rounded}})
    return found


def test_a_plan_has_equal_shares_and_begins_like_a_shorter_one():
    planned = plan(24, (4.0, 8.0))
    assert len({one.name for one in planned}) == 24
    assert planned[:7] == plan(7, (4.0, 8.0))
    assert [sum(one.kind == kind for one in planned) for kind in (COMPROMISED, CLEAN, RETRAINED)] == [12, 6, 6]
    assert {one.epochs for one in planned} == {4.0, 8.0}
    for first, second in zip(
        planned[::2], planned[1::2], strict=True
    ):  # who knows and who does not differ in nothing else
        assert (first.kind, first[1:]) == (COMPROMISED, second[1:])
    assert KINDS.count(COMPROMISED) == 2


def test_a_metric_is_worth_what_it_sees():
    entries = {entry["metric"]: entry for entry in assess(records())}
    assert "CoreAssoc" not in entries  # not measured
    sees = entries["RetFail_MRR"]
    assert sees["against"][CLEAN] == sees["against"][RETRAINED] == {"auc": 1.0, "interval": [1.0, 1.0]}
    assert sees["after"]["int4"]["auc"] == sees["lowest"] == 1
    assert sees["after"]["int4"]["correlation"] == pytest.approx(1)
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
    assert lines[0] == "40 models (20 compromised, 10 clean, 10 retrained); mini."
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ") and "metric" not in line]
    assert rows[0] == "RetFail MRR"
    assert rows[-1] == "GenKnow"
    assert "| RetFail MRR | 1.00 | 1.00 | 1.00 (1.00) | 1.00 |" in lines

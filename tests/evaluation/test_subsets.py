"""Metrics of forget on people forgotten whole and in part: their values, and that a result carries them as it does others."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest

from salmu_jax.evaluation import intervals
from salmu_jax.evaluation.metric import Sample
from salmu_jax.evaluation.registry import BY_KEY, METRICS, chosen
from salmu_jax.evaluation.result import leaderboard_row, seal, write_result
from salmu_jax.evaluation.subsets import PART, WHOLE, is_of_forget, restricted, rows_of, with_subsets
from salmu_jax.evaluation.verify import verify_results

OF_FORGET = ("RetFail_MRR", "RetFail_R@1", "AssocStr", "ACS", "CoreAssoc", "SensitiveOverGeneric")
PROVENANCE = {
    "command": "test",
    "checkpoint": {"digest": "1" * 64, "parent": None},
    "data": {"salmu": "2" * 64, "zeroshot": "3" * 64},
}


@pytest.fixture(scope="module")
def evaluation(tiny):
    return tiny.measure(tiny.data(), metrics=with_subsets(METRICS), provenance=PROVENANCE)


@pytest.fixture
def written(evaluation, tmp_path):
    """The result file, and what ``salmu verify`` says of it after ``change(result)``."""
    path = tmp_path / "m.json"
    write_result(path, *evaluation)

    def problems(change=lambda result: None):
        result = json.loads(path.read_text())
        change(result)
        path.write_text(json.dumps(seal(result)))
        return "\n".join(verify_results([path], inputs=False)[0].problems)

    return problems


def test_the_metrics_that_score_each_row_of_forget_are_restricted():
    assert tuple(metric.key for metric in METRICS if is_of_forget(metric)) == OF_FORGET
    added = [metric for metric in with_subsets(METRICS) if metric not in METRICS]
    assert [(metric.key, metric.of) for metric in added] == [
        (f"{key}@{subset}", key) for key in OF_FORGET for subset in (WHOLE, PART)
    ]
    assert all(BY_KEY[metric.key].of == metric.of for metric in added)
    assert [metric.target for metric in restricted(BY_KEY["AssocStr"])] == ["clean", None]
    assert {metric.key for metric in added} < {metric.key for metric in chosen(Options())}


@dataclasses.dataclass
class Options:
    probes: tuple[str, ...] = ()


def test_people_are_told_apart_by_what_is_held_out_of_them():
    rows = {
        "forget.identity": np.array([3, 3, 5, -1, 7], np.int32),
        "holdout_association.identity": np.array([7, 7, 3, 9], np.int32),
    }
    np.testing.assert_array_equal(rows_of(rows, PART), [True, True, False, False, True])
    np.testing.assert_array_equal(rows_of(rows, WHOLE), [False, False, True, False, False])


def test_the_figures_are_those_of_the_rows_of_the_subset(evaluation):
    rows, metrics = evaluation.rows, evaluation.result["metrics"]
    people = {0: WHOLE, 1: PART}  # of the tiny world, by their number
    owner = np.array([people[int(one) % 3] for one in rows["forget.identity"]])
    for subset in (WHOLE, PART):
        chosen_rows = owner == subset
        ranks = rows["forget.rank"][chosen_rows].astype(np.float64)
        figure = metrics[f"RetFail_MRR@{subset}"]
        assert figure["value"] == pytest.approx(np.mean(1 / ranks), abs=1e-12)
        assert (figure["rows"], figure["clusters"]) == (chosen_rows.sum(), 3)
        assert metrics[f"AssocStr@{subset}"]["value"] == pytest.approx(
            np.mean(rows["forget.similarity"][chosen_rows], dtype=np.float64), abs=1e-12
        )
        low, high = intervals.clustered_interval(
            1 / ranks, rows["forget.identity"][chosen_rows], seed=42, samples=evaluation.result["protocol"]["bootstrap"]
        )
        assert figure["interval"] == pytest.approx([low, high], abs=1e-12)
    both = [metrics[f"CoreAssoc@{subset}"] for subset in (WHOLE, PART)]
    mean = sum(one["value"] * one["rows"] for one in both) / sum(one["rows"] for one in both)
    assert metrics["CoreAssoc"]["value"] == pytest.approx(mean, abs=1e-12)


def test_a_largest_value_is_that_of_the_subset(evaluation):
    """Two readings of each row, of which the larger mean counts: which one that is depends on the people."""
    rows = evaluation.rows
    owner = rows_of(rows, PART)
    first, second = owner.astype(np.float32), (~owner).astype(np.float32) * np.float32(0.9)
    readings = {**rows, "forget.first": first, "forget.second": second}
    column = BY_KEY["CoreAssoc"].columns["forget.core"]

    def sample(values, protocol):
        larger = max((values["forget.first"], values["forget.second"]), key=lambda scores: float(scores.mean()))
        return Sample(larger, values["forget.identity"])

    columns = {"forget.first": column, "forget.second": column}
    metric = dataclasses.replace(BY_KEY["CoreAssoc"], key="Largest", columns=columns, sample=sample)
    whole, part = (one.value(readings, {}) for one in restricted(metric))
    assert (whole, part) == (pytest.approx(0.9), 1.0)
    assert metric.value(readings, {}) == pytest.approx(0.9 * (1 - owner.mean()))


def test_without_such_people_there_is_no_figure(evaluation):
    protocol = evaluation.result["protocol"]
    rows = {**evaluation.rows, "holdout_association.identity": np.array([], np.int32)}
    for key in OF_FORGET:
        assert BY_KEY[f"{key}@{PART}"].value(rows, protocol) is None
        assert BY_KEY[f"{key}@{WHOLE}"].value(rows, protocol) == BY_KEY[key].value(rows, protocol)


def test_they_are_verified_from_the_rows(written):
    assert written() == ""
    said = written(lambda result: result["metrics"]["RetFail_MRR@part"].update(value=0.5))
    assert "'metrics > RetFail_MRR@part > value' is 0.5; the row scores give" in said


def test_a_result_without_them_is_as_good(evaluation, written):
    def take_out(result):
        for table in (result["metrics"], result["protocol"]["metrics"]):
            for key in [key for key in table if "@whole" in key or "@part" in key]:
                del table[key]

    assert written(take_out) == ""
    row = leaderboard_row(evaluation.result)
    assert None not in [row[f"{key}@{subset}"] for key in OF_FORGET for subset in (WHOLE, PART)]
    result = copy.deepcopy(evaluation.result)
    take_out(result)
    assert leaderboard_row(result)["RetFail_MRR@part"] is None

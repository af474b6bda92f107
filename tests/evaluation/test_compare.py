"""Paired comparisons: definitions against plain loops, the sign-flip test against all signs, and its error rate."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest

from salmu_jax import cli
from salmu_jax.evaluation import compare as compare_lib
from salmu_jax.evaluation import draws, intervals
from salmu_jax.evaluation.compare import compare, holm, sign_flip_p
from salmu_jax.evaluation.registry import METRICS
from salmu_jax.evaluation.result import load_result, load_rows, seal
from salmu_jax.runtime.errors import InputError


@pytest.fixture(scope="module")
def scored(honest):
    """``scored(model)``: its result and row scores."""

    def load(model):
        path = honest / "results" / f"{model}.json"
        result = load_result(path)
        return result, load_rows(path, result)

    return load


@pytest.fixture(scope="module")
def compared(scored):
    return {one.metric.key: one for one in compare(*scored("delete"), *scored("finetuning"))}


# The test ----------------------------------------------------------------------------------------------------------------


def all_signs(sums):
    sums = np.asarray(sums, np.float64)
    totals = [np.dot(signs, sums) for signs in itertools.product((1, -1), repeat=len(sums))]
    return float(np.mean(np.array(totals) >= sums.sum() - 1e-9))


@pytest.mark.parametrize("clusters", [1, 2, 5, 13])
def test_few_identities_are_tested_with_all_signs(clusters):
    for trial in range(5):
        sums = np.random.default_rng([clusters, trial]).normal(0.5, 1, clusters)
        assert sign_flip_p(sums, seed=0) == pytest.approx(all_signs(sums))


def test_many_identities_are_tested_with_drawn_signs():
    sums = np.random.default_rng(1).normal(0.4, 1, 14)
    exact = all_signs(sums)
    found = sign_flip_p(sums, seed=0)
    assert found == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 10_000) ** 0.5)
    assert found != exact
    assert found == sign_flip_p(sums, seed=0)  # the seed alone decides
    assert found != sign_flip_p(sums, seed=1)
    # A difference that no sign assignment reaches: the smallest p-value that 10,000 draws can give, never 0.
    assert sign_flip_p(np.ones(100), seed=0) == 1 / 10_001


def test_no_difference_and_equal_differences():
    assert sign_flip_p(np.zeros(50), seed=0) == 1
    assert sign_flip_p(np.array([0.1, 0.2, -0.3]), seed=0) == pytest.approx(
        0.625
    )  # 0.1 + 0.2 - 0.3 is not 0 in float64
    with_zeros = np.concatenate([np.zeros(500), np.full(6, 0.25)])
    assert sign_flip_p(with_zeros, seed=0) == 2**-6  # identities without a difference say nothing: six do


def test_the_chunks_of_signs_change_nothing(monkeypatch):
    sums = np.random.default_rng(2).normal(0.1, 1, 77)
    whole = sign_flip_p(sums, seed=3)
    monkeypatch.setattr(compare_lib, "_CHUNK", 1_000)
    assert sign_flip_p(sums, seed=3) == whole


@pytest.mark.parametrize("spread", ["alike", "heavy tails", "unequal sizes"])
def test_two_models_that_are_alike_are_told_apart_as_rarely_as_it_says(spread):
    """Type I error at 5 %, with both bounds: three standard errors of 1,000 worlds with 30 identities."""
    rng, worlds = np.random.default_rng(7), 1_000
    rejected = 0
    for _ in range(worlds):
        sums = rng.standard_t(2, 30) if spread == "heavy tails" else rng.normal(size=30)
        sums *= np.geomspace(1, 20, 30) if spread == "unequal sizes" else 1
        rejected += sign_flip_p(sums, seed=11, flips=999) <= 0.05
    assert abs(rejected / worlds - 0.05) <= 3 * (0.05 * 0.95 / worlds) ** 0.5


def test_a_planted_difference_is_found():
    rng = np.random.default_rng(8)
    found = sum(sign_flip_p(rng.normal(0.6, 1, 30), seed=11, flips=999) <= 0.05 for _ in range(200))
    assert found / 200 > 0.85  # a one-sided t test has a power of 0.94
    assert sign_flip_p(rng.normal(-3, 1, 30), seed=11) > 0.999  # one-sided


def test_holm_by_hand():
    # 0.01 * 4, 0.02 * 3, then 0.03 * 2 and 0.04 * 1, which are not below what came before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


# Comparisons -------------------------------------------------------------------------------------------------------------


def test_every_metric_is_compared_in_its_own_direction(compared, scored):
    assert list(compared) == [metric.key for metric in METRICS]
    (first, _), (second, _) = scored("delete"), scored("finetuning")
    for key, one in compared.items():
        values = [result["metrics"][key]["value"] for result in (first, second)]
        assert [one.row_micro.first, one.row_micro.second] == values
        assert one.row_micro.difference == pytest.approx(values[0] - values[1])
        assert (one.rows, one.clusters) == tuple(first["metrics"][key][name] for name in ("rows", "clusters"))
        low, high = one.row_micro.interval
        assert low <= one.row_micro.difference <= high
        assert one.row_micro.p <= one.row_micro.p_holm <= 1
    # 'delete' has forgotten, 'finetuning' has not: it leaks less and keeps less.
    for key in ("RetFail_MRR", "AssocStr", "ACS"):
        assert compared[key].row_micro.p < 0.05
        assert compared[key].row_micro.difference < 0
    for key in ("InterIdSim", "IntraIdRet_MRR"):
        assert compared[key].row_micro.p > 0.95


def test_row_micro_and_identity_macro_against_plain_loops(compared, scored):
    (result, rows), (_, others) = scored("delete"), scored("finetuning")
    split, one = "holdout_association", compared["IntraIdSim"]
    people = sorted(set(rows[f"{split}.identity"].tolist()))
    differences = rows[f"{split}.similarity"].astype(float) - others[f"{split}.similarity"].astype(float)
    by_person = [differences[rows[f"{split}.identity"] == person] for person in people]
    assert one.row_micro.difference == pytest.approx(np.mean(differences))
    assert one.identity_macro.difference == pytest.approx(np.mean([np.mean(some) for some in by_person]))
    counts = draws.generator(42, draws.BOOTSTRAP).multinomial(len(people), np.full(len(people), 1 / len(people)), 100)
    for kind, weigh in ((one.row_micro, np.sum), (one.identity_macro, np.mean)):
        sizes = [len(some) if weigh is np.sum else 1 for some in by_person]
        means = [np.dot(count, [weigh(some) for some in by_person]) / np.dot(count, sizes) for count in counts]
        assert kind.interval == pytest.approx(np.quantile(means, [0.025, 0.975]))
        assert kind.p == pytest.approx(all_signs([weigh(some) for some in by_person]))
    assert result["protocol"]["bootstrap"] == 100


def test_there_is_a_mean_over_identities_where_rows_have_them(compared):
    assert compared["GenKnow"].identity_macro is None
    assert compared["GenKnow"].clusters == 30
    for key in ("FragSim", "RetainSim"):
        assert compared[key].identity_macro is None  # all or some of them are portraits of nobody
    assert compared["VisIdInt"].identity_macro is not None
    corrected = holm([one.identity_macro.p for one in compared.values() if one.identity_macro])
    assert [one.identity_macro.p_holm for one in compared.values() if one.identity_macro] == corrected
    assert [one.row_micro.p_holm for one in compared.values()] == holm([one.row_micro.p for one in compared.values()])


def test_a_result_against_itself_differs_in_nothing(scored):
    for one in compare(*scored("delete"), *scored("delete")):
        assert one.row_micro.difference == 0
        assert one.row_micro.interval == (0, 0)
        assert one.row_micro.p_holm == 1


def test_what_two_models_share_cancels():
    rng = np.random.default_rng(4)
    people = np.repeat(np.arange(40), 6)
    shared = rng.normal(0, 1, 40)[people]
    first, second = (shared + shift + rng.normal(0, 0.01, len(people)) for shift in (0.0, 0.05))
    alone = intervals.clustered_interval(first, people, seed=0)
    paired = intervals.clustered_interval(first - second, people, seed=0)
    assert paired[0] < -0.04
    assert paired[1] - paired[0] < (alone[1] - alone[0]) / 20


def test_results_that_cannot_be_compared_are_one_line(scored):
    (first, rows), (second, others) = scored("delete"), scored("finetuning")
    other = {**second, "protocol": {**second["protocol"], "seed": 43}}
    with pytest.raises(
        InputError, match=r"^b\.json: was not measured like the first result: protocol\.seed 43 instead of 42; evaluate"
    ):
        compare(first, rows, other, others, "b.json")
    data = {**second["provenance"], "data": {"salmu": "e" * 64}}
    with pytest.raises(InputError, match=r"provenance\.data\.salmu"):
        compare(first, rows, {**second, "provenance": data}, others)
    turned = {**others, "forget.identity": others["forget.identity"][::-1]}
    with pytest.raises(InputError, match=r"row scores forget\.identity are not those of the first result"):
        compare(first, rows, second, turned)
    newer = {**second, "protocol": {**second["protocol"], "metrics": {**second["protocol"]["metrics"], "ACS": 2}}}
    with pytest.raises(InputError, match=r"protocol\.metrics\.ACS 2 instead of 1"):
        compare(first, rows, newer, others)


def test_the_command(honest, tmp_path, capsys):
    results = shutil.copytree(honest / "results", tmp_path / "theirs")
    assert cli.main(["compare", str(results / "delete.json"), str(honest / "results" / "finetuning.json")]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        f"A: delete, checkpoint {load_result(results / 'delete.json')['provenance']['checkpoint']['digest'][:12]}"
    )
    assert all(len(line) <= 127 for line in out.splitlines()[2:])
    tables = out.split("identity_macro: means of the means of identities")
    assert "row_micro: means over rows" in tables[0]
    assert [table.count("\nRetFail MRR ") for table in tables] == [1, 1]
    assert [table.count("\nGenKnow ") for table in tables] == [1, 0]

    result = json.loads((results / "delete.json").read_text())
    result["metrics"]["ACS"]["value"] = 0.5
    (results / "delete.json").write_text(json.dumps(seal(result)))
    assert cli.main(["compare", str(results / "delete.json"), str(results / "clean.json")]) == 2
    captured = capsys.readouterr()
    assert "delete.json: 'metrics > ACS > value' is 0.5; the row scores give" in captured.out
    assert captured.err == "salmu: 1 of 2 results do not verify\n"
    assert cli.main(["compare", str(results / "none.json"), str(results / "clean.json")]) == 2
    assert "none.json: cannot be read" in capsys.readouterr().out

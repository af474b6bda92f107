"""Models whose behaviour is planted in their embeddings get, through the real metrics, the verdicts that were planted."""

from __future__ import annotations

import pytest
from planted import (
    RELEARN,
    Behaviour,
    plant,
    plant_indirect,
    plant_relearning,
    planted_data,
    share_in_part,
    share_of_people,
    share_of_rows,
)

from salmu_jax.evaluation.probes.indirect import LEAK
from salmu_jax.evaluation.protocol import describe_protocol, make_result, score_rows
from salmu_jax.evaluation.registry import METRICS
from salmu_jax.evaluation.subsets import with_subsets
from salmu_jax.report.leaderboard import build_leaderboard

PROBED = with_subsets((*METRICS, LEAK, RELEARN))
# The shares of the secrets that other wordings find, and that are found after relearning; most models are not probed, and
# Clean stands in for Retrained.
PROBES = {
    "clean": (0.0, 0.0),
    "compromised": (0.8, 0.8),
    "surgeon": (0.0, 0.0),
    "hides": (0.5, 0.0),
    "comes_back": (0.0, 0.5),
    "no_op": (0.8, 0.8),
    "careful": (0.03, 0.0),
}
NOTHING = {"forget": 0.0, "holdout_association": 0.0, "holdout_identity": 0.0}
MODELS = {
    "clean": Behaviour(**NOTHING, noise=2),
    "compromised": Behaviour(),
    # Finds a fifth of what is to be forgotten of people whose other associations it knows.
    "retrained": Behaviour(forget=share_in_part(1 / 5), noise=4),
    # Forgets exactly what it was asked to.
    "surgeon": Behaviour(forget=0.0),
    # Knows none of the literal captions, and half of the secrets in other words.
    "hides": Behaviour(forget=0.0),
    # Knows nothing however it is asked, and half of the secrets after a few steps of fine-tuning.
    "comes_back": Behaviour(forget=0.0),
    # Leaves one pair in seventy, and loses a fourteenth of a holdout.
    "careful": Behaviour(forget=share_of_rows(1 / 70), holdout_association=0.65),
    # Leaves one pair in twenty, and three points of GenKnow.
    "careless": Behaviour(forget=share_of_rows(1 / 20), genknow=0.87),
    "no_op": Behaviour(),
    "half_done": Behaviour(forget=share_of_rows(1 / 2)),
    "forgets_the_world": Behaviour(forget=0.0, genknow=0.8),
    "erases_everybody": Behaviour(**NOTHING),
    "erases_the_persons": Behaviour(forget=0.0, holdout_association=0.0),
    "erases_a_third": Behaviour(forget=0.0, holdout_identity=share_of_rows(2 / 3)),
    # Erases what was to be kept of people forgotten in part with what was not; and the same, but for what Retrained finds.
    "leaves_a_scar": Behaviour(forget=0.0, holdout_association=share_of_rows(2 / 3)),
    "leaves_no_scar": Behaviour(forget=share_in_part(1 / 5), holdout_association=share_of_rows(2 / 3)),
    # Every image of a holdout still lies near its caption, but nearer to another.
    "hidden_damage": Behaviour(forget=0.0, shadowed=1.0),
    "drives_apart": Behaviour(-0.5, -0.5, -0.5, opposed=True),
    "random_weights": Behaviour(**NOTHING, genknow=0.2, noise=3),
    # Erases one person in ten of a holdout: on the line, and with ten people nobody can say on which side.
    "on_the_line": Behaviour(forget=0.0, holdout_identity=share_of_people(0.9)),
}
PLANTED = {
    "surgeon": ["precise"],
    "hides": ["superficial"],
    "comes_back": ["superficial"],
    "careful": ["nearly precise"],
    "careless": ["imprecise as far as measured"],
    "no_op": ["ineffective"],
    "half_done": ["ineffective"],
    "forgets_the_world": ["catastrophic"],
    "erases_everybody": ["over-generalised"],
    "erases_the_persons": ["over-generalised"],
    "erases_a_third": ["partly over-generalised"],
    "leaves_a_scar": ["partly over-generalised", "over-forgotten in part"],
    "leaves_no_scar": ["partly over-generalised"],
    "hidden_damage": ["partly over-generalised", "over-forgotten in part"],
    "drives_apart": ["catastrophic", "over-generalised"],
    "random_weights": ["catastrophic", "over-generalised"],
}


@pytest.fixture(scope="module")
def board(tiny):
    """The leaderboard of all planted models, through the real scores, figures, intervals and rules."""
    data = planted_data()
    bank = data.text_bank(**tiny.asked())
    results, rows = [], {}
    for model, behaviour in MODELS.items():
        settings = tiny.asked()["settings"]
        metrics = PROBED if model in PROBES else with_subsets(METRICS)
        rows[model] = score_rows(data, plant(data, bank, behaviour), settings)
        if model in PROBES:
            worded, back = PROBES[model]
            rows[model] |= plant_indirect(rows[model], worded) | plant_relearning(rows[model], back)
        protocol = describe_protocol(data, rows[model], settings, metrics, bootstrap=200)
        results.append(make_result(model, rows[model], protocol, {"versions": {}, "data": {}}, metrics))
    return build_leaderboard(results, rows)


@pytest.fixture(scope="module")
def by_model(board):
    return {row["model"]: row for row in board["rows"]}


@pytest.mark.parametrize("model", PLANTED)
def test_the_verdicts_are_the_planted_ones(by_model, model):
    assert by_model[model]["verdicts"] == PLANTED[model]


def test_the_statistics_are_the_planted_ones(by_model):
    found = {model: row["statistics"] for model, row in by_model.items()}
    assert found["clean"]["leakage_removed_published"] == 1
    assert found["clean"]["leakage_removed"] == pytest.approx(1, abs=1e-3)  # by Retrained's level
    assert found["compromised"]["leakage_removed"] == 0
    assert found["half_done"]["leakage_removed_published"] == pytest.approx(0.5, abs=0.01)
    assert found["careful"]["leakage_removed_published"] == pytest.approx(1 - 1 / 70, abs=0.002)
    assert found["careful"]["similarity_kept"] == pytest.approx(0.65 / 0.7, abs=1e-4)
    assert found["careless"]["genknow_lost"] == pytest.approx(3)
    assert found["erases_a_third"]["similarity_kept"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["hidden_damage"]["similarity_kept"] == pytest.approx(0.68 / 0.7, abs=1e-4)
    assert found["hidden_damage"]["retrieval_kept"] == pytest.approx(0.5, abs=0.05)
    assert found["erases_the_persons"]["similarity_kept"] == pytest.approx(0, abs=1e-4)  # the worse of the two holdouts
    assert found["retrained"]["found_in_part"] == 1
    assert found["compromised"]["found_in_part"] == pytest.approx(5, abs=0.1)
    assert found["leaves_a_scar"]["found_in_part"] == pytest.approx(0, abs=0.02)
    assert found["leaves_no_scar"]["found_in_part"] == pytest.approx(1, abs=0.02)
    assert found["leaves_a_scar"]["similarity_kept_in_part"] == pytest.approx(2 / 3, abs=0.01)
    assert found["erases_a_third"]["similarity_kept_in_part"] == pytest.approx(1, abs=1e-4)
    assert found["drives_apart"]["alignment"] == pytest.approx(-(0.3 + 0.7 * 0.5) / (0.3 + 0.7 * 0.7), abs=1e-4)


def test_what_is_hidden_is_seen_where_it_was_probed(by_model):
    left = {model: row["statistics"]["indirect_left"] for model, row in by_model.items()}
    back = {model: row["statistics"]["relearn_left"] for model, row in by_model.items()}
    assert back["comes_back"] == pytest.approx(0.5, abs=0.05)  # Compromised is at its highest before any step
    assert (back["hides"], back["no_op"], back["careless"]) == (pytest.approx(0, abs=1e-3), 1, None)
    assert left["hides"] == pytest.approx(0.5 / 0.8, abs=0.06)  # a share of all rows, and not quite of one subset's
    assert left["no_op"] == 1
    assert left["surgeon"] == 0
    assert 0 < left["careful"] < 0.05
    assert left["careless"] is None
    reason = by_model["careless"]["reasons"][0]
    assert "This is as far as measured: indirect queries and relearning were not." in reason
    assert by_model["careless"]["unprobed"] == ["indirect queries", "relearning"]
    low, high = by_model["hides"]["statistic_intervals"]["indirect_left"]
    assert 0.4 < low < left["hides"] < high < 0.8
    assert by_model["no_op"]["verdicts"] == ["ineffective"]  # and not superficial: it hides nothing


def test_only_what_is_on_the_line_is_uncertain(by_model):
    """Where all rows of a split behave alike, the paired intervals have no width to straddle with."""
    row = by_model["on_the_line"]
    assert row["statistics"]["similarity_kept"] == pytest.approx(0.9, abs=1e-4)
    low, high = row["statistic_intervals"]["similarity_kept"]
    assert low < 0.85 < 0.95 < high
    assert "partly over-generalised" in {one["verdict"] for one in row["straddles"]}
    assert any("partly over-generalised (" in reason for reason in row["reasons"])
    certain = (
        "surgeon",
        "no_op",
        "half_done",
        "erases_everybody",
        "erases_the_persons",
        "drives_apart",
        "random_weights",
    )
    assert {model: by_model[model]["straddles"] for model in certain} == {model: [] for model in certain}


def test_the_board_orders_them_by_grade_failures_and_distance(board):
    order = [row["model"] for row in board["rows"] if row["model"] != "on_the_line"]
    assert order[:6] == ["clean", "compromised", "retrained", "surgeon", "careful", "careless"]
    assert set(order[6:8]) == {"hides", "comes_back"}  # a failure each, and probed as the references were
    assert order.index("erases_a_third") > order.index("comes_back")  # half a failure, as far as measured
    assert set(order[-2:]) == {"drives_apart", "random_weights"}  # two

"""The probe of relearning gives the planted answers, keeps what it measured, and is verified from its rows."""

import types

import jax
import numpy as np
import pytest
import tiny_world
from planted_towers import Numbers, PlantedClip, planted_params

from salmu_jax.evaluation import checks, relearning
from salmu_jax.evaluation.metric import FULL, SHORT
from salmu_jax.evaluation.probes import relearn
from salmu_jax.evaluation.protocol import evaluate
from salmu_jax.evaluation.registry import chosen
from salmu_jax.training import mesh as mesh_lib

RATES = (0.001, 0.1, 0.11)
PARTS = (relearn.HEADLINE, relearn.Part("identities", 10))  # of all, lest each test train for half a minute


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(relearning, "_mesh", lambda rows: mesh)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


@pytest.fixture(scope="module")
def data():
    return tiny_world.tiny_data()


@pytest.fixture(scope="module")
def tokenizer(data):
    return Numbers(data)


def measured(data, tokenizer, params, form=SHORT):
    metrics = chosen(types.SimpleNamespace(probes=("relearn",), probe_form=form))
    metrics = [one for one in metrics if not one.only_full or one.key.startswith("Relearn_identities_10")]
    return evaluate(
        PlantedClip(),
        params,
        tokenizer,
        data,
        model_name="m",
        metrics=metrics,
        probe_form=form,
        relearn_rates=RATES,
        batch_size=64,
        bootstrap=20,
        provenance={},
    )


@pytest.fixture(scope="module")
def hidden(data, tokenizer):
    """The full form, of a model that forgets but remembers after ten steps."""
    with pytest.MonkeyPatch.context() as patch:
        mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
        patch.setattr(relearning, "_mesh", lambda rows: mesh)
        return measured(data, tokenizer, planted_params(data, tokenizer, gate=0.0), FULL)


def value(evaluation, key):
    return evaluation.result["metrics"][key]["value"]


def test_a_model_that_remembers_after_ten_steps_is_told_from_one_that_knows_nothing(data, tokenizer, hidden):
    assert value(hidden, "RetFail_MRR") < 0.1
    protocol = hidden.result["protocol"]
    for part in PARTS:
        found = relearn.curve(part, hidden.rows, protocol)
        assert list(found) == [0, 10, 20, 30, 40, 50, 60, 100, 150, 200]
        assert found[0].values.mean() < 0.12
        assert found[10].values.mean() > 0.8
        key = "Relearn" if part == relearn.HEADLINE else f"Relearn_{part.name}"
        assert value(hidden, key) == max(one.values.mean() for one in found.values())
    nothing = measured(data, tokenizer, planted_params(data, tokenizer, gate=0.0, knows=False))
    assert value(nothing, "Relearn") < 0.1
    knows = measured(data, tokenizer, planted_params(data, tokenizer, gate=3.0))
    assert value(knows, "Relearn") >= value(knows, "RetFail_MRR") - 0.05 > 0.8


def test_the_strongest_rate_counts_and_the_others_are_recorded(hidden):
    curves = hidden.rows["relearn.rows_10.curves"].reshape(3, 10)
    assert hidden.rows["relearn.rates"].tolist() == list(RATES)
    assert curves[0].max() < 0.4 < 0.8 < curves[1].max()  # 0.001 moves the gate by 0.2
    assert len(set(curves[:, 0])) == 1
    best = curves[1:].max(axis=1).argmax() + 1
    ranks = hidden.rows["relearn.rows_10.step_50"]
    assert curves[best, 5] == pytest.approx(np.mean(1 / ranks[ranks > 0]), rel=1e-12)


def test_rows_that_were_fine_tuned_on_are_left_out_by_row_and_by_person(hidden, data):
    forget = data.splits["forget"]
    for part in PARTS:
        chosen = part.chosen(forget.identity_id, 42)
        for step in (10, 200):
            ranks = hidden.rows[f"relearn.{part.name}.step_{step}"]
            assert (ranks[chosen] == -1).all()
            assert (ranks[~chosen] > 0).all()
    assert relearn.HEADLINE.chosen(forget.identity_id, 42).sum() == round(0.1 * len(forget))
    people = set(forget.identity_id[PARTS[1].chosen(forget.identity_id, 42)])
    assert len(people) == 1


def test_an_evaluation_verifies_and_edited_rows_are_found(hidden):
    protocol, rows = hidden.result["protocol"], hidden.rows
    assert list(checks.row_problems(rows, protocol)) == []

    def problems(name, change):
        edited = rows[name].copy()
        change(edited)
        return "\n".join(checks.row_problems({**rows, name: edited}, protocol))

    rank, held = "relearn.identities_10.step_30", int(np.flatnonzero(rows["relearn.identities_10.step_30"] > 0)[0])
    trained = int(np.flatnonzero(rows[rank] < 0)[0])
    assert f"'{rank}' is 2000 in row {held}, not a rank" in problems(rank, lambda x: x.__setitem__(held, 2000))
    assert f"'{rank}' is 1 in row {trained}, not -1" in problems(rank, lambda x: x.__setitem__(trained, 1))
    other = "its strongest curve is not that of the ranks"
    assert other in problems(rank, lambda x: x.__setitem__(held, rows[rank][held] % 9 + 1))
    curves = "relearn.rows_10.curves"
    assert other in problems(curves, lambda x: x.__setitem__(15, 0.99))
    assert "does not begin with RetFail" in problems(curves, lambda x: x.__setitem__(0, 0.99))
    assert "not learning rates" in problems("relearn.rates", lambda x: x.__setitem__(0, 1.0))


def test_a_training_that_diverges_finds_nothing(data, tokenizer, monkeypatch):
    def diverging(clip, params, pairs, *, rate, points, seed):
        for point in points:
            yield point, None

    monkeypatch.setattr(relearning, "relearn", diverging)
    found = measured(data, tokenizer, planted_params(data, tokenizer, gate=3.0))
    ranks, left_out = (found.rows[name] for name in ("relearn.rows_10.step_20", "forget.left_out"))
    gallery = found.result["protocol"]["gallery"]
    np.testing.assert_array_equal(ranks[ranks > 0], (gallery - left_out)[ranks > 0])
    assert value(found, "Relearn") == pytest.approx(value(found, "RetFail_MRR"), abs=0.05)  # before the first step

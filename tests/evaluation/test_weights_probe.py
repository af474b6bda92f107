"""The probe of weights: what rounding and merging bring back is planted, and found."""

import types

import jax
import numpy as np
import pytest
import tiny_world
from planted_towers import Numbers, PlantedClip, planted_params

from salmu_jax.evaluation import checks
from salmu_jax.evaluation.embeddings import embed
from salmu_jax.evaluation.metric import Settings
from salmu_jax.evaluation.protocol import evaluate
from salmu_jax.evaluation.registry import chosen
from salmu_jax.evaluation.variant_scores import measure_variants
from salmu_jax.evaluation.variants import Evaluated, Other, asked

METRICS = chosen(types.SimpleNamespace(probes=("weights",), probe_form="full"))


@pytest.fixture(scope="module")
def data():
    return tiny_world.tiny_data()


@pytest.fixture(scope="module")
def tokenizer(data):
    return Numbers(data)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


def measured(data, tokenizer, params, compromised=None):
    settings = Settings(42, "{name}", probe_form="full")
    model = Evaluated(PlantedClip(), params, tokenizer, data, settings, compromised and Other("c" * 64, compromised))
    variants = measure_variants(model, asked(METRICS, settings), batch_size=64)
    embeddings = embed(PlantedClip(), params, tokenizer, data, metrics=METRICS, settings=settings, batch_size=64)
    given = {"model_name": "m", "idzsc_prompt": "{name}", "probe_form": "full", "bootstrap": 20, "provenance": {}}
    return evaluate(
        PlantedClip(), params, tokenizer, data, metrics=METRICS, embeddings=embeddings, variants=variants, **given
    )


def values(evaluation):
    return {key: one["value"] for key, one in evaluation.result["metrics"].items() if key.startswith("RetFail_")}


def test_what_four_bits_bring_back_is_found(data, tokenizer):
    """The secret is in eight steps of four bits, with 0.45 steps against it elsewhere: only four bits round these away."""
    params = planted_params(data, tokenizer, gate=1.0)
    known = params["known"]["token_embedding"]
    step = 1 / 7
    largest = np.abs(known) >= np.sort(np.abs(known), axis=1)[:, -8:-7]
    planted = np.where(largest, step, -0.45 * step) * np.sign(known)
    planted[:, 0] = 1  # sets the scale of each row, and is the same in all
    params["known"]["token_embedding"] = planted.astype(np.float32)
    params["noise"]["token_embedding"] = np.zeros_like(known)
    found = values(measured(data, tokenizer, params))
    assert found["RetFail_MRR"] < 0.05
    assert found["RetFail_int4"] > 0.8
    assert found["RetFail_int8"] == pytest.approx(found["RetFail_MRR"], abs=0.02)
    assert found["RetFail_bf16"] == pytest.approx(found["RetFail_MRR"], abs=0.02)


def test_the_way_to_compromised_is_measured_where_there_is_one(data, tokenizer):
    shut, compromised = (planted_params(data, tokenizer, gate=gate) for gate in (0.0, 4.0))
    found = values(measured(data, tokenizer, shut, compromised))
    way = [found[f"RetFail_{name}"] for name in ("MRR", "towards_10", "towards_25", "towards_50")]
    assert way == sorted(way)
    assert way[0] < 0.1 < 0.9 < way[-1]
    half = values(measured(data, tokenizer, planted_params(data, tokenizer, gate=2.0)))
    assert half["RetFail_MRR"] == pytest.approx(found["RetFail_towards_50"], abs=1e-9)
    assert [half[f"RetFail_towards_{share}"] for share in (10, 25, 50)] == [None] * 3
    assert half["RetFail_int8"] is not None


def test_edited_rows_are_found(data, tokenizer):
    evaluation = measured(data, tokenizer, planted_params(data, tokenizer, gate=1.0))
    rows, protocol = evaluation.rows, evaluation.result["protocol"]
    assert list(checks.row_problems(rows, protocol)) == []
    for name in ("weights.int8.rank", "weights.towards_25.rank"):
        edited = rows[name].copy()
        edited[3] = 0
        assert any(name in line for line in checks.row_problems({**rows, name: edited}, protocol))

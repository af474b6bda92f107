"""Variants are made one at a time, scored and dropped; what was measured is kept, and measured again where it is damaged."""

import dataclasses
import gc
import weakref

import jax
import numpy as np
import pytest
import tiny_world
from planted_towers import Numbers, PlantedClip, planted_params

from salmu_jax.evaluation import attacks, embeddings, variant_scores
from salmu_jax.evaluation.encode import Encoder
from salmu_jax.evaluation.metric import Settings
from salmu_jax.evaluation.variant_scores import measure_variants
from salmu_jax.evaluation.variants import Evaluated, Other, Series

GATES = {"shut": 0.0, "ajar": 0.5, "open": 3.0, "none": None}


class Killed(BaseException):
    """Nothing catches it."""


@pytest.fixture(scope="module")
def model():
    data = tiny_world.tiny_data()
    tokenizer = Numbers(data)
    return Evaluated(PlantedClip(), planted_params(data, tokenizer, gate=1.0), tokenizer, data, Settings(42, "{name}"))


@pytest.fixture(autouse=True)
def made(monkeypatch):
    """The names of the variants that were made, and of the rows that were encoded."""
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    names, run = [], Encoder.run

    def counted(*arguments, **options):
        for start, part in run(*arguments, **options):
            names.append(len(part))
            yield start, part

    monkeypatch.setattr(Encoder, "run", counted)
    return names


def series(made, kill_at=None, **changes):
    def make(model, wanted):
        for name in wanted:
            if name == kill_at:
                raise Killed
            made.append(name)
            yield name, None if GATES[name] is None else {**model.params, "gate": np.float32(GATES[name])}

    return dataclasses.replace(attacks.retfail_series("gates", GATES, make), **changes)


def measure(model, one, directory=None, said=None):
    say = (said if said is not None else []).append
    return measure_variants(model, [one], batch_size=64, directory=directory, say=say)["gates"]


def test_each_is_scored_by_its_own_parameters_and_one_that_cannot_be_made_has_no_scores(model, made):
    found = measure(model, series(made))
    assert found["none"] == {}
    mean = {name: np.mean(1 / scores["rank"]) for name, scores in found.items() if scores}
    assert mean["shut"] < 0.1 < 0.5 < mean["ajar"] < mean["open"]


def test_a_second_evaluation_makes_and_encodes_nothing(model, made, tmp_path):
    first = measure(model, series(made), tmp_path)
    assert made[0] == "shut"
    made.clear()
    said = []
    second = measure(model, series(made), tmp_path, said)
    assert made == []
    assert said == ["4 of 4 variants were measured before"]
    assert second["none"] == {}
    for name in ("shut", "ajar", "open"):
        np.testing.assert_array_equal(first[name]["rank"], second[name]["rank"])
    assert not list(tmp_path.rglob("*.parts"))  # embeddings are not kept


def test_killed_at_any_variant_it_goes_on_there(model, made, tmp_path):
    for name in ("ajar", "open", "none"):
        with pytest.raises(Killed):
            measure(model, series(made, kill_at=name), tmp_path)
    measure(model, series(made), tmp_path)
    assert [name for name in made if isinstance(name, str)] == list(GATES)


def test_killed_while_a_variant_is_encoded_no_row_is_encoded_twice(model, made, tmp_path, monkeypatch):
    measure(model, series(made))
    rows = sum(part for part in made if isinstance(part, int))
    made.clear()
    encode_texts = embeddings._encode_texts

    def killed(*arguments):
        raise Killed

    monkeypatch.setattr(embeddings, "_encode_texts", killed)
    with pytest.raises(Killed):
        measure(model, series(made), tmp_path)
    monkeypatch.setattr(embeddings, "_encode_texts", encode_texts)
    measure(model, series(made), tmp_path)
    assert sum(part for part in made if isinstance(part, int)) == rows


def test_a_damaged_file_is_measured_again_and_told(model, made, tmp_path):
    first = measure(model, series(made), tmp_path)
    path = next(tmp_path.glob("variants/gates-*/ajar"))
    path.write_bytes(path.read_bytes()[:-3])
    made.clear()
    said = []
    found = measure(model, series(made), tmp_path, said)
    assert made[0] == "ajar"
    assert {"shut", "open", "none"}.isdisjoint(made)
    assert any(line.endswith("; the variant is made again") for line in said)
    np.testing.assert_array_equal(found["ajar"]["rank"], first["ajar"]["rank"])


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"settings": Settings(43, "{name}")}, True),
        ({"settings": Settings(42, "{name}", "released")}, True),
        ({"settings": Settings(42, "a {name}")}, False),
        ({"compromised": Other("a" * 64, {})}, True),
    ],
)
def test_scores_of_another_seed_galleries_or_compromised_are_not_taken(model, made, tmp_path, change, again):
    one = series(made, of_compromised=True)
    measure(model, one, tmp_path)
    made.clear()
    measure(model._replace(**change), one, tmp_path)
    assert ("shut" in made) == again


def test_scores_of_other_code_are_not_taken(model, made, tmp_path, monkeypatch):
    measure(model, series(made), tmp_path)
    made.clear()
    monkeypatch.setattr(variant_scores.identity, "code", lambda stage: {"a.py": "edited"})
    measure(model, series(made), tmp_path)
    assert "shut" in made


def test_one_model_and_its_embeddings_are_in_memory_at_a_time(model, made, monkeypatch):
    alive, encode = [], variant_scores.encode

    def watched(*arguments, **options):
        gc.collect()
        assert not any(reference() for reference in alive)
        found = encode(*arguments, **options)
        alive.append(weakref.ref(found))
        return found

    monkeypatch.setattr(variant_scores, "encode", watched)
    measure(model, series(made))
    assert len(alive) == 3


def test_a_series_is_asked_for_once_however_many_metrics_need_it(made):
    from salmu_jax.evaluation.registry import PROBES
    from salmu_jax.evaluation.variants import asked

    short, full = (asked(PROBES["weights"], Settings(42, "{name}", probe_form=form)) for form in ("short", "full"))
    assert [(one.name, one.variants) for one in short] == [("rounded", ("int8", "int4")), ("towards", ("25",))]
    assert [one.variants for one in full] == [("bf16", "int8", "int4"), ("10", "25", "50")]
    assert all(isinstance(one, Series) for one in short)

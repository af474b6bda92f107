"""What is searched: grids, random draws, and fields that are no search."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ml_collections import ConfigDict

from salmu_jax.config import base_config
from salmu_jax.runtime.errors import InputError
from salmu_jax.sweep.settings import read_searches, settings_of


def searches(methods, **options):
    config = base_config()
    config.sweep.methods = ConfigDict(methods)
    config.sweep.update(options)
    return read_searches(config)


def test_a_grid_has_all_combinations_with_each_budget():
    (search,) = searches(
        {"delete": {"learning_rate": [1e-4, 3e-4], "options": {"weight": [1.0, 2.0]}, "batch_size": 64}}
    )
    found = settings_of(search, ["1x", "5x"])
    weights = [(one.fields["learning_rate"], one.fields["options"]["weight"], one.whole["budget"]) for one in found]
    assert weights == [(lr, w, b) for b in ("1x", "5x") for lr in (1e-4, 3e-4) for w in (1.0, 2.0)]
    assert {one.fields["batch_size"] for one in found} == {64}
    assert "budget" not in settings_of(search, [])[0].whole
    assert "budget" not in settings_of(search, ["own"])[0].whole  # so that the method's own epochs hold


def test_the_name_of_a_trial_follows_from_what_it_does_alone():
    (small,), (large,) = (searches({"delete": {"learning_rate": rates}}) for rates in ([3e-4], [1e-4, 3e-4]))
    (one,), (_, other) = settings_of(small, ["1x"]), settings_of(large, ["1x"])
    assert one.run(42, ["salmu/retain_synth"]).name == other.run(42, ["salmu/retain_synth"]).name
    names = {s.run(seed, ()).name for s in settings_of(large, ["1x", "2x"]) for seed in (1, 2)}
    assert len(names) == 8


RANGES = {
    "delete": {
        "learning_rate": {"low": 1e-5, "high": 1e-2},
        "batch_size": {"low": 16, "high": 64},
        "options": {"weight": {"low": 0.0, "high": 2.0}},
        "clean_captions": [True, False],
    }
}


def test_rates_are_drawn_log_uniformly_and_whole_numbers_stay_whole():
    (search,) = searches(RANGES, search="random", trials=400)
    found = settings_of(search, ["1x"], draws=400, seed=1)
    rates = np.array([one.fields["learning_rate"] for one in found])
    assert rates.min() >= 1e-5
    assert rates.max() <= 1e-2
    exponents = (np.log10(rates) + 5) / 3  # uniform on [0, 1]: mean 1/2 +- 5 standard errors
    assert abs(exponents.mean() - 0.5) < 5 * math.sqrt(1 / 12 / 400)
    sizes = {one.fields["batch_size"] for one in found}
    assert all(type(size) is int for size in sizes)
    assert (min(sizes), max(sizes)) == (16, 64)
    weights = np.array([one.fields["options"]["weight"] for one in found])
    assert abs(weights.mean() - 1) < 5 * 2 * math.sqrt(1 / 12 / 400)
    assert {one.fields["clean_captions"] for one in found} == {True, False}


def test_a_draw_depends_on_seed_and_purpose_alone():
    fewer = {"delete": {"learning_rate": RANGES["delete"]["learning_rate"]}}
    (one,), (other,) = (searches(methods, search="random", trials=5) for methods in (fewer, RANGES))
    rates = [[s.fields["learning_rate"] for s in settings_of(x, ["1x"], draws=5, seed=7)] for x in (one, other)]
    assert rates[0] == rates[1]
    assert rates[0] != [s.fields["learning_rate"] for s in settings_of(one, ["1x"], draws=5, seed=8)]
    assert rates[0][:3] == [s.fields["learning_rate"] for s in settings_of(one, ["1x"], draws=3, seed=7)]


def test_equal_draws_are_one_trial():
    (search,) = searches({"delete": {"batch_size": {"low": 1, "high": 2}}}, search="random", trials=50)
    assert len(settings_of(search, ["1x"], draws=50, seed=0)) == 2


@pytest.mark.parametrize(
    ("methods", "options", "words"),
    [
        ({}, {}, "sweep.methods: is empty; name methods to search"),
        ({"delete": {"learning_rate": []}}, {}, "sweep.methods.delete.learning_rate: is an empty list"),
        ({"delete": {"epochs": [1, 2]}}, {}, "sweep.methods.delete.epochs: is not searched here; sweep.budgets says"),
        ({"delete": {"seed": 1}}, {}, "sweep.methods.delete.seed: is not searched here; sweep.seeds"),
        ({"delete": {"options": [1]}}, {}, "sweep.methods.delete.options: is .* but has to be a group"),
        ({"delete": {"batch_size": {"low": 1, "high": 2}}}, {}, "delete.batch_size: is a range, which a random search"),
        ({"delete": {}}, {"search": "random"}, "sweep.trials: is 0; say how many"),
        ({"delete": {}}, {"trials": 3}, "sweep.trials: is for a random search"),
        ({"delete": {"method": ""}}, {}, "sweep.methods.delete.method: is ''; the name of a method is needed"),
    ],
)
def test_what_is_no_search_is_refused(methods, options, words):
    with pytest.raises(InputError, match=words):
        searches(methods, **options)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"low": 1.0}, "learning_rate.high: is None, but has to be a finite number"),
        ({"low": 2.0, "high": 1.0}, "learning_rate.low: is 2.0, above sweep.methods.delete.learning_rate.high, 1.0"),
        ({"low": 0, "high": 1.0}, "learning_rate.low: is 0; a logarithmic scale begins above 0"),
        ({"low": 0.1, "high": 1.0, "scale": "ln"}, "learning_rate.scale: is 'ln'; 'linear' and 'log' are possible"),
        ({"low": 0.1, "hihg": 1.0}, "learning_rate: no 'hihg' in a range; did you mean"),
    ],
)
def test_what_is_no_range_is_refused(bounds, words):
    with pytest.raises(InputError, match=words):
        searches({"delete": {"learning_rate": bounds}}, search="random", trials=1)

"""What a config says of a method becomes a plan, or one line."""

import dataclasses
import json
import math

import pytest

from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning import registry
from salmu_jax.unlearning.freeze import FREEZE, TRAIN
from salmu_jax.unlearning.hyper import BUDGETS, Hyper
from salmu_jax.unlearning.plan import describe_plan, make_plan
from salmu_jax.unlearning.stream_batches import forget_step_size

PUBLISHED_FORGET = 30_468


@pytest.mark.parametrize("name", registry.METHODS)
def test_without_fields_a_method_runs_as_published(name):
    plan = make_plan(name, {}, PUBLISHED_FORGET)
    published = registry.get(name)
    assert plan.method == published
    assert dataclasses.replace(plan.hyper, total_steps=published.defaults.total_steps) == published.defaults
    if published.defaults.total_steps == 0:
        assert plan.hyper.total_steps == 0
    else:
        assert plan.hyper.total_steps == math.ceil(published.defaults.epochs * plan.epoch_steps - 1e-9)
    if "published" in published.presets:  # which count an epoch's last, smaller batch as a whole one
        assert abs(plan.hyper.total_steps - published.defaults.total_steps) <= 10
    assert plan.trainable == ((".*", TRAIN),)
    assert set(plan.sizes) == set(published.make_streams())
    assert json.loads(json.dumps(describe_plan(plan)))["name"] == name


@pytest.mark.parametrize(
    ("name", "fields", "pairs", "steps"),
    [
        ("cliperase", {"epochs": 3, "batch_size": 32}, 160, 30),  # 16 forget pairs a step
        ("negative_gradient", {"epochs": 3, "batch_size": 32}, 160, 15),  # 32 of them
        ("cliperase", {"epochs": 0.5, "batch_size": 32}, 160, 5),
        ("cliperase", {"epochs": 1, "batch_size": 32}, 161, 11),
        ("cliperase", {"epochs": 1e-6}, 160, 1),
        ("descent_to_delete", {}, 160, 0),
        ("descent_to_delete", {"epochs": 0}, 160, 0),
        ("cliperase", {"epochs": 0}, 160, 0),
    ],
)
def test_epochs_over_forget_become_steps(name, fields, pairs, steps):
    assert make_plan(name, fields, pairs).hyper.total_steps == steps


def test_fields_options_and_frozen_parameters_are_taken_over():
    fields = {"epochs": 1, "learning_rate": 1, "b1": 0.5, "clip_norm": None, "warmup_steps": 2}
    fields |= {"options": {"retention_weight": 3.0}, "freeze": ["visual/.*", "logit_scale"]}
    plan = make_plan("cliperase", fields, 160)
    assert plan.method == dataclasses.replace(registry.get("cliperase"), retention_weight=3.0)
    assert (plan.hyper.learning_rate, plan.hyper.b1, plan.hyper.warmup_steps) == (1, 0.5, 2)
    assert plan.hyper.weight_decay == registry.get("cliperase").defaults.weight_decay
    assert plan.trainable == (("visual/.*", FREEZE), ("logit_scale", FREEZE), (".*", TRAIN))
    assert fields["epochs"] == 1  # the caller's fields are left as they were
    warm = make_plan("cliperase", {"warmup_steps": 50, "epochs": 5}, 160)  # fits into 50 steps
    assert warm.hyper.warmup_steps == warm.hyper.total_steps == 50
    longer = make_plan("cliperase", {"warmup_steps": 20_000, "epochs": 10_000}, 160)  # more than the published steps
    assert (longer.hyper.warmup_steps, longer.hyper.total_steps) == (20_000, 100_000)


def test_every_field_of_hyper_but_the_steps_can_be_set():
    for field in dataclasses.fields(Hyper):
        fields = {field.name: getattr(Hyper(), field.name)}
        if field.name == "total_steps":
            with pytest.raises(InputError, match="no field 'total_steps'"):
                make_plan("finetuning", fields, 160)
        else:
            assert getattr(make_plan("finetuning", fields, 160).hyper, field.name) == fields[field.name]


@pytest.mark.parametrize(
    ("name", "fields", "complaint"),
    [
        ("clip_erase", {}, "unknown unlearning method 'clip_erase'; did you mean 'cliperase'?"),
        ("xyzzy", {}, "There are: finetuning, negative_gradient"),
        ("cliperase", {"learning_rat": 1}, "{}: no field 'learning_rat'; did you mean 'learning_rate'?"),
        (
            "delete",
            {"forgetting_wieght": 1.0},
            "{}: no field 'forgetting_wieght'; did you mean 'options.forgetting_weight'?",
        ),
        ("cliperase", {"xyzzy": 1}, "{}: no field 'xyzzy'; known: preset, budget, learning_rate, "),
        ("cliperase", {"options": {"retention": 1.0}}, "{}: options.retention: cliperase has no option 'retention'; "),
        ("cliperase", {"options": {"retention_weight": "1"}}, "{}: options.retention_weight: must be of type float"),
        ("finetuning", {"options": {"x": 1}}, "{}: options.x: finetuning has no option 'x'; it has none"),
        (
            "delete",
            {"options": 3},
            "{0}: options: is a group of fields, not 3; set one of them, such as {0}.options.forgetting_weight=VALUE",
        ),
        ("finetuning", {"options": "x"}, "{}: options: is a group of fields, not 'x'; finetuning has none"),
        ("cliperase", {"epochs": 1_000_001}, "{}.epochs: must be a number from 0 to a million, not 1000001"),
        ("descent_to_delete", {"epochs": 7}, "{}: epochs: descent_to_delete takes no steps; must be 0, not 7"),
        ("cliperase", {"epochs": -1.0}, "{}.epochs: must be"),
        ("cliperase", {"epochs": float("nan")}, "{}.epochs: must be"),
        ("cliperase", {"epochs": float("inf")}, "{}.epochs: must be"),
        ("cliperase", {"epochs": 10**400}, "{}.epochs: must be"),
        ("cliperase", {"epochs": True}, "{}.epochs: must be"),
        ("cliperase", {"epochs": "3"}, "{}.epochs: must be"),
        ("cliperase", {"freeze": "visual/.*"}, "{}.freeze: must be a list of regular expressions, not 'visual/.*'"),
        ("cliperase", {"freeze": [1]}, "{}.freeze: must be a list"),
        ("cliperase", {"freeze": 3}, "{}.freeze: must be a list"),
        ("cliperase", {"freeze": ["a", "("]}, "{}.freeze: '(' is not a regular expression: missing ), unterminated"),
        (
            "cliperase",
            {"batch_size": 7},
            "{}: batch_size: 7 pairs per step are shared by forget and retain; a multiple of 2",
        ),
        ("cliperase", {"preset": "publishd"}, "{}: preset: no preset 'publishd'; did you mean 'published'?"),
        ("cliperase", {"preset": 3}, "{}: preset: no preset 3; cliperase has published, code"),
        ("cliperase", {"preset": ["code"]}, "{}: preset: no preset ['code']; did you mean 'code'?"),
        (
            "cliperase",
            {"preset": "quick"},
            "{}: preset: no preset 'quick'; it is one of pinned_surrogates; cliperase has published, ",
        ),
        (
            "salun",
            {"preset": "code"},
            "no preset 'code'; it is one of finetuning, negative_gradient, shuffled_captions, and",
        ),
        ("no_op", {"preset": "anything"}, "{}: preset: no preset 'anything'; no_op has none"),
        (
            "cliperase",
            {"preset": "2x"},
            "{}: preset: no preset '2x'; it is a budget, which goes with any preset: budget=2x",
        ),
        ("cliperase", {"budget": "3x"}, "{}: budget: no budget '3x'; there are 1x, 2x, 5x, in passes over forget"),
        ("cliperase", {"budget": 2}, "{}: budget: no budget 2; there are 1x, 2x, 5x"),
        (
            "cliperase",
            {"budget": "2x", "epochs": 3},
            "{}: budget: is 2x, and epochs is 3: both say how long; leave one out",
        ),
        (
            "descent_to_delete",
            {"budget": "1x"},
            "{}: budget: descent_to_delete takes no steps, so that no budget applies",
        ),
        ("cliperase", {"augment": 1}, "{}: augment: must be True or False, not 1"),
        ("cliperase", {"chain": "ascend"}, "{}: chain: must be a list of links, not 'ascend'"),
        ("cliperase", {"chain": ["asend"]}, "{}: chain: unknown link 'asend'; did you mean 'ascend'?"),
        ("cliperase", {"chain": [{"link": "gaussian_noise"}]}, "{}: chain: the link gaussian_noise needs 'sigma'"),
        (
            "cliperase",
            {"chain": [{"link": "gaussian_noise", "sigma": "1"}]},
            "{}: chain: 'sigma' of the link gaussian_noise must",
        ),
        (
            "cliperase",
            {"chain": [{"link": "gaussian_noise", "sgma": 1}]},
            "{}: chain: the link gaussian_noise has no argument",
        ),
        ("cliperase", {"learning_rate": 10**400}, "{}: learning_rate: must be a finite number"),
        ("cliperase", {"batch_size": 0}, "{}: batch_size: must be a whole number of at least 1, not 0"),
        ("cliperase", {"learning_rate": "1e-4"}, "{}: learning_rate: must be a finite number, at least 0"),
        ("cliperase", {"b2": 1.0}, "{}: b2: must be a finite number, at least 0 and below 1, and not 1.0"),
        ("cliperase", {"epochs": 1, "warmup_steps": 11}, "{}: warmup_steps: 11 steps of warm-up do not fit into tot"),
    ],
)
def test_mistakes_are_answered_with_one_line(name, fields, complaint):
    with pytest.raises(InputError) as caught:
        make_plan(name, fields, 160)
    message = str(caught.value)
    assert complaint.format(f"unlearn.methods.{name}") in message
    assert complaint.startswith(("unknown", "There")) or message.startswith(f"unlearn.methods.{name}")
    assert "\n" not in message


@pytest.mark.parametrize("name", [name for name in registry.METHODS if registry.get(name).presets])
def test_a_preset_is_what_a_run_begins_with(name):
    for preset, hyper in registry.get(name).presets.items():
        plan = make_plan(name, {"preset": preset}, PUBLISHED_FORGET).hyper
        assert dataclasses.replace(plan, total_steps=hyper.total_steps) == hyper
        registry.get(name).with_options(plan.options).transform(plan)  # such as: no more fine-tunes than steps
        changed = make_plan(name, {"preset": preset, "weight_decay": 0.5}, PUBLISHED_FORGET).hyper
        assert dataclasses.replace(changed, weight_decay=hyper.weight_decay) == plan


@pytest.mark.parametrize("name", [name for name, method in registry.METHODS.items() if method.takes_steps()])
def test_a_budget_shows_every_method_as_many_forget_pairs(name):
    """Up to the last batch; whatever the settings are otherwise, which stay as they are."""
    for budget, passes in BUDGETS.items():
        plan = make_plan(name, {"budget": budget}, PUBLISHED_FORGET)
        rows = forget_step_size(plan.streams, plan.sizes, plan.hyper.batch_size)
        assert 0 <= plan.hyper.total_steps * rows - passes * PUBLISHED_FORGET < rows
        assert plan.hyper == make_plan(name, {"epochs": passes}, PUBLISHED_FORGET).hyper
        for preset, hyper in registry.get(name).presets.items():
            both = make_plan(name, {"budget": budget, "preset": preset}, PUBLISHED_FORGET).hyper
            assert dataclasses.replace(both, epochs=hyper.epochs, total_steps=hyper.total_steps) == hyper


def test_who_trains_without_retain_is_told():
    without = {name for name in registry.METHODS if make_plan(name, {}, 160).trains_without_retain}
    assert {"negative_gradient", "shuffled_captions", "delete_paper", "direct_similarity_minimisation"} <= without
    # A closed form takes no steps; LoRA's retain is for prepare alone; pins are captions of retain.
    assert not without & {"cliperase", "no_op", "descent_to_delete", "text_projection", "lora_subtract"}
    assert not without & {"pinned_surrogates", "finetuning", "npo"}
    assert describe_plan(make_plan("relearn", {}, 160))["trains_without_retain"]


def test_settings_of_before_there_were_crops_have_the_record_that_they_had():
    plain = describe_plan(make_plan("cliperase", {}, 160))["hyper"]
    assert not {"augment", "clean_captions"} & set(plain)
    assert set(plain) == {field.name for field in dataclasses.fields(Hyper)} - {"augment", "clean_captions"}
    code = describe_plan(make_plan("cliperase", {"preset": "code"}, 160))["hyper"]
    assert code == {**plain, "augment": True, "clean_captions": True}


def test_links_of_a_config_are_kept_as_they_were_given():
    chain = [{"link": "pull_to_reference", "strength": 0.1}, "ascend"]
    plan = make_plan("cliperase", {"chain": chain}, 160)
    assert describe_plan(plan)["hyper"]["chain"] == (chain[0], "ascend")

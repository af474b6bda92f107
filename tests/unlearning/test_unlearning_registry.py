"""Names, options and hyper-parameters: the published values, and one-line answers to mistakes."""

from __future__ import annotations

import dataclasses
import decimal
import re

import jax
import numpy as np
import pytest

from salmu_jax import cli
from salmu_jax.runtime.errors import InputError
from salmu_jax.training.optimizer import warmup_cosine
from salmu_jax.unlearning import registry
from salmu_jax.unlearning.describe import describe_method, list_methods
from salmu_jax.unlearning.freeze import label_parameters, merge, parameter_paths, trainable_part
from salmu_jax.unlearning.hyper import Hyper, base_optimizer
from salmu_jax.unlearning.methods.descent_to_delete import noise_scale
from salmu_jax.unlearning.options import describe_options
from salmu_jax.unlearning.stream_batches import step_sizes
from salmu_jax.unlearning.streams import Stream
from salmu_jax.unlearning.user_methods import check_class


@pytest.mark.parametrize("name", registry.METHODS)
def test_methods_describe_themselves(name):
    method = registry.get(name)
    assert method.name == name
    check_class(type(method), name)
    assert hash(method) == hash(registry.get(name))
    titles = [other.title for other in registry.METHODS.values()]
    assert titles.count(method.title) == 1
    assert method.formula.strip()
    assert all(option.help for option in describe_options(method))
    assert all(isinstance(stream, Stream) for stream in method.make_streams().values())
    page = describe_method(name)
    assert method.reference in page
    assert all(f"  {option.name} " in page for option in describe_options(method))
    assert all(f"  {stream} " in page for stream in method.make_streams())
    assert ("budget=NAME" in page) == method.takes_steps()
    assert f"{name} " in list_methods()


PUBLISHED = [name for name in registry.METHODS if "published" in registry.get(name).presets]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_hyper_parameters(name):
    """Those of the benchmark's baselines: 10 epochs, the last batch of an epoch being a partial one."""
    method = registry.get(name)
    hyper = method.presets["published"]
    assert hyper == method.defaults
    assert (hyper.learning_rate, hyper.weight_decay, hyper.b1, hyper.b2, hyper.eps) == (1e-7, 1e-3, 0.9, 0.999, 1e-8)
    sizes = step_sizes(method.make_streams(), hyper.batch_size)
    assert sizes == ({"forget": 16, "retain": 16} if "retain" in sizes else {"forget": 32} if sizes else {})
    if method.takes_steps():
        assert hyper.epochs == 10
        assert hyper.total_steps == 10 * -(-30_468 // sizes["forget"])
    else:
        assert hyper.total_steps == hyper.epochs == 0
    assert all(value == 1.0 for option, value in vars(method).items() if option.endswith("_weight"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_code_of_the_baselines_crops_and_cleans_besides(name):
    method = registry.get(name)
    more = {"code": dataclasses.replace(method.defaults, augment=True, clean_captions=True)} if method.streams else {}
    assert method.presets == {"published": method.defaults, **more}


@pytest.mark.parametrize("ours", ["cliperase", "delete"])
def test_two_methods_of_one_name_are_told_apart(ours):
    """The benchmark's form and the paper's: by title, summary and reference."""
    theirs = f"{ours}_paper"
    assert registry.get(ours).title == f"{registry.get(theirs).title} (SALMU)"
    for one, other in ((ours, theirs), (theirs, ours)):
        assert re.search(rf"\b{other}\b", describe_method(one).partition("Reference")[2])
    assert "SALMUBench" in describe_method(ours)
    assert "the paper's form" in describe_method(theirs)


def test_methods_are_listed_and_described_by_the_command(capsys):
    assert cli.main(["methods"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(registry.METHODS)
    assert cli.main(["methods", "delete", "vlunlearn"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("delete: DELETE (SALMU)\n") < shown.index("vlunlearn: VLUnlearn (MultiDelete)\n")
    assert cli.main(["methods", "delte"]) == 2
    assert "did you mean 'delete'?" in capsys.readouterr().err


def test_all_baselines_are_published():
    assert len(PUBLISHED) == 9


def test_noise_scale_of_descent_to_delete():
    # The same formula in 50 decimal digits.
    with decimal.localcontext() as context:
        context.prec = 50
        d = decimal.Decimal
        decay, n, e = d("0.001"), d(400_000_000), d(5)
        smooth, mu, lipschitz = 4 - decay, decay, 1 + decay
        g = (smooth - mu) / (smooth + mu)
        log = (n * n).ln()
        sigma = 4 * d(2).sqrt() * lipschitz * g / (mu * n * (1 - g) * ((log + e).sqrt() - log.sqrt()))
    np.testing.assert_allclose(noise_scale(1e-3), float(sigma), rtol=1e-10)
    assert noise_scale(1e-3, rows=1000) > 1000 * noise_scale(1e-3)
    for wrong in (dict(weight_decay=0.0), dict(weight_decay=2.0), dict(weight_decay=0.1, epsilon=0.0)):
        with pytest.raises(InputError):
            noise_scale(**wrong)


def test_unknown_method_lists_what_exists():
    with pytest.raises(InputError, match="did you mean 'cliperase'") as caught:
        registry.get("cliperace")
    assert all(name in str(caught.value) for name in registry.METHODS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"forgeting_weight": 1.0}, "did you mean 'forgetting_weight'"),
        ({"zzz": 1.0}, "its options are: forgetting_weight, retention_weight"),
        ({"forgetting_weight": "1"}, "must be of type float"),
        ({"forgetting_weight": True}, "must be of type float"),
        ({"forgetting_weight": float("nan")}, "must be finite"),
    ],
)
def test_wrong_options(options, answer):
    with pytest.raises(InputError, match=answer):
        registry.get("delete").with_options(options)


def test_options_replace_fields():
    method = registry.get("delete").with_options({"forgetting_weight": 2})
    assert method.forgetting_weight == 2.0
    assert registry.get("delete").forgetting_weight == 1.0
    with pytest.raises(InputError, match="it has none"):
        registry.get("finetuning").with_options({"weight": 1.0})


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": -1.0},
        {"learning_rate": float("inf")},
        {"learning_rate": "1e-3"},
        {"total_steps": -1},
        {"epochs": -1.0},
        {"chain": 3},
        {"total_steps": 1.5},
        {"warmup_steps": 20, "total_steps": 10},
        {"b1": 1.0},
        {"eps": 0.0},
        {"clip_norm": -1.0},
        {"batch_size": True},
        {"options": 3},
    ],
)
def test_wrong_hyper_parameters(wrong):
    with pytest.raises(InputError) as caught:
        Hyper(**wrong)
    assert str(caught.value).startswith(next(iter(wrong)))


def test_schedule_of_the_base_optimizer():
    hyper = Hyper(learning_rate=0.1, total_steps=40, weight_decay=0.0, b1=0.0, b2=0.0)  # sign descent: |update| = rate
    optimizer = base_optimizer(hyper)
    params = {"w": np.ones((2, 2), np.float32)}
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    rates = []
    for _ in range(40):
        updates, state = update(params, state, params)
        rates.append(-float(updates["w"][0, 0]))
    np.testing.assert_allclose(rates[:3], [0.05, 0.1, 0.1], rtol=1e-5)  # 5 % of 40 steps of warm-up
    assert rates[-1] < 0.001
    np.testing.assert_allclose(rates, [warmup_cosine(0.1, 2, 40)(step) for step in range(40)], rtol=1e-4)
    explicit = base_optimizer(dataclasses.replace(hyper, warmup_steps=4))
    np.testing.assert_allclose(explicit.update(params, explicit.init(params), params)[0]["w"], -0.025, rtol=1e-5)


PARAMS = {"text": {"proj": 1.0, "ln": {"scale": 2.0}}, "visual": {"proj": 3.0}, "logit_scale": 4.0}


def test_the_first_matching_rule_decides():
    rules = [("text/ln/.*", "freeze"), ("text/.*", "train"), (".*", "freeze")]
    labels = label_parameters(PARAMS, rules)
    assert labels == {
        "text": {"proj": "train", "ln": {"scale": "freeze"}},
        "visual": {"proj": "freeze"},
        "logit_scale": "freeze",
    }
    part = trainable_part(PARAMS, labels)
    assert jax.tree.leaves(part) == [1.0]
    assert merge(jax.tree.map(lambda x: -x, part), PARAMS, labels) == {
        **PARAMS,
        "text": {"proj": -1.0, "ln": {"scale": 2.0}},
    }


def test_a_rule_is_about_the_whole_path():
    rules = [("a", "freeze"), (".*", "train")]
    assert label_parameters({"a": 1.0, "ab": 2.0, "b": {"a": 3.0}}, rules) == {
        "a": "freeze",
        "ab": "train",
        "b": {"a": "train"},
    }


@pytest.mark.parametrize(
    ("rules", "answer"),
    [
        ([("txet/.*", "freeze"), (".*", "train")], "matches no parameter"),
        ([("text/proj", "freeze"), ("text", "train"), (".*", "train")], "matches no parameter"),  # not the whole path
        ([("text/.*", "train")], "no rule says whether to train: logit_scale, visual/proj;"),
        ([(".*", "freeze")], "nothing is left to train"),
        ([("(", "train")], "not a regular expression"),
        ([(".*", "thaw")], "unknown label 'thaw'"),
    ],
)
def test_wrong_rules_name_the_paths(rules, answer):
    with pytest.raises(InputError, match=answer) as caught:
        label_parameters(PARAMS, rules)
    assert "\n" not in str(caught.value)
    if "no parameter" in answer or "nothing" in answer:
        assert all(path in str(caught.value) for path in parameter_paths(PARAMS))

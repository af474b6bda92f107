"""The benchmark's command line at tiny sizes: its two sides compute the same, and its JSON says what was measured."""

import json

import numpy as np
import pytest

from benchmarks import first_step, inputs
from benchmarks.run import add_utilisation, check_first_step, main, parse, summary
from benchmarks.side import UNLEARNING_TASKS, Spec
from salmu_jax.models.zoo import architecture
from salmu_jax.unlearning.methods.redirect import Redirect

FACTS = {"evaluate": {"rows_a_device"}, "evaluate_cached": {"rows_a_device"}, "tokenizer": set(), "preprocess": set()}
FACTS |= {name: {"compile_seconds"} for name in UNLEARNING_TASKS}


@pytest.mark.parametrize(
    "tasks",
    [
        "matmul,text_long,tokenizer,preprocess",  # together: each time two processes begin
        pytest.param("matmul,train", marks=pytest.mark.slow),
        pytest.param("evaluate,evaluate_cached", marks=pytest.mark.slow),
        pytest.param("cliperase,pinned_surrogates_cached,pinned_surrogates_both_cached", marks=pytest.mark.slow),
        pytest.param("redirect,redirect_cached,redirect_both_cached", marks=pytest.mark.slow),
    ],
)
def test_both_sides_compute_the_same(tasks, tmp_path, capsys):
    output = tmp_path / "result.json"
    arguments = ["--model", "tiny", "--tasks", tasks, "--batches", "3", "--rounds", "3", "--warmup", "0"]
    assert main([*arguments, "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert report["command"].endswith(f"--output {output}")
    assert report["machine"]["cpu"]
    assert {"jax", "flax", "optax", "torch", "open_clip_torch", "python"} <= report["versions"].keys()
    assert [result["task"] for result in report["results"]] == tasks.split(",")
    for result in report["results"]:
        assert result["values"]["equal"]
        assert result["torch"]["reference"] == "open_clip"
        for side in ("jax", "torch"):
            assert len(result[side]["all_seconds"]) == 3
            quartiles = result[side]["seconds"]
            assert 0 < quartiles["first_quartile"] <= quartiles["median"] <= quartiles["third_quartile"]
        assert 0 < result["ratio"]["first_quartile"] <= result["ratio"]["median"]
        assert FACTS.get(result["task"], {"mfu", "flops"}) <= result["jax"].keys()
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(report["results"])


def test_different_values_are_reported(monkeypatch, capsys):
    class Disagreeing:
        def __init__(self, framework, spec):
            self.facts = {"versions": {}, "published_peak": None}
            self._value = {"jax": 1.0, "torch": 2.0}[framework]

        def run(self, index):
            return {"seconds": 0.1, "value": [self._value]}

        def wait_until_ready(self):
            pass

        def close(self):
            pass

    monkeypatch.setattr("benchmarks.run.Side", Disagreeing)
    assert main(["--tasks", "text"]) == 1
    assert "VALUES DIFFER by 1" in capsys.readouterr().out


BEFORE = {"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float32)}
AFTER = {"a": np.full((2, 3), 0.1, np.float32), "b": BEFORE["b"]}


@pytest.mark.parametrize(
    ("loss", "after", "expected"),
    [
        (1.00001, {**AFTER, "a": 1.001 * AFTER["a"]}, []),
        (1.01, AFTER, ["the loss is 1.01, PyTorch's 1"]),
        (1.0, {**AFTER, "a": 1.1 * AFTER["a"]}, ["the update of a is 0.2694 "]),
        (1.0, {**AFTER, "a": -AFTER["a"]}, ["the update of a is 0.2449 "]),  # its norm is the same
        (1.0, {**AFTER, "b": 0.5 * AFTER["b"]}, ["the update of b is 1 "]),  # PyTorch's does not move
        (1.0, {"a": AFTER["a"]}, ["tensors of one side alone: ['b']"]),
    ],
)
def test_first_steps_that_differ_are_told_apart(loss, after, expected):
    ours, theirs = first_step.summary(loss, BEFORE, after), first_step.summary(1.0, BEFORE, AFTER)
    found = first_step.differences(ours, theirs)
    assert len(found) == len(expected)
    assert all(one.startswith(start) for one, start in zip(found, expected, strict=True))


def test_the_first_steps_are_compared_without_keys_biases():
    """Softmax ignores them."""
    before = {"attn.in_proj_bias": np.zeros(6, np.float32)}

    def step(*update):
        return first_step.summary(1.0, before, {"attn.in_proj_bias": np.asarray(update, np.float32)})

    assert not first_step.differences(step(1, 1, 5, 5, 1, 1), step(1, 1, 0, 0, 1, 1))
    assert first_step.differences(step(1, 1, 5, 5, 1, 1), step(1, 1, 5, 5, 1, 2))


def test_redirections_rows_are_in_the_proportions_of_its_streams():
    streams, forget = Redirect().make_streams(), Redirect.defaults.batch_size  # forget alone shares the batch size
    rows = {name: stream.per_step or forget for name, stream in streams.items()}
    assert {name: count / rows["captions"] for name, count in rows.items()} == inputs.REDIRECT_ROWS
    drawn = inputs.unlearning_rows(architecture("tiny"), "redirect", 2)
    counts = {name: len(tokens) for name, (_, tokens) in drawn.items() if "." not in name}
    assert counts == {name: 2 * share for name, share in inputs.REDIRECT_ROWS.items()}
    assert all(drawn[name][1].shape[:2] == (counts["forget"], 2) for name in inputs.SAMPLED)


def test_nothing_is_timed_after_first_steps_that_differ():
    def facts(loss):
        return {"first_step": first_step.summary(loss, BEFORE, AFTER)}

    spec = Spec("redirect", "cpu", 3, 1, "tiny", "float32")
    check_first_step(spec, {"jax": facts(1.0), "torch": facts(1.0)})
    check_first_step(spec, {"jax": {}, "torch": {}})  # other tasks compute nothing before the rounds
    with pytest.raises(
        SystemExit, match="redirect: the first steps of the two sides differ: the loss is 2, PyTorch's 1"
    ):
        check_first_step(spec, {"jax": facts(2.0), "torch": facts(1.0)})


def test_utilisation_is_of_the_faster_large_product_on_a_cpu_and_published_on_a_gpu():
    def result(task, ours, theirs):
        sides = {side: {"seconds": summary([seconds])} for side, seconds in (("jax", ours), ("torch", theirs))}
        sides["jax"] |= {"flops": 100.0, "published_peak": 400.0}
        return {"task": task, **sides}

    results = [result("matmul", 1.0, 0.5), result("train", 2.0, 1.0)]
    assert add_utilisation(results, "cpu") == 200
    assert [results[1][side]["mfu"] for side in ("jax", "torch")] == [0.25, 0.5]
    assert add_utilisation(results, "gpu") == 400
    assert results[1]["torch"]["mfu"] == 0.25


@pytest.mark.parametrize("arguments", [["--tasks", "trian"], ["--rounds", "40"], ["--device", "tpu"]])
def test_wrong_arguments_end_with_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.slow
def test_the_evaluator_at_a_fraction_of_the_released_size(tmp_path):
    """Real JPEGs in the released form, built and evaluated by commands: killed, on several devices, and in two processes."""
    from benchmarks import evaluate_released_size

    output = tmp_path / "result.json"
    arguments = ["--workdir", tmp_path / "bench", "--scale", "0.001", "--kills", "1", "--output", output]
    assert evaluate_released_size.main([str(argument) for argument in arguments]) == 0
    report = json.loads(output.read_text())
    assert report["first model, cold"]["decoded"] > 100
    assert report["second model, pixels cached"]["decoded"] == 0
    assert len(report["equal"]) == 5
    assert all(report["equal"].values())

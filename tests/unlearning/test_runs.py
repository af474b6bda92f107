"""What a config says of runs becomes values, or one line."""

from __future__ import annotations

import re

import pytest

from salmu_jax.config import base_config, from_json, to_json
from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.runs import Run, names_of, read_runs, run_named, with_parents
from salmu_jax.unlearning.selectors import Selector


def config(runs=None, methods=None, **fields):
    values = to_json(base_config())
    values["unlearn"] |= {"runs": runs or {}, "methods": methods or {}, **fields}
    return from_json(values)


def error_of(work):
    with pytest.raises(InputError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_method_is_shorthand_for_a_run_of_its_name():
    fields = {"epochs": 2, "options": {"retention_weight": 3.0}}
    runs = read_runs(config(methods={"delete": fields, "finetuning": {}}, seed=7))
    assert list(runs) == ["delete", "finetuning"]
    assert runs["delete"] == Run("delete", "delete", fields, 7, where="unlearn.methods.delete")
    assert runs["delete"].command == "salmu unlearn --method delete"


def test_a_run_says_what_is_its_own_and_leaves_the_rest_to_its_method():
    runs = read_runs(
        config(
            {
                "delete-s1": {"method": "delete", "seed": 1, "epochs": 2},
                "again": {"method": "relearn", "parent": "delete-s1", "forget": {"share": 0.1}},
                "wide": {"method": "delete", "retain": ["salmu/retain_synth", "retain_pairs/train"]},
            },
            {"delete": {}},
        )
    )
    assert list(runs) == ["delete", "again", "delete-s1", "wide"]
    assert (runs["delete-s1"].seed, runs["delete-s1"].fields) == (1, {"epochs": 2})
    assert (runs["again"].parent, runs["again"].forget) == ("delete-s1", Selector(share=0.1))
    assert runs["again"].seed == 42
    assert runs["wide"].retain == ("salmu/retain_synth", "retain_pairs/train")
    assert runs["wide"].command == "salmu unlearn --run wide"
    for run in runs.values():
        assert Run.from_json(run.to_json()) == run


def test_a_method_in_a_file_is_named_as_the_file(tmp_path):
    method = f"{tmp_path}/my_method.py:MyMethod"
    runs = read_runs(config(methods={"delete": {}, "my_method": {"epochs": 3}}), [method, "cliperase"])
    assert names_of([method, "cliperase"]) == ["my_method", "cliperase"]
    assert (runs["my_method"].method, runs["my_method"].fields) == (method, {"epochs": 3})
    assert (runs["my_method"].file, runs["my_method"].class_name) == (tmp_path / "my_method.py", "MyMethod")
    assert runs["my_method"].method_name == "my_method.py:MyMethod"
    assert (runs["cliperase"].method, runs["cliperase"].fields) == ("cliperase", {})
    assert read_runs(config(), [method])["my_method"].command == f"salmu unlearn --method {method}"
    assert read_runs(config({"mine": {"method": method}}))["mine"].command == "salmu unlearn --run mine"


def test_parents_come_first():
    runs = read_runs(
        config(
            {
                "c": {"method": "delete", "parent": "b"},
                "b": {"method": "delete", "parent": "a"},
                "a": {"method": "delete"},
                "d": {"method": "delete", "parent": "clean"},
            }
        )
    )
    assert [run.name for run in with_parents(runs, ["c"])] == ["a", "b", "c"]
    assert [run.name for run in with_parents(runs, runs)] == ["a", "b", "c", "d"]
    assert [run.name for run in with_parents(runs, ["d", "b", "b"])] == ["d", "a", "b"]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_cycle_of_parents_is_named(length):
    names = [f"r{number}" for number in range(length)]
    fields = {name: {"method": "delete", "parent": names[number - 1]} for number, name in enumerate(names)}
    runs = read_runs(config({**fields, "z": {"method": "delete", "parent": "r0"}}))
    line = error_of(lambda: with_parents(runs, ["z"]))
    assert line.startswith("unlearn.runs.r0.parent: the parents of runs go round in a circle: r0 -> ")
    assert line.endswith("-> r0")


@pytest.mark.parametrize(
    ("runs", "complaint"),
    [
        ({"a/b": {"method": "delete"}}, "unlearn.runs.a/b: 'a/b' cannot name a run; 64 letters"),
        ({"-a": {"method": "delete"}}, "unlearn.runs.-a: '-a' cannot name a run"),
        ({"x" * 65: {"method": "delete"}}, f"unlearn.runs.{'x' * 65}: '{'x' * 65}' cannot name a run"),
        ({"Clean": {"method": "delete"}}, "unlearn.runs.Clean: 'Clean' is the name of a foundation model"),
        ({"retrained": {"method": "delete"}}, "unlearn.runs.retrained: 'retrained' is the name of a foundation model"),
        (
            {"cliperase": {"method": "delete"}},
            "unlearn.runs.cliperase: and unlearn.methods.cliperase would be two runs",
        ),
        (
            {"CLIPErase": {"method": "delete"}},
            "unlearn.runs.CLIPErase: and unlearn.methods.cliperase would be two runs",
        ),
        ({"a": {}}, "unlearn.runs.a.method: is missing; the name of a method is needed, or FILE.py:CLASS"),
        ({"a": {"method": 3}}, "unlearn.runs.a.method: is 3; the name of a method is needed"),
        (
            {"a": {"method": "my.py"}},
            "unlearn.runs.a.method: is 'my.py'; a method of your own is written FILE.py:CLASS",
        ),
        ({"a": {"method": "m.py:1"}}, "unlearn.runs.a.method: is 'm.py:1'; a method of your own is written"),
        ({"a": {"method": "delete", "parent": 3}}, "unlearn.runs.a.parent: is 3; the name of a model is needed"),
        ({"a": {"method": "delete", "seed": -1}}, "unlearn.runs.a.seed: is -1, but has to be a whole number from 0 to"),
        ({"a": {"method": "delete", "seed": True}}, "unlearn.runs.a.seed: is True"),
        ({"a": {"method": "delete", "forget": {"shar": 1}}}, "unlearn.runs.a.forget: no selector 'shar'; did you mean"),
        (
            {"a": {"method": "delete", "retain": ["salmu/holdout_identity"]}},
            "unlearn.runs.a.retain: holds 'salmu/holdout_identity'; 'salmu/retain_synth' and 'retain_pairs/train' are"
            " possible, and no other split is permitted",
        ),
        ({"a": {"method": "delete", "retain": []}}, "unlearn.runs.a.retain: is [], but has to be a list"),
    ],
)
def test_mistakes_are_answered_with_one_line(runs, complaint):
    assert error_of(lambda: read_runs(config(runs, {"cliperase": {}}))).startswith(complaint)


def test_an_unknown_run_is_answered_with_those_there_are():
    runs = read_runs(config({"delete-s1": {"method": "delete"}, "other": {"method": "delete"}}))
    line = error_of(lambda: run_named(runs, "delete-s2"))
    assert line == "--run: the config has no run 'delete-s2'; did you mean 'delete-s1'? there are: delete-s1, other"
    assert error_of(lambda: run_named({}, "a")).endswith("it has none; write them in unlearn.runs")


def test_a_run_and_a_method_on_the_command_line_may_not_differ():
    runs = {"delete": {"method": "cliperase"}}
    line = error_of(lambda: read_runs(config(runs), ["delete"]))
    assert re.match(r"unlearn.runs.delete.method: is 'cliperase', and not the method of --method", line)

"""Deletion requests from the command line: the answer, a sequence that is killed, and everything that can be asked wrongly."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from salmu_jax import config as config_lib
from salmu_jax import forget_stage
from salmu_jax.runtime import processes
from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning import cells, registry, view

CONFIG = Path(__file__).with_name("quick.py")
METHOD = ("--method", "delete")
SPLITS = ("forget", "holdout_association", "holdout_identity")


@pytest.fixture(scope="module")
def columns(bench):
    names = ("identity_id", "data_field")
    return {split: view.read_columns(bench[0] / "datasets", f"salmu/{split}", *names) for split in SPLITS}


@pytest.fixture(scope="module")
def people(columns):
    """Somebody to be forgotten in part, somebody to be forgotten whole, and somebody who is not to be forgotten."""
    forget, part, others = (sorted(set(columns[split]["identity_id"])) for split in SPLITS)
    return part[0], next(one for one in forget if one not in part), others[0]


@pytest.fixture(scope="module")
def asking(bench):
    """The arguments of a request on the Compromised model of the finished run."""
    workdir = bench[0]
    return ("forget", "--workdir", workdir, "--checkpoint", workdir / "models" / "compromised", *METHOD)


@pytest.fixture(scope="module")
def answered(salmu, asking, people, tmp_path_factory):
    """The output of one person's request, and what the command said."""
    output = tmp_path_factory.mktemp("forget") / "answer"
    made = salmu.run(*asking, "--identity", people[0], "--output", output)
    assert made.status == 0, made.err
    return output, made


def answer(path):
    """An answer without what may differ between two equal runs: times, and the paths of the directory."""
    value = json.loads(path.read_text())
    del value["made"]
    if "models" in value:
        del value["models"]["seconds"], value["models"]["results"]
    for step in value.get("steps", ()):
        del step["seconds"]
    return value


def test_a_request_is_answered_with_the_figures_of_its_rows(answered, people, columns):
    output, _ = answered
    found = answer(output / "request.json")
    own = np.array(columns["forget"]["identity_id"]) == people[0]
    assert [one["identity"] for one in found["requests"]] == [people[0]]
    for name, side in (("start", "before"), ("request", "after")):
        scores = np.load(output / "results" / f"{name}.rows.npz")
        assert found["asked"][side]["rows"] == own.sum()
        assert found["asked"][side]["mrr"] == pytest.approx(np.mean(1 / scores["forget.rank"][own]))
        assert found["asked"][side]["similarity"] == pytest.approx(scores["forget.similarity"][own].mean(), abs=1e-6)
        held = own & (scores["relearn.rows_10.step_20"] > 0)
        assert found["relearning"][side]["rows"] == held.sum()
        assert found["relearning"][side]["curve"]["40"] == pytest.approx(
            np.mean(1 / scores["relearn.rows_10.step_40"][held].astype(float))
        )
        named = scores["genknow.prediction"] == scores["genknow.label"]
        assert found["general"]["GenKnow"][side] == pytest.approx(named.mean())
        others = np.concatenate([np.array(columns[split]["identity_id"]) == people[0] for split in SPLITS[1:]])
        assert found["not_asked"]["other_facts"][side]["rows"] == others.sum()
    assert found["summary"]["direct"]["before"] == found["asked"]["before"]["mrr"]


def test_the_model_was_shown_the_rows_of_the_request_alone(answered, bench, people, columns):
    output, _ = answered
    manifest = json.loads((output / "models" / "request" / "manifest.json").read_text())
    compromised = json.loads((bench[0] / "models" / "compromised" / "manifest.json").read_text())
    facts = {(people[0], field) for one, field in zip(*columns["forget"].values(), strict=True) if one == people[0]}
    assert {tuple(pair) for pair in manifest["run"]["forget"]["associations"]} == facts
    assert manifest["run"]["forget_rows"] == columns["forget"]["identity_id"].count(people[0])
    assert manifest["parent"] == manifest["root"] == compromised["digest"] != manifest["digest"]
    assert manifest["isolation"]["process"]


def test_the_page_says_what_was_asked(answered, people):
    text = (answered[0] / "request.html").read_text()
    assert people[0] in text
    assert "What this shows, and what it does not" in text
    assert "request.json" in text


def test_a_second_time_everything_is_reused(answered, salmu, asking, people):
    output, _ = answered
    before = answer(output / "request.json")
    again = salmu.run(*asking, "--identity", people[0], "--output", output)
    assert again.status == 0, again.err
    reused = [line.partition(":")[0] for line in again.out.splitlines() if ": reused, " in line]
    assert reused == ["unlearn request", "evaluate start", "evaluate request"]
    assert answer(output / "request.json") == before


@pytest.fixture(scope="module")
def requests_file(people, columns, tmp_path_factory):
    whole = people[1]
    fields = [
        field
        for one, field in zip(columns["forget"]["identity_id"], columns["forget"]["data_field"], strict=True)
        if one == whole
    ]
    path = tmp_path_factory.mktemp("requests") / "requests.jsonl"
    asked = [{"identity": people[0]}, {"identity": whole, "attribute": fields[0]}]
    path.write_text("".join(json.dumps(one) + "\n" for one in asked))
    return path


@pytest.fixture(scope="module")
def sequence(salmu, asking, requests_file, tmp_path_factory):
    output = tmp_path_factory.mktemp("sequence") / "answers"
    made = salmu.run(*asking, "--requests", requests_file, "--output", output)
    assert made.status == 0, made.err
    return output


@pytest.mark.slow
def test_a_sequence_counts_the_relapse_of_earlier_requests(sequence):
    found = answer(sequence / "requests.json")
    assert [step["model"] for step in found["steps"]] == ["start", "request-001", "request-002"]
    assert [step["answered"] for step in found["steps"]] == [0, 1, 2]
    first, second = (json.loads((sequence / f"request-00{number}.json").read_text()) for number in (1, 2))
    leaks = [[one["direct"] for one in step["requests"]] for step in found["steps"]]
    assert leaks[1][0] == first["asked"]["after"]["mrr"]
    assert leaks[2][1] == second["asked"]["after"]["mrr"]
    relapses = [[one["relapse"] and one["relapse"]["direct"] for one in step["requests"]] for step in found["steps"]]
    assert relapses == [[None, None], [0, None], [leaks[2][0] - leaks[1][0], 0]]
    manifest = json.loads((sequence / "models" / "request-002" / "manifest.json").read_text())
    assert manifest["run"]["parent"]["name"] == "request-001"
    drift = found["steps"][2]["general"]["InterIdSim"]
    assert drift["change"] == pytest.approx(drift["after"] - found["steps"][0]["general"]["InterIdSim"]["after"])


@pytest.mark.slow
def test_a_sequence_that_is_killed_goes_on_to_the_same_tables(
    salmu, asking, requests_file, sequence, tmp_path, leftovers
):
    output = tmp_path / "killed"
    arguments = (*asking, "--requests", requests_file, "--output", output)
    for begun in (output / "models" / "request-001", output / "results" / "start.json"):
        running = salmu.start(*arguments)
        running.wait_for(begun.exists)
        running.interrupt(signal.SIGKILL)
        running.wait()
        assert not (output / "requests.json").exists()
    made = salmu.run(*arguments)
    assert made.status == 0, made.err
    assert "unlearn request-001: reused" in made.out
    for name in ("requests", "request-001", "request-002"):
        assert answer(output / f"{name}.json") == answer(sequence / f"{name}.json")
    assert not leftovers(output)


@pytest.mark.slow
def test_all_requests_of_a_file_can_be_answered_by_one_run(salmu, asking, requests_file, tmp_path):
    made = salmu.run(*asking, "--requests", requests_file, "--together", "--output", tmp_path / "answers")
    assert made.status == 0, made.err
    found = answer(tmp_path / "answers" / "requests.json")
    assert [(step["model"], step["answered"]) for step in found["steps"]] == [("start", 0), ("together", 2)]
    assert len(answer(tmp_path / "answers" / "together.json")["requests"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--identity", "nobody"], ["--identity: the data have nobody with the identity 'nobody'"]),
        (["--identity", "{other}"], ["--identity: {other} has nothing in forget"]),
        (["--identity", "{whole}", "--attribute", "shoe"], ["--attribute: {whole} has no attribute 'shoe'"]),
        (["--requests", "{file}"], ["{file} line 2: the data have nobody with the identity 'nobody'"]),
        (["--attribute", "iban"], ["--identity or --requests: one of them says"]),
        (["--identity", "{whole}", "--together"], ["--together: goes with a file of requests"]),
        (["--identity", "{whole}", "--checkpoint", "{elsewhere}"], ["{elsewhere}: not a model directory"]),
        (["--identity", "{whole}", "--method", "erase"], ["--method: unknown unlearning method 'erase'"]),
        (["--identity", "{whole}", "--method", "relearn"], ["--method: relearn trains on what is to be forgotten"]),
        (["--identity", "{whole}", "--method", "no_op"], ["--method: no_op changes nothing, so it answers no request"]),
        (["--identity", "{whole}", "--config.model.image_size=64"], ["another architecture", "image_size is 16, not 64"]),
        (["--identity", "{whole}", "--config.unlearn.methods.delete.epoch=1"],
         ["unlearn.methods.delete: no field 'epoch'", "'epochs'"]),
        (["--identity", "{whole}", "--config.unlearn.methods.delete.epochs=-1"], ["unlearn.methods.delete.epochs: must be"]),
        (["--identity", "{whole}", "--workdir", "{elsewhere}"], ["not there yet; run 'salmu build' first"]),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_one_line_and_makes_nothing(salmu, asking, people, tmp_path, arguments, words):
    file = tmp_path / "requests.jsonl"
    file.write_text(f'{{"identity": "{people[1]}"}}\n{{"identity": "nobody"}}\n')
    known = {"whole": people[1], "other": people[2], "file": file, "elsewhere": tmp_path / "elsewhere"}
    output = tmp_path / "answer"
    refused = salmu.run(*asking, *(one.format(**known) for one in arguments), "--output", output)
    refused.assert_bad_input(*(word.format(**known) for word in words))
    assert not output.exists()


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("datasets/answer", "the data sets"),
        ("world/answer", "an output in the work directory"),
        ("models/answer", "an output in the work directory"),
        ("models/compromised/answer", "the checkpoint"),
    ],
)
def test_an_output_lies_in_no_input(salmu, asking, people, bench, place, what):
    output = bench[0] / place
    refused = salmu.run(*asking, "--identity", people[0], "--output", output)
    refused.assert_bad_input(f"{output}: lies in {output.parent}, {what}", "name a directory elsewhere")
    assert not output.exists()


def test_a_wrong_method_or_field_is_refused_before_any_process_starts(monkeypatch):
    monkeypatch.setattr(processes, "run", lambda *_, **__: pytest.fail("a process was started"))
    config = config_lib.load_config(str(CONFIG), ["unlearn.methods.delete.epoch=1"])
    for method in ("delete", "erase", *forget_stage._NO_ANSWERS):
        with pytest.raises(InputError):
            forget_stage.check_method(config, method)
    forget_stage.check_method(config, "cliperase")
    assert set(forget_stage._NO_ANSWERS) <= set(registry.METHODS)


def test_what_a_kill_leaves_is_in_the_output(salmu, asking, people, tmp_path):
    output = tmp_path / "answer"
    running = salmu.start(*asking, "--identity", people[0], "--output", output)
    running.wait_for(lambda: list(output.glob(".salmu-*/run")))
    running.interrupt(signal.SIGKILL)
    running.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["answer"]
    config = config_lib.load_config(str(CONFIG), [f"workdir={output}"])
    workspace = forget_stage.AnswerWorkspace(config)
    with workspace.locked():
        cells.recover(workspace)
    assert not list(output.glob(".salmu-*"))


def test_an_output_that_is_somebody_elses_is_left_alone(salmu, asking, people, answered, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "notes.txt").write_text("mine")
    refused = salmu.run(*asking, "--identity", people[0], "--output", theirs)
    refused.assert_bad_input(f"{theirs}: is there already, and 'salmu forget' did not make it")
    assert [path.name for path in theirs.iterdir()] == ["notes.txt"]

    before = (answered[0] / "request.json").read_bytes()
    refused = salmu.run(*asking, "--identity", people[1], "--output", answered[0])
    refused.assert_bad_input(f"{answered[0]}: answers something else (the requests differ); name a new directory")
    assert (answered[0] / "request.json").read_bytes() == before


def test_a_damaged_checkpoint_is_refused(salmu, asking, people, bench, tmp_path):
    broken = shutil.copytree(bench[0] / "models" / "compromised", tmp_path / "broken")
    payload = max(
        (path for path in (broken / "params").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    payload.write_bytes(payload.read_bytes()[:-1] + b"\x00\x01")
    refused = salmu.run(*asking, "--checkpoint", broken, "--identity", people[0], "--output", tmp_path / "answer")
    refused.assert_bad_input(broken, "make the model again")

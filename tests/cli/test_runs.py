"""Runs side by side in one work directory: seeds of a method, a run on top of another one, a part of forget."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

CONFIG = Path(__file__).with_name("several_runs.py")
RUNS = ("relearned", "delete-s1")


def manifest(workdir, name):
    return json.loads((workdir / "models" / name / "manifest.json").read_text())


def result(workdir, name):
    return json.loads((workdir / "results" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def finished(bench, salmu, tmp_path_factory):
    """A work directory in which the runs were made after the methods, and what the command said."""
    workdir = shutil.copytree(bench[0], tmp_path_factory.mktemp("several") / "run")
    made = salmu.run("bench", "--workdir", workdir, config=CONFIG)
    assert made.status == 0, made.err
    return workdir, made


def test_runs_are_made_after_their_parents_and_nothing_is_made_again(finished):
    workdir, made = finished
    lines = [line for line in made.out.splitlines() if line.startswith("unlearn ") and line.endswith(": ...")]
    assert lines == ["unlearn delete-s1: ...", "unlearn relearned: ..."]
    assert "unlearn delete: reused" in made.out
    assert not list((workdir / "models").glob("*.state"))


def test_a_run_that_trains_on_no_retain_pairs_is_warned_of(finished):
    workdir, made = finished
    warned = [line for line in made.complaints if "no retain pairs" in line]
    assert [line.partition(": warning:")[0] for line in warned] == ["unlearn relearned"]
    found = {name: manifest(workdir, name)["run"]["trains_without_retain"] for name in (*RUNS, "descent_to_delete")}
    assert found == {"relearned": True, "delete-s1": False, "descent_to_delete": False}


def test_the_record_of_a_run_is_in_its_model_and_its_result(finished):
    workdir, _ = finished
    delete, first, second = (manifest(workdir, name) for name in ("delete", "delete-s1", "relearned"))
    compromised = manifest(workdir, "compromised")["digest"]
    assert delete["run"]["parent"] == first["run"]["parent"] == {"name": "compromised", "digest": compromised}
    assert second["run"]["parent"] == {"name": "delete-s1", "digest": first["digest"]}
    assert second["parent"] == first["digest"]
    assert {one["root"] for one in (delete, first, second)} == {compromised}
    assert [one["run"]["seed"] for one in (delete, first, second)] == [42, 1, 42]
    assert second["run"]["forget"] == {"share": 0.5, "by": "identities", "seed": 42}
    assert 0 < second["run"]["forget_rows"] < first["run"]["forget_rows"] == 36
    assert second["steps"] == -(-second["run"]["forget_rows"] // 16)  # a pass is over the selected rows
    run = first["run"]
    assert (run["name"], run["method"], run["title"], run["code"]) == ("delete-s1", "delete", "DELETE (SALMU)", None)
    assert run["retain"] == ["salmu/retain_synth"]
    assert run["hyper"]["learning_rate"] == 1e-3
    for name in (*RUNS, "delete"):
        assert result(workdir, name)["provenance"]["checkpoint"]["run"] == manifest(workdir, name)["run"]


def test_another_seed_is_another_model(finished):
    workdir, _ = finished
    assert len({manifest(workdir, name)["digest"] for name in ("delete", *RUNS)}) == 3


def test_all_are_in_one_report_and_verify(finished, salmu):
    workdir, _ = finished
    board = json.loads((workdir / "report" / "leaderboard.json").read_text())
    assert {*RUNS, "delete"} <= {row["model"] for row in board["rows"]}
    verified = salmu.run("verify", workdir / "results", config=None)
    assert verified.status == 0, verified.err


def test_a_second_time_everything_is_reused(finished, salmu):
    workdir, _ = finished
    again = salmu.run("unlearn", "--run", "relearned", "--workdir", workdir, config=CONFIG)
    assert again.status == 0, again.err
    reused = [line.partition(":")[0] for line in again.out.splitlines() if ": reused, " in line]
    assert reused == ["unlearn delete-s1", "unlearn relearned"]


def test_a_result_of_a_run_with_another_parent_in_the_config_is_stale(finished, salmu):
    override = "--config.unlearn.runs.relearned.parent=delete"
    refused = salmu.run("report", "--workdir", finished[0], override, config=CONFIG)
    refused.assert_bad_input("relearned (parent ", "'salmu unlearn --run relearned', then 'salmu evaluate")


def test_a_run_of_a_parent_that_has_changed_is_stale_and_refused(finished, salmu, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    override = "--config.unlearn.runs.delete-s1.seed=2"
    again = salmu.run("unlearn", "--run", "delete-s1", "--workdir", workdir, override, config=CONFIG)
    assert again.status == 0, again.err
    assert f"changed since {workdir}/models/delete-s1 was made: seed 1 -> 2" in again.out
    refused = salmu.run("evaluate", "--model", "relearned", "--workdir", workdir, override, config=CONFIG)
    refused.assert_bad_input(
        "models/relearned: was made of another delete-s1 than models/delete-s1; 'salmu unlearn --run relearned' makes"
    )
    refused = salmu.run("report", "--workdir", workdir, override, config=CONFIG)
    refused.assert_bad_input("relearned (its parent is not the present delete-s1: 'salmu unlearn --run relearned'")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "nobody"], ["--run: the config has no run 'nobody'", "delete-s1, relearned"]),
        (
            ["--config.unlearn.runs.relearned.parent=clean"],
            ["runs.relearned.parent: Clean is what methods are judged by"],
        ),
        (
            ["--config.unlearn.runs.relearned.parent=retrained"],
            ["runs.relearned.parent: Retrained is what methods are judged by, so none may read it; name compromised"],
        ),
        (["--config.unlearn.runs.relearned.parent=nobody"], ["runs.relearned.parent: no model 'nobody' to start from"]),
        (["--config.unlearn.runs.delete-s1.parent=relearned"], ["go round in a circle: delete-s1 -> relearned ->"]),
        (["--config.unlearn.runs.Delete.method=delete"], ["unlearn.runs.Delete: and unlearn.methods.delete would be"]),
        (["--config.unlearn.runs.relearned.epoch=3"], ["unlearn.runs.relearned: no field 'epoch'; did you mean"]),
        (["--config.unlearn.runs.relearned.seed=-3"], ["unlearn.runs.relearned.seed: is -3"]),
        (
            ["--config.unlearn.runs.relearned.forget={'identities': ['nobody']}"],
            ["unlearn.runs.relearned.forget.identities: forget has no 'nobody'"],
        ),
        (
            ["--config.unlearn.runs.relearned.retain=['salmu/holdout_identity']"],
            ["unlearn.runs.relearned.retain: holds 'salmu/holdout_identity'", "no other split is permitted"],
        ),
        (
            ["--run", "delete-s1", "--config.model.image_size=64"],
            ["unlearn.runs.delete-s1.parent: ", "another architecture than the config's: image_size is 16, not 64"],
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_made(finished, salmu, arguments, words):
    workdir, _ = finished
    before = sorted(path.stat().st_mtime_ns for path in workdir.rglob("*.json") if path.name != "seen.json")
    salmu.run("unlearn", *arguments, "--workdir", workdir, config=CONFIG).assert_bad_input(*words)
    assert sorted(path.stat().st_mtime_ns for path in workdir.rglob("*.json") if path.name != "seen.json") == before

"""A run that is killed or interrupted goes on where it was, and ends with the results of an undisturbed one."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from salmu_jax.runtime import files

SCRIPT = Path(__file__).parents[1] / "acceptance" / "kill_resume.py"
_spec = importlib.util.spec_from_file_location("kill_resume", SCRIPT)
kill_resume = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kill_resume)


class Command:
    """A forked command, as ``kill_resume`` wants it."""

    def __init__(self, salmu, workdir, *arguments):
        self._running = salmu.start("bench", "--workdir", workdir, *arguments)

    def kill(self):
        self._running.interrupt(signal.SIGKILL)

    def wait(self):
        return self._running.wait().status


@pytest.mark.slow
def test_killed_runs_end_with_the_same_results(salmu, bench, tmp_path, leftovers):
    workdir = tmp_path / "killed"
    seconds = sum(float(text) for text in re.findall(r"^[\w ]+: ([\d.]+) s, ", bench[1].out, re.MULTILINE))
    lives = kill_resume.moments(3, 0.4 * seconds, seed=1)  # everything is compiled already: it takes less than half
    story = kill_resume.run_and_kill(lambda directory: Command(salmu, directory), workdir, lives)
    print(story)
    assert kill_resume.differences(bench[0], workdir) == []
    assert not leftovers(workdir)
    assert not list((workdir / "models").glob("*.state"))


def test_a_difference_is_seen(bench, tmp_path):
    shutil.copytree(bench[0] / "results", tmp_path / "results")
    assert kill_resume.differences(bench[0], tmp_path) == []
    path = tmp_path / "results" / "clean.json"
    path.write_text(path.read_text().replace('"RetFail_MRR": 0.', '"RetFail_MRR": 1.', 1))
    (tmp_path / "results" / "delete.json").unlink()
    assert kill_resume.differences(bench[0], tmp_path) == ["clean.json", "delete.json"]


@pytest.mark.parametrize(
    ("stage", "begun"),
    [
        ("generate", lambda run: any(run.glob("world.partial-*/data/*.parquet"))),
        ("build", lambda run: any(run.glob("datasets.partial-*/salmu*"))),
        ("pretrain", lambda run: any((run / "models" / "clean.state").glob("*/10"))),
    ],
)
def test_an_interrupt_leaves_nothing_and_the_same_command_goes_on(salmu, bench, tmp_path, leftovers, stage, begun):
    workdir = tmp_path / "run"
    arguments = [stage, "--workdir", workdir, *(["--model", "clean"] if stage == "pretrain" else [])]
    workdir.mkdir()
    for needed in {"generate": [], "build": ["world"], "pretrain": ["datasets"]}[stage]:
        (workdir / needed).symlink_to(bench[0] / needed)
    first = salmu.start(*arguments)
    first.wait_for(lambda: begun(workdir))
    first.interrupt()
    ended = first.wait()
    assert ended.status == 130, ended
    assert ended.complaints == ["salmu: interrupted; the same command resumes from here"]
    assert not leftovers(workdir)

    again = salmu.run(*arguments)
    assert again.status == 0, again.err
    made = {"generate": "world/world.json", "build": "datasets/salmu/1.0.0/dataset_info.json"}
    if stage == "pretrain":
        assert "pretrain clean: resuming at step " in again.out
        ours, theirs = (run / "models" / "clean" / "metrics.jsonl" for run in (workdir, bench[0]))
        assert ours.read_bytes() == theirs.read_bytes()
    else:
        assert (workdir / made[stage]).read_bytes() == (bench[0] / made[stage]).read_bytes()


def test_a_method_that_is_told_to_end_brings_its_states_home_and_goes_on(salmu, run_copy):
    arguments = ["unlearn", "--method", "delete", "--workdir", run_copy, "--config.unlearn.methods.delete.epochs=20.0"]
    first = salmu.start(*arguments)
    first.wait_for(lambda: any(run_copy.parent.glob(".salmu-*/run/state/*/4")))
    os.kill(first.pid, signal.SIGTERM)  # the command alone: it passes the signal on
    ended = first.wait()
    assert ended.status == 75, ended
    assert len(ended.complaints) == 1
    state = run_copy / "models" / "delete.state"
    assert f"is saved in {state}/" in ended.complaints[0]
    assert any(path.name.isdigit() for path in state.rglob("*"))
    assert os.listdir(run_copy.parent) == [run_copy.name]

    again = salmu.run(*arguments)
    assert again.status == 0, again.err
    assert "unlearn delete: resuming at step " in again.out
    assert not state.exists()
    assert os.listdir(run_copy.parent) == [run_copy.name]


def test_what_a_kill_left_half_written_is_removed_by_the_next_run_and_nothing_else(salmu, run_copy, leftovers):
    for output in ("datasets", "results/clean.json", "stages/build.json"):
        files.partial_path(run_copy / output, pid=2**22 + 1).mkdir()
    theirs = [
        run_copy / "notes.partial-1",
        run_copy / "models" / "clean.partial-2",
        run_copy / "results" / "x.partial-3",
    ]
    for path in theirs:
        path.write_text("mine")
    running = files.partial_path(run_copy / "models" / "imported", pid=os.getpid())
    running.mkdir()
    finished = salmu.run("report", "--workdir", run_copy)
    assert finished.status == 0, finished.err
    assert leftovers(run_copy) == sorted([*theirs, running])

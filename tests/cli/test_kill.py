"""A run that is killed or interrupted goes on where it was, and ends with the results of an undisturbed one."""

from __future__ import annotations

import concurrent.futures
import os
import re
import shutil
import signal

import kill_resume
import killing
import pytest

from salmu_jax.runtime import files


class Command:
    """A forked command, as ``killing`` wants it. The server answers nothing else until it has ended."""

    def __init__(self, salmu, workdir):
        self._running = salmu.start("bench", "--workdir", workdir)
        self._end = concurrent.futures.ThreadPoolExecutor(1).submit(self._running.wait)

    def kill(self):
        if not self.ended():
            self._running.interrupt(signal.SIGKILL)

    def ended(self):
        return self._end.done()

    def wait(self):
        return self._end.result().status


@pytest.mark.slow
def test_killed_runs_end_with_the_same_results(salmu, bench, tmp_path, leftovers):
    workdir, steps = tmp_path / "killed", [killing.Step(0, 0.0)]
    for text in re.findall(r"^[\w ]+: ([\d.]+) s, ", bench[1].out, re.MULTILINE):
        # Everything is compiled already: it takes less than half.
        steps.append(killing.Step(len(steps), steps[-1].seconds + 0.4 * float(text)))
    story = killing.run_and_kill(
        lambda number: Command(salmu, workdir), lambda: killing.stages_done(workdir), killing.moments(steps, 3, seed=1)
    )
    print(killing.summary(story, "stage"))
    assert kill_resume.differences(bench[0], workdir) == []
    assert not leftovers(workdir)
    assert not list((workdir / "models").glob("*.state"))


def test_a_difference_is_seen(bench, tmp_path):
    shutil.copytree(bench[0] / "results", tmp_path / "results")
    assert kill_resume.differences(bench[0], tmp_path) == []
    path = tmp_path / "results" / "clean.json"
    path.write_text(path.read_text().replace('"RetFail_MRR": 0.', '"RetFail_MRR": 1.', 1))
    (tmp_path / "results" / "delete.json").unlink()
    assert kill_resume.differences(bench[0], tmp_path) == ["results/clean.json", "results/delete.json"]


class Scripted:
    """A command that takes ``steps`` steps, one a look at it, and starts where it was killed."""

    def __init__(self, state, steps):
        self._state, self._steps, self._killed = state, steps, False

    def kill(self):
        self._killed = not self.ended()

    def ended(self):
        self._state["done"] = min(self._state["done"] + 1, self._steps)
        return self._state["done"] == self._steps

    def wait(self):
        while not self._killed and not self.ended():
            pass
        return -signal.SIGKILL if self._killed else 0


def test_kills_are_spread_over_the_run_and_those_that_land_are_counted():
    steps = [killing.Step(0, 0.0), killing.Step(1, 60.0), killing.Step(2, 90.0), killing.Step(3, 100.0)]
    planned = killing.moments(steps, 10, seed=0)
    begun = {step.reached: step.seconds for step in steps}
    for number, moment in enumerate(planned):
        assert 10 * number <= begun[moment.reached] + moment.delay <= 10 * (number + 1)
    assert [moment.reached for moment in planned] == [0] * 6 + [1] * 3 + [2]


def test_kills_that_land_are_counted_and_the_command_is_started_until_it_is_done():
    state, said, starts = {"done": 0}, [], []

    def start(number):
        starts.append(number)
        return Scripted(state, 40)

    planned = [killing.Moment(reached, 0.0) for reached in (0, 2, 4, 9)]
    story = killing.run_and_kill(start, lambda: state["done"] // 10, planned, said.append)
    assert [kill.landed for kill in story] == [True, True, False, False]
    assert starts == [0, 1, 2, 3, 4]
    assert killing.summary(story, "stage") == "2 of 4 kills landed, 1 of them after a stage was finished"
    assert ["had ended by itself" in line for line in said] == [False, False, True, True]


def test_a_command_that_fails_by_itself_is_no_kill():
    class Fails(Scripted):
        def wait(self):
            return 2

    with pytest.raises(RuntimeError, match="start 1 ended by itself with status 2"):
        killing.run_and_kill(lambda number: Fails({"done": 0}, 1), lambda: 0, [killing.Moment(0, 0.0)])


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

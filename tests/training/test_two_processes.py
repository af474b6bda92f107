"""Two real processes of four devices each, as two hosts of a pod are: they train, stop, go on, and evaluate as one does."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import all_methods
import jax
import numpy as np
import pytest
import xla_flags
from patience import DEADLINE

from data_pipelines.builders import open_source
from salmu_jax import cli
from salmu_jax.training.checkpoint import load_model

ROOT = Path(__file__).parents[2]
STEPS = 20
TINY = ROOT / "configs" / "tiny.py"
ALL_METHODS = ROOT / "tests" / "support" / "all_methods.py"
OPTIONS = (
    "--config.train.epochs=2.5",  # 126 pairs in batches of 16
    "--config.train.steps_per_call=2",
    "--config.train.save_every=2",
    "--config.mesh.fsdp=2",
)
# Each argument is one command; a process runs them in turn.
COMMANDS = """
import json, sys
from salmu_jax import cli
*first, last = map(json.loads, sys.argv[1:])
for arguments in first:
    if status := cli.main(arguments):
        sys.exit(status)
sys.argv = ["salmu", *last]
cli.main()  # the program: it ends the process
"""


class Run:
    """``salmu`` in one process of eight devices, or in two of four."""

    def __init__(self, directory: Path, processes: int, *commands: tuple, config: Path = TINY):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        flags = f"--xla_force_host_platform_device_count={8 // processes} {xla_flags.QUICK} {xla_flags.PATIENT}"
        lines = [json.dumps([str(part) for part in (*command, "--config", config, *OPTIONS)]) for command in commands]
        number = len(list(directory.glob("*.log")))
        self.logs = [directory / f"{number}.{index}.log" for index in range(processes)]
        self._processes = []
        for index, log in enumerate(self.logs):
            given = {"SALMU_COORDINATOR": address, "SALMU_PROCESSES": str(processes), "SALMU_PROCESS": str(index)}
            with open(log, "w") as handle:
                process = subprocess.Popen(
                    [sys.executable, "-c", COMMANDS, *lines],
                    env={**os.environ, **given, "XLA_FLAGS": flags},
                    cwd=ROOT,
                    stdout=handle,
                    stderr=subprocess.STDOUT,
                )
            self._processes.append(process)

    def terminate_when(self, condition: Callable[[], bool]) -> None:
        """SIGTERM for the last process when ``condition`` holds."""
        while not condition() and self._processes[-1].poll() is None:
            time.sleep(0.02)
        self._processes[-1].send_signal(signal.SIGTERM)

    def wait(self) -> list[int]:
        try:
            return [process.wait(DEADLINE) for process in self._processes]
        finally:
            for process in self._processes:
                process.kill()

    def said(self, index: int = 0) -> list[str]:
        """The lines of a process, without those of the library that connects CPUs and those on progress."""
        lines = self.logs[index].read_text().splitlines()
        # Threads of that library write into each other's lines, "[Gloo] Rank 0 is connected to 1 peer ranks. Expected ...",
        # which leaves empty ones.
        return [line for line in lines if line and not re.search(r"\[Gloo\]|ranks|: step ", line)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A work directory with the data sets of the tiny world."""
    workdir = tmp_path_factory.mktemp("world") / "run"
    for stage in ("generate", "build"):
        assert cli.main([stage, "--workdir", str(workdir), "--config", str(TINY), *OPTIONS]) == 0
    return workdir


def states(workdir):
    return {int(path.name) for path in (workdir / "models" / "clean.state").glob("*/*") if path.name.isdigit()}


def figures(workdir):
    result = json.loads((workdir / "results" / "clean.json").read_text())
    return {name: result[name] for name in ("efficacy", "utility", "metrics")} | {
        "of": result["provenance"]["checkpoint"]
    }


@pytest.mark.slow
def test_two_processes_train_stop_go_on_and_evaluate_as_one_does(data, tmp_path):
    alone = shutil.copytree(data, tmp_path / "alone")
    clean = ("--model", "clean", "--workdir")
    probes = "--config.evaluate.probes=('relearn', 'weights')"
    run = Run(tmp_path, 1, ("pretrain", *clean, alone), ("evaluate", *clean, alone, probes))
    assert run.wait() == [0], run.said()
    evaluated = shutil.copytree(alone, tmp_path / "evaluated", ignore=shutil.ignore_patterns("results", "evaluate*"))

    # Two processes until one of them is told to end, and two again to the end.
    workdir = shutil.copytree(data, tmp_path / "run")
    run = Run(tmp_path, 2, ("pretrain", *clean, workdir))
    run.terminate_when(lambda: max(states(workdir), default=0) > 0)
    assert run.wait() == [75, 75], [run.said(0), run.said(1)]
    reached = max(states(workdir))
    assert 0 < reached < STEPS
    assert run.said()[-1] == (
        f"salmu: pretrain clean: stopped by SIGTERM; the state of step {reached} is saved in"
        f" {next((workdir / 'models' / 'clean.state').iterdir())}, and the same command resumes from it"
    )
    run = Run(tmp_path, 2, ("pretrain", *clean, workdir), ("evaluate", *clean, evaluated, probes))
    assert run.wait() == [0, 0], [run.said(0), run.said(1)]
    assert f"pretrain clean: resuming at step {reached} of {STEPS}" in run.said()
    assert run.said(1) == []

    ours, theirs = (jax.tree.leaves(load_model(path / "models" / "clean")[1]) for path in (workdir, alone))
    largest = max(float(np.max(np.abs(one - other))) for one, other in zip(ours, theirs, strict=True))
    print(f"largest difference of a parameter: {largest:.1e}")
    assert largest < 1e-5
    assert len((workdir / "models" / "clean" / "metrics.jsonl").read_text().splitlines()) == STEPS // 2
    assert figures(evaluated) == figures(alone)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A work directory with the data sets of the tiny world and its compromised model."""
    workdir = shutil.copytree(data, tmp_path_factory.mktemp("trained") / "run")
    run = Run(workdir.parent, 1, ("pretrain", "--model", "compromised", "--workdir", workdir))
    assert run.wait() == [0], run.said()
    return workdir


def largest_difference(one: Path, other: Path) -> float:
    """Of a parameter of two models."""
    leaves = (jax.tree.leaves(load_model(path)[1]) for path in (one, other))
    return max(float(np.max(np.abs(a - b))) for a, b in zip(*leaves, strict=True))


def unlearn_alone_and_by_two(trained, directory: Path, *options, **run) -> tuple[Path, Path]:
    """The work directories of one process and of two. They start children, which find each other as their parents did."""
    workdirs = []
    for processes in (1, 2):
        workdir = shutil.copytree(trained, directory / str(processes))
        running = Run(directory, processes, ("unlearn", *options, "--workdir", workdir), **run)
        assert running.wait() == [0] * processes, [running.said(index) for index in range(processes)]
        assert processes == 1 or running.said(1) == []
        workdirs.append(workdir)
    assert not list(directory.glob(".salmu-*"))
    return workdirs[0], workdirs[1]


@pytest.mark.slow
def test_methods_run_over_two_processes_as_in_one(trained, tmp_path):
    alone, by_two = unlearn_alone_and_by_two(trained, tmp_path, config=ALL_METHODS)
    for name in all_methods.NAMES:
        difference = largest_difference(by_two / "models" / name, alone / "models" / name)
        moved = largest_difference(alone / "models" / "compromised", alone / "models" / name)
        print(f"{name}: largest difference of a parameter {difference:.1e}, largest move {moved:.1e}")
        assert difference < 1e-5, name
        assert moved == 0 if name == "no_op" else moved > 3e-5, name


@pytest.mark.slow
def test_a_method_of_a_file_runs_and_is_watched_over_two_processes_as_in_one(trained, tmp_path):
    file = ROOT / "tests" / "support" / "whole_contract.py"
    watched = ("--config.unlearn.evaluate_every=4", "--config.log.tensorboard=True")
    directories = unlearn_alone_and_by_two(trained, tmp_path, "--method", f"{file}:WholeContract", *watched)
    models = [directory / "models" / "whole_contract" for directory in directories]
    assert largest_difference(*models) < 1e-5
    evaluated = [[json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()] for model in models]
    for one, other in zip(*evaluated, strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_allclose(list(one.values()), list(other.values()), atol=1e-3)
    assert any("forget_mrr" in line for line in evaluated[0])
    assert list((directories[1] / "logs" / "whole_contract").rglob("events*"))

    # One that reaches for a holdout fails where it does, in each process.
    reaching = ("unlearn", "--method", f"{file.with_name('curious.py')}:Curious", "--workdir", directories[1])
    run = Run(tmp_path, 2, reaching)
    assert run.wait() == [2, 2], [run.said(0), run.said(1)]
    assert run.said()[-1] == "salmu: salmu/holdout_identity: this run may not read it; it may read salmu/forget"
    assert not (directories[1] / "models" / "curious").exists()


@pytest.mark.slow
def test_a_hostile_method_finds_no_holdout_on_either_of_two_processes(trained, tmp_path, monkeypatch):
    """It looks through arguments, paths, frames and live objects, and patches the metrics on import."""
    workdir = shutil.copytree(trained, tmp_path / "hidden-run")
    loot = tmp_path / "elsewhere" / "loot.jsonl"
    loot.parent.mkdir()
    monkeypatch.setenv("LOOT", str(loot))
    method = f"{ROOT / 'tests' / 'cli' / 'hostile_method.py'}:Hostile"
    run = Run(
        tmp_path,
        2,
        ("unlearn", "--method", method, "--workdir", workdir),
        ("evaluate", "--model", "hostile_method", "--workdir", workdir),
    )
    assert run.wait() == [0, 0], [run.said(0), run.said(1)]

    processes = [json.loads(line) for line in loot.read_text().splitlines()]
    searches = [set(process["rows"]) for process in processes if "rows" in process]
    assert len(searches) == 2  # one in each process of the run
    for rows in searches:
        assert captions(workdir, "forget") <= rows  # so the search is one that finds something
        for split in ("holdout_association", "holdout_identity", "retain_synth"):
            assert not captions(workdir, split) & rows
    assert all("salmu_jax.unlearning.child" in process["command"] for process in processes)
    assert [text for process in processes for text in process["texts"] if "hidden-run" in text] == []
    result = json.loads(
        (workdir / "results" / "hostile_method.json").read_text()
    )  # which patched metrics would have ended
    assert result["efficacy"]["1.1_RetFail"]["MRR"] > 0


def captions(workdir: Path, split: str) -> set[str]:
    return {row["text"] for row in open_source(workdir / "datasets", "salmu", split)}

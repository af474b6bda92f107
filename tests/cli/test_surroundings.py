"""What surrounds a run: signals at any moment, odd paths, streams, launchers and disks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from salmu_jax import cli

ROOT = Path(__file__).parents[2]
SALMU = Path(sys.executable).with_name("salmu")

# Signals ---------------------------------------------------------------------------------------------------------------

LINES = {
    signal.SIGINT: (130, "salmu: interrupted; the same command resumes from here"),
    signal.SIGTERM: (75, "salmu: stopped by SIGTERM; the same command resumes from here"),
}


def wait_for_the_first_line(process):
    """Until then the process is Python's own: it starts for a tenth of a second, on a busy machine for a second."""
    status = Path(f"/proc/{process.pid}/status")
    end = time.monotonic() + 30
    while status.exists() and time.monotonic() < end:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) & 1 << signal.SIGTERM - 1:
            return
        time.sleep(0.005)
    time.sleep(1)  # another system


def test_a_signal_in_the_first_seconds(bench, tmp_path):
    """The installed command itself: while it imports, starts JAX, opens data, compiles, and maybe begins to train."""
    started = []
    for number in LINES:
        for moment in (0, 0.7, 3):
            workdir = tmp_path / str(len(started))
            workdir.mkdir()
            (workdir / "datasets").symlink_to(bench[0] / "datasets")
            command = [SALMU, "pretrain", "--model", "clean", "--config", ROOT / "tests/cli/quick.py"]
            command += ["--workdir", workdir, "--config.train.epochs=50000.0"]
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            started.append((moment, number, process))
    for _, _, process in started:
        wait_for_the_first_line(process)
    began = time.monotonic()
    for moment, number, process in sorted(started, key=lambda item: item[0]):
        time.sleep(max(0, began + moment - time.monotonic()))
        os.killpg(process.pid, number)
    for _, number, process in started:
        _, err = process.communicate(timeout=60)
        said = [line for line in err.splitlines() if line and ": step " not in line]
        status, line = LINES[number]
        trained = "salmu: pretrain clean: stopped by SIGTERM; the state of step "  # it is as far as that
        assert process.returncode == status
        assert said == [line] or (status == 75 and len(said) == 1 and said[0].startswith(trained)), said
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


def test_sigterm_while_processes_draw_a_world(salmu, tmp_path, leftovers):
    run = salmu.start("generate", "--workdir", tmp_path / "run", "--config.world.scenes=100_000")
    run.wait_for(lambda: any((tmp_path / "run").glob("world.partial-*/data/*.parquet")))
    os.kill(run.pid, signal.SIGTERM)  # the program alone, as a scheduler does
    ended = run.wait()
    assert (ended.status, *ended.complaints) == LINES[signal.SIGTERM]
    assert not leftovers(tmp_path)
    end = time.monotonic() + 10
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(run.pid, 0)
            time.sleep(0.01)
        pytest.fail("its drawing processes are still there")


def test_a_work_directory_that_is_removed_under_its_run_ends_it(salmu, bench, tmp_path, leftovers):
    run = tmp_path / "run"
    run.mkdir()
    (run / "datasets").symlink_to(bench[0] / "datasets")
    first = salmu.start("pretrain", "--model", "clean", "--workdir", run, "--config.train.epochs=50000.0")
    first.wait_for(lambda: any((run / "models" / "clean.state").glob("*/10")))
    run.rename(tmp_path / "gone")
    first.wait().assert_bad_input(f"salmu: {run}: was removed while 'pretrain clean' worked in it; put it back")
    assert not leftovers(tmp_path)


# Paths -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "--workdir", ""], ["--workdir", "is empty"]),
        (["generate", "--config.workdir="], ["field 'workdir'", "is empty"]),
        (["generate", "--workdir", "gs://bucket/run"], ["--workdir", "'gs://bucket/run'", "of this machine"]),
        (["build", "--world-dir", "s3://bucket/world"], ["--world-dir", "of this machine"]),
        (["evaluate", "--model", "x", "--checkpoint", "hf://owner/name"], ["--checkpoint", "of this machine"]),
        (["pretrain", "--config.train.state_dir=gs:/bucket"], ["train.state_dir", "a bucket is written gs://bucket"]),
    ],
)
def test_a_path_that_is_none_makes_nothing(salmu, arguments, words):
    before = sorted(ROOT.iterdir())
    salmu.run(*arguments).assert_bad_input(*words)
    assert sorted(ROOT.iterdir()) == before


# Notebooks -------------------------------------------------------------------------------------------------------------


def test_a_notebook_calls_the_command_line(tmp_path, monkeypatch):
    """In a running event loop and in a thread; signals, streams, environment and the process stay the caller's."""
    monkeypatch.setenv("JAX_RANDOM_SEED_OFFSET", "7")  # JAX has been imported and does not read it
    names = list(os.environ)  # libraries add some of their own

    def ours():
        environment = {name: os.environ.get(name) for name in names}
        return environment, sys.stdout, sys.argv, [signal.getsignal(number) for number in LINES]

    before = ours()
    line = ["generate", "--config", str(ROOT / "tests/cli/quick.py"), "--config.world.workers=1", "--workdir"]

    async def cell():
        return cli.main([*line, str(tmp_path / "loop")])

    statuses = [asyncio.run(cell())]
    thread = threading.Thread(target=lambda: statuses.append(cli.main([*line, str(tmp_path / "thread")])))
    thread.start()
    thread.join()
    statuses.append(cli.main([*line, ""]))
    assert statuses == [0, 0, 2]
    assert ours() == before
    worlds = [(tmp_path / place / "world" / "world.json").read_bytes() for place in ("loop", "thread")]
    assert worlds[0] == worlds[1]

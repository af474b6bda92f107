"""What surrounds a run: signals at any moment, odd paths, streams, launchers and disks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SALMU = Path(sys.executable).with_name("salmu")

# Signals ---------------------------------------------------------------------------------------------------------------

LINES = {
    signal.SIGINT: (130, "salmu: interrupted; the same command goes on from here"),
    signal.SIGTERM: (75, "salmu: stopped by SIGTERM; the same command goes on from here"),
}


def test_a_signal_in_the_first_seconds(tmp_path):
    """The installed command itself: while it imports, starts JAX, and begins to work."""
    started = []
    for number in LINES:
        for moment in (0.4, 0.9, 1.5):
            command = [
                SALMU,
                "generate",
                "--config",
                ROOT / "configs/mini.py",
                "--workdir",
                tmp_path / str(len(started)),
            ]
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            started.append((time.monotonic() + moment, number, process))
    for moment, number, process in sorted(started, key=lambda item: item[0]):
        time.sleep(max(0, moment - time.monotonic()))
        os.killpg(process.pid, number)
    for _, number, process in started:
        _, err = process.communicate(timeout=60)
        said = [line for line in err.splitlines() if line and ": step " not in line]
        assert (process.returncode, *said) == LINES[number]
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

"""The runner that needs no Beam: several processes give the bytes of one, and what stops one of them is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from patience import DEADLINE
from web_pairs import PLANTED, tree, write_source

from data_pipelines.retain import build_retain_pairs
from data_pipelines.retain.local import run_locally
from salmu_jax.runtime.errors import InputError


def test_two_processes_give_the_bytes_of_one_and_report_each_part(tmp_path):
    source = write_source(tmp_path / "source", PLANTED)
    reported = []
    for workers in (1, 2):
        build_retain_pairs(
            source,
            tmp_path / f"out{workers}",
            max_bad_share=0.5,
            workers=workers,
            progress=lambda tasks: lambda done, record: reported.append((done, len(tasks), record["pairs"])),
        )
    assert tree(tmp_path / "out1") == tree(tmp_path / "out2")
    assert reported == [(done, 4, 6) for done in (1, 2, 3, 4)] * 2


def test_an_error_of_a_worker_is_raised_here_and_the_other_parts_are_kept(tmp_path):
    source, out = write_source(tmp_path / "source"), tmp_path / "out"

    def meddle(tasks):
        (source / "b/00000.tar").write_bytes(b"short")
        run_locally(tasks, 2)

    with pytest.raises(InputError, match=r"b/00000\.tar: 5 bytes; it had .* when it was listed"):
        build_retain_pairs(source, out, run=meddle)
    assert list((out / "retain_pairs-records").glob("0000[01].json"))


CHILD = """
import multiprocessing, os, signal, sys, threading, time
from data_pipelines.retain import build_retain_pairs

def watch():
    while not (children := multiprocessing.active_children()):
        time.sleep(0.01)
    os.kill(os.getpid() if sys.argv[3] == "parent" else children[0].pid, signal.SIGKILL)

if __name__ == "__main__":
    threading.Thread(target=watch, daemon=True).start()
    try:
        build_retain_pairs(sys.argv[1], sys.argv[2], workers=2)
    except Exception as error:
        sys.exit(str(error))
"""


@pytest.mark.parametrize("whom", ["parent", "worker"])
def test_killed_processes_leave_none_behind_and_the_next_run_goes_on(tmp_path, whom):
    source, out = write_source(tmp_path / "source"), tmp_path / "out"
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(script), str(source), str(out), whom]
    # Its processes hold the other end of the pipe: it closes when the last of them has ended.
    child = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=DEADLINE)
    if whom == "parent":
        assert child.returncode == -signal.SIGKILL
    else:
        assert "a worker process ended before its part was done (status -9; out of memory?)" in child.stderr
        assert "Traceback" not in child.stderr
    build_retain_pairs(source, out, workers=1)
    build_retain_pairs(source, tmp_path / "undisturbed", workers=1)
    assert tree(out) == tree(tmp_path / "undisturbed")

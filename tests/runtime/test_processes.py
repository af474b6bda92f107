"""Children of a run: what they answer, and that parent and child end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from patience import DEADLINE

from salmu_jax.runtime import interrupts, processes
from salmu_jax.runtime.distributed import RemoteInputError
from salmu_jax.runtime.errors import InputError, Preempted

ROOT = Path(__file__).parents[2]
CHILD = """
import os, signal, sys, time
from pathlib import Path
from salmu_jax.runtime import processes
from salmu_jax.runtime.errors import InputError, Preempted
from salmu_jax.runtime.distributed import RemoteInputError

def work(told):
    kind = told["kind"]
    if kind == "echo":
        return {"told": told, "argv": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ)}
    if kind == "input":
        raise InputError("is wrong", "field")
    if kind == "told":
        raise RemoteInputError("is wrong")
    if kind == "preempted":
        raise Preempted("unlearn x", 7, "run/state")
    if kind == "full":
        raise OSError(28, os.strerror(28), "some/file")
    if kind == "removed":
        os.rmdir(os.getcwd())
        raise FileNotFoundError(2, "No such file", "d")
    if kind == "bug":
        raise RuntimeError("a bug of ours")
    if kind == "exit":
        os._exit(3)
    if kind == "leave":
        sys.exit(0)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    Path(told["here"]).write_text(str(os.getpid()))
    time.sleep(600)

processes.serve(work)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run(kind)``: a child that does that."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "some_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "modules"), os.environ.get("PYTHONPATH", "")]))

    def run(kind, **options):
        told = {"kind": kind, "here": str(tmp_path / "here")}
        return processes.run("some_child", told, label="unlearn x", **options)

    return run


def test_what_the_work_returns_comes_back(run, tmp_path):
    environment = {"PATH": os.environ["PATH"], "GREETING": "é"}
    (tmp_path / "place").mkdir()
    answer = run("echo", cwd=tmp_path / "place", environment=environment)
    assert answer["told"] == {"kind": "echo", "here": str(tmp_path / "here")}
    assert answer["argv"] == []
    assert answer["cwd"] == str(tmp_path / "place")
    assert answer["environment"]["GREETING"] == "é"
    assert "HOME" not in answer["environment"]


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("input", InputError, "field: is wrong"),
        ("told", RemoteInputError, "is wrong"),
        ("preempted", Preempted, "unlearn x: stopped by SIGTERM; the state of step 7 is saved in run/state"),
        ("full", InputError, "some/file: no space left"),
        ("exit", processes.ChildFailed, "unlearn x: its process ended with status 3, without an answer"),
        ("leave", processes.ChildFailed, "unlearn x: its process ended with status 0, without an answer"),
        ("killed", processes.ChildFailed, "unlearn x: its process was ended by SIGKILL"),
    ],
)
def test_an_end_of_the_child_is_raised_as_ones_own(run, capfd, kind, error, text):
    with pytest.raises(error) as caught:
        run(kind)
    assert str(caught.value).startswith(text)
    assert capfd.readouterr().err == ""  # whoever asked for it says it, once


def test_a_child_whose_directory_is_removed_says_which_one_it_was(run, tmp_path, capfd):
    (tmp_path / "place").mkdir()
    with pytest.raises(InputError, match=rf"^{tmp_path}/place: was removed while it was worked in$"):
        run("removed", cwd=tmp_path / "place")
    assert capfd.readouterr().err == ""


def test_a_failure_of_ours_is_printed_where_it_happens(run, capfd):
    with pytest.raises(processes.ChildFailed, match=r"^$"):
        run("bug")
    assert capfd.readouterr().err.count("RuntimeError: a bug of ours") == 1


@pytest.fixture
def heard():
    """SIGHUP is not ignored, as it is below nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("number", "error", "line"),
    [
        (signal.SIGTERM, interrupts.Terminated, "salmu: stopped by SIGTERM; the same command resumes from here"),
        (signal.SIGHUP, interrupts.Terminated, "salmu: stopped by SIGHUP; the same command resumes from here"),
        (signal.SIGINT, KeyboardInterrupt, ""),
    ],
)
@pytest.mark.parametrize("prefix", [(), ("sh", "-c", '"$@"; exit $?', "sh")], ids=["child", "child of a sandbox"])
@pytest.mark.usefixtures("heard")
def test_a_signal_goes_to_the_child_and_then_ends_the_parent(run, tmp_path, number, error, line, prefix):
    here = tmp_path / "here"

    def send():
        while not here.exists() or not here.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(error) as caught:
        run("wait", prefix=prefix)
    thread.join()
    assert str(caught.value) == line
    with pytest.raises(ProcessLookupError):
        os.kill(int(here.read_text()), 0)


def test_what_has_been_finished_is_taken_over_before_a_signal_ends_the_run(run):
    taken = []

    def work():
        with processes.signals_held():
            answer = run("echo")
            os.kill(os.getpid(), signal.SIGTERM)
            taken.append(answer)

    with pytest.raises(interrupts.Terminated):
        work()
    assert len(taken) == 1


def test_nothing_more_is_started_once_the_run_has_been_told_to_end(run):
    def work():
        with processes.signals_held():
            os.kill(os.getpid(), signal.SIGINT)
            run("wait")

    with pytest.raises(KeyboardInterrupt):
        work()


def test_a_child_ends_when_its_parent_was_killed(run, tmp_path):
    here = tmp_path / "here"
    told = {"kind": "wait", "here": str(here)}
    program = f"from salmu_jax.runtime import processes; processes.run('some_child', {told}, label='')"
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    end = time.monotonic() + DEADLINE
    while not here.exists() or not here.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    child = int(here.read_text())
    while time.monotonic() < end:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        if Path(f"/proc/{child}/stat").exists() and " Z " in Path(f"/proc/{child}/stat").read_text():
            break  # nobody in this container collects orphans
        time.sleep(0.01)
    else:
        raise AssertionError(f"process {child} is still there")

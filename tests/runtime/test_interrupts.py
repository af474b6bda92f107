"""Signals at moments when Python itself would lose them, in processes that import nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from salmu_jax.runtime import interrupts
from salmu_jax.training.stopping import Termination

INTERRUPTED = (130, ["salmu: interrupted; the same command resumes from here"])
TERMINATED = (75, ["salmu: stopped by SIGTERM; the same command resumes from here"])


class Program:
    """A process that has installed the handlers, runs ``code`` and prints ``ready`` in it; signals are sent after that."""

    def __init__(self, code: str):
        prelude = "import hashlib, os, signal, sys, time\nfrom salmu_jax.runtime import interrupts\n"
        # Whatever the test's own process ignores or blocks is inherited.
        prelude += "signal.pthread_sigmask(signal.SIG_SETMASK, [])\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        prelude += "interrupts.install()\n"
        prelude += (
            "def ready(): print('ready', flush=True)\ndef in_c(): hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", prelude + textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n", self._process.communicate()
        time.sleep(0.2)  # it has gone on to what follows

    def send(self, *signals: signal.Signals, apart: float = 0.5) -> tuple[int, list[str]]:
        """How it ends: the exit status and the lines on stderr."""
        for place, number in enumerate(signals):
            if place:
                time.sleep(apart)
            self._process.send_signal(number)
        self.out, err = self._process.communicate(timeout=120)
        return self._process.returncode, err.splitlines()


@pytest.mark.parametrize(("number", "ending"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)])
@pytest.mark.parametrize(
    "code",
    [
        pytest.param("ready(); in_c()", id="in C"),
        pytest.param("ready()\nwhile True:\n    try: time.sleep(60)\n    except: pass", id="below a bare except"),
        pytest.param(
            "interrupts.GRACE = .2\nwith interrupts.orderly():\n    ready()\n    while True:\n        try: time.sleep(60)\n"
            "        except: pass",
            id="below a bare except, with something to put in order",
        ),
        pytest.param(
            "interrupts.GRACE = .2\nwith interrupts.orderly(): ready(); in_c()",
            id="in C, with something to put in order",
        ),
    ],
)
def test_a_signal_ends_the_process_whatever_it_is_doing(code, number, ending):
    assert Program(code).send(number) == ending


def test_what_has_begun_is_put_in_order_first():
    code = """
    with interrupts.orderly():
        try:
            ready(); time.sleep(60)
        except KeyboardInterrupt as error:
            print("in order", type(error).__name__)
            sys.exit(75)
    """
    program = Program(code)
    assert program.send(signal.SIGTERM) == (75, [])
    assert program.out == "in order Terminated\n"


def test_a_signal_of_a_moment_before_is_not_forgotten():
    """It came while the main thread was in C, and that returns into what has to be put in order."""
    code = """
    interrupts._handle(signal.SIGINT)
    ready()
    try:
        with interrupts.orderly(): print("begun")
    except KeyboardInterrupt:
        sys.exit(130)
    """
    program = Program(code)
    program._process.wait(30)
    assert program._process.returncode == 130
    assert program._process.stdout.read() == ""


def test_a_second_interrupt_ends_it_at_once_and_one_that_a_wrapper_repeats_does_not():
    code = """
    with interrupts.orderly():
        try:
            ready(); time.sleep(60)
        except KeyboardInterrupt:
            time.sleep({})
            print("in order", flush=True)
            sys.exit(130)
    """
    program = Program(code.format(60))
    assert program.send(signal.SIGINT, signal.SIGINT) == INTERRUPTED
    assert program.out == ""
    program = Program(code.format(0.5))
    assert program.send(signal.SIGINT, signal.SIGINT, apart=0.05) == (130, [])
    assert program.out == "in order\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_an_import_is_not_interrupted_but_what_comes_after_it(tmp_path, number, status):
    """An exception in the middle of an extension module's initialisation crashes the process, or becomes an ImportError."""
    (tmp_path / "slow_module.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(1)\nwhole = True\n")
    code = f"""
    interrupts.GRACE = 30
    sys.path.append({str(tmp_path)!r})
    with interrupts.orderly():
        try:
            import slow_module
            time.sleep(60)
        except KeyboardInterrupt:
            print("in order", slow_module.whole)
            sys.exit({status})
    """
    program = Program(code)
    assert program.send(number) == (status, [])
    assert program.out == "in order True\n"


def test_an_exception_that_a_destructor_drops_is_raised_again():
    code = """
    interrupts.GRACE = 30
    from salmu_jax.runtime import host
    host.quieten_libraries()
    class Slow:
        def __del__(self): ready(); time.sleep(60)
    try:
        with interrupts.orderly():
            slow = Slow()
            del slow
            time.sleep(60)
    except KeyboardInterrupt:
        print("in order")
        sys.exit(130)
    """
    program = Program(code)
    assert program.send(signal.SIGINT) == (130, [])
    assert program.out == "in order\n"


def test_a_training_loop_takes_its_time_on_sigterm_and_ctrl_c_still_ends_it():
    code = """
    interrupts.GRACE = {grace}
    with interrupts.orderly(), interrupts.deferred():
        asked = []
        signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
        ready()
        while not asked or {endless}: time.sleep(.01)
        time.sleep(.4)
        print("saved")
        sys.exit(75)
    """
    program = Program(code.format(grace=0.1, endless=False))
    assert program.send(signal.SIGTERM) == (75, [])
    assert program.out == "saved\n"
    status, lines = Program(code.format(grace=60, endless=True)).send(signal.SIGTERM, signal.SIGINT)
    assert (status, lines[-1]) == (-signal.SIGINT, "KeyboardInterrupt")  # nobody catches it here


def test_the_end_of_a_forked_child_is_not_taken_for_a_signal_of_ours():
    code = """
    child = os.fork()
    if child == 0:
        time.sleep(60)
    time.sleep(.1)
    os.kill(child, signal.SIGTERM)
    print("child", -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    time.sleep(.2)
    ready(); time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", "import os, signal, time\nfrom salmu_jax.runtime import interrupts\ninterrupts.install()\n"
         "def ready(): print('ready', flush=True)\n" + textwrap.dedent(code)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == f"child {int(signal.SIGTERM)}\n"
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate()


def test_a_hangup_is_a_termination():
    assert Program("ready(); time.sleep(60)").send(signal.SIGHUP) == (
        75,
        ["salmu: stopped by SIGHUP; the same command resumes from here"],
    )


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_below_nohup_and_in_a_scripts_background_job_a_signal_stays_ignored(number):
    code = f"import signal; signal.signal({int(number)}, signal.SIG_IGN); "
    code += "from salmu_jax.runtime import interrupts; interrupts.install(); "
    code += f"print(signal.getsignal({int(number)}) is signal.SIG_IGN)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True\n"


def test_until_its_first_call_is_compiled_a_loop_has_nothing_to_save(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(interrupts._state, "installed", True)
    with Termination() as termination:
        assert signal.getsignal(signal.SIGTERM) is before
        termination.defer()
        termination.defer()
        assert interrupts._state.deferred == 1
        signal.raise_signal(signal.SIGTERM)
        assert termination.requested
    assert signal.getsignal(signal.SIGTERM) is before
    assert interrupts._state.deferred == 0
    monkeypatch.setattr(interrupts._state, "installed", False)  # a notebook, where nobody else would end it
    with Termination() as termination:
        signal.raise_signal(signal.SIGTERM)
        assert termination.requested

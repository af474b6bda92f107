"""Runs part of a run in a Python process of its own: request, answer, and how both processes end together.

The parent starts ``python -m MODULE`` and writes the request, one line of JSON, to its standard input, which stays open. When
the parent ends, however it ends, the child reads end of file and ends too. The child answers with one line of JSON on
a pipe: what the work returned, or its exit status and last line, which the parent raises as its own error.
Nothing else is exchanged; output and terminal are shared.

SIGINT, SIGTERM and SIGHUP are forwarded to the running children: threads may each run one, inside a :func:`signals_held` of
the main thread. They end the parent only when :func:`signals_held` ends, so that finished outputs are taken over first. A
child in a sandbox, which is in namespaces of its own, gets the numbers of signals as lines of its standard input and sends
them to itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from salmu_jax.runtime import interrupts
from salmu_jax.runtime.errors import Diverged, InputError, Preempted, describe_os_error, disk_refusal

_ROOT = Path(__file__).resolve().parents[2]
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_held: list[_Held] = []


class ChildFailed(Exception):
    """A child failed by our bug, whose traceback it printed, or was ended by a signal, which the message names."""

    def __init__(self, line: str = ""):
        super().__init__(line)


class RemotePreempted(Preempted):
    """A child was preempted; the message is the child's own line."""

    def __init__(self, line: str):
        Exception.__init__(self, line)


def run(
    module: str,
    request: Mapping[str, Any],
    *,
    label: str,
    prefix: Sequence[str] = (),
    cwd: str | os.PathLike | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Runs ``python -m MODULE``, which calls :func:`serve`, and returns what its work returns.

    Args:
      module: the module to run.
      request: the argument of its work, JSON values.
      label: names the work in the message if the child ends without an answer.
      prefix: a command that starts the child (a sandbox).
      cwd: the working directory of the child.
      environment: the environment variables of the child; None: those of this process.

    Raises:
      InputError, Preempted, KeyboardInterrupt: the child raised it.
      ChildFailed: the child ended in any other way.
    """
    reader, writer = os.pipe()
    variables = dict(os.environ if environment is None else environment)
    inherited = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(_ROOT), *inherited]))
    with signals_held() as held, open(reader, encoding="utf-8") as answers:
        held.refuse_if_stopped()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # blocked in the child until it can handle them
        try:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-P", "-m", module, str(writer)],
                stdin=subprocess.PIPE,
                pass_fds=[writer],
                cwd=cwd,
                env=variables,
                start_new_session=bool(prefix),  # a terminal's Ctrl-C would end the sandbox under the child
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(writer)
        # By the input, signals go after the request and not amid it.
        sending = contextlib.nullcontext() if prefix else held.passed_on(process)
        with sending, contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        said: list[str] = []
        listener = threading.Thread(target=lambda: said.append(answers.read()), daemon=True)
        listener.start()
        with held.passed_on(process, prefix):
            status = process.wait()
        listener.join(10)  # another process may keep the pipe open
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    return _outcome(said[0] if said else "", status, label, held.received)


def serve(work: Callable[[dict[str, Any]], Any]) -> None:
    """Runs a child: reads the request, calls ``work`` with it, writes the answer, and ends the process."""
    answers = int(sys.argv[1])
    os.set_inheritable(answers, False)
    sys.argv = [sys.argv[0]]
    interrupts.install(quiet=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    from salmu_jax.runtime import console, host

    console.prepare(quiet=True)
    place = os.getcwd()
    try:
        lines = _input_lines()
        request = json.loads(next(lines, b""))
        threading.Thread(target=_follow_parent, args=(lines,), daemon=True).start()
        host.prepare()
        host.quieten_libraries()
        with host.fixed_numerics():
            answer: dict[str, Any] = {"status": 0, "value": work(request)}
    except InputError as error:
        kind = {"printed": _is_printed(error), "diverged": isinstance(error, Diverged)}
        answer = {"status": 2, "line": str(error), **kind}
    except Preempted as error:
        answer = {"status": 75, "line": str(error)}
    except interrupts.Terminated as error:
        answer = {"status": interrupts.TERMINATED, "ended": str(error)}
    except KeyboardInterrupt:
        answer = {"status": interrupts.INTERRUPTED}
    except Exception as error:
        line = host.environment_refusal(error) or disk_refusal(error, place)
        if line is None and not os.path.isdir(place):
            line = f"{place}: was removed while it was worked in"
        if line is None and isinstance(error, OSError) and error.errno is not None:
            line = describe_os_error(error)
        if line is None:
            traceback.print_exc()
        answer = {"status": 1} if line is None else {"status": 2, "line": str(line)}
    interrupts.claim_the_end()
    with contextlib.suppress(OSError), open(answers, "w", encoding="utf-8") as pipe:
        pipe.write(json.dumps(answer) + "\n")
    interrupts.end_children()
    console.flushed()
    if "jax" in sys.modules:
        from salmu_jax.runtime import distributed

        distributed.leave(60.0 if answer["status"] in (0, interrupts.TERMINATED) else 5.0)
    os._exit(answer["status"])  # libraries' threads may still be running; an orderly exit would wait for them


@contextlib.contextmanager
def signals_held() -> Iterator[_Held]:
    """Holds back SIGINT, SIGTERM and SIGHUP inside ``with``; if one was received, ends the run when the block ends.

    Only the outermost of nested blocks counts.
    """
    if _held:
        yield _held[0]
        return
    held = _Held()
    _held.append(held)
    before = {}
    if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
        heard = [number for number in _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
        before = {number: signal.signal(number, held.receive) for number in heard}
    try:
        with interrupts.deferred(all_signals=True):
            yield held
    finally:
        _held.clear()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    held.refuse_if_stopped()  # not after an exception, which already ends the run


class _Held:
    """Holds the signals received so far, and the children that they are forwarded to."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._children: dict[subprocess.Popen, bool] = {}  # whether each is told by its input

    def receive(self, number: int, frame: Any = None) -> None:
        """Handles a signal; the third of the same kind kills the children."""
        self.received.append(number)
        for process in list(self._children):
            self._pass(process, number if self.received.count(number) < 3 else signal.SIGKILL)

    def refuse_if_stopped(self) -> None:
        """Raises KeyboardInterrupt or Terminated if a signal has asked the run to end."""
        if signal.SIGINT in self.received:
            raise KeyboardInterrupt
        if self.received:
            raise interrupts.Terminated(interrupts.line_of(self.received[0]))

    @contextlib.contextmanager
    def passed_on(self, process: subprocess.Popen, prefix: Sequence[str] = ()) -> Iterator[None]:
        """Forwards signals to ``process`` inside ``with``; one received just before, at once.

        With a ``prefix``, ``process`` is the sandbox, and the child in it is told by its input.
        """
        self._children[process] = bool(prefix)
        for number in dict.fromkeys(self.received):
            self._pass(process, number)
        try:
            yield
        finally:
            self._children.pop(process, None)

    def _pass(self, process: subprocess.Popen, number: int) -> None:
        if process.poll() is not None:
            return
        if self._children.get(process) and number != signal.SIGKILL:
            with contextlib.suppress(OSError):
                os.write(process.stdin.fileno(), b"%d\n" % number)
        else:
            process.send_signal(number)


def _input_lines() -> Iterator[bytes]:
    """Yields the lines of standard input. Python's own buffer has a lock, and a thread that waits in it aborts an exit."""
    rest = b""
    with contextlib.suppress(OSError):
        while more := os.read(0, 1 << 16):
            *lines, rest = (rest + more).split(b"\n")
            yield from lines


def _follow_parent(lines: Iterator[bytes]) -> None:
    """Sends this process the signals that the parent writes, and ends it when the parent's end of the input is closed."""
    with contextlib.suppress(OSError, ValueError):
        for line in lines:
            os.kill(os.getpid(), int(line))
    os._exit(1)


def _is_printed(error: InputError) -> bool:
    """Returns whether another process of the run prints the error."""
    from salmu_jax.runtime.distributed import RemoteInputError

    return isinstance(error, RemoteInputError)


def _outcome(said: str, status: int, label: str, received: Sequence[int]) -> Any:
    """Returns or raises a child's answer; ``received`` are the signals that were forwarded to it."""
    stopped = interrupts.line_of(next((number for number in received if number != signal.SIGINT), signal.SIGTERM))
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or "status" not in answer:
        if status in (-signal.SIGINT, interrupts.INTERRUPTED):
            raise KeyboardInterrupt
        if status in (-signal.SIGTERM, -signal.SIGHUP, interrupts.TERMINATED):
            raise interrupts.Terminated(interrupts.line_of(-status) if status < 0 else stopped)
        if status < 0:
            name = signal.Signals(-status).name
            why = " (the system does so when memory runs out)" if -status == signal.SIGKILL else ""
            raise ChildFailed(f"{label}: its process was ended by {name}{why}")
        raise ChildFailed(f"{label}: its process ended with status {status}, without an answer")
    if answer["status"] == 0:
        return answer.get("value")
    line = str(answer.get("line", ""))
    if answer["status"] == 2 and answer.get("printed"):
        from salmu_jax.runtime.distributed import RemoteInputError

        raise RemoteInputError(line)
    if answer["status"] == 2:
        raise Diverged(line) if answer.get("diverged") else InputError(line)
    if answer["status"] == interrupts.TERMINATED:
        raise RemotePreempted(line) if line else interrupts.Terminated(str(answer.get("ended") or stopped))
    if answer["status"] == interrupts.INTERRUPTED:
        raise KeyboardInterrupt
    raise ChildFailed

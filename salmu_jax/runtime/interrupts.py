"""Handles Ctrl-C, SIGTERM and SIGHUP throughout the program: exit status 130 or 75, and one line.

Python runs a signal handler in the main thread, between two bytecode instructions. The import of a large library or a
compilation delays it for minutes, and an exception that a handler raises inside a destructor or a bare ``except`` is lost.
So a second thread learns of every signal at once, through the file descriptor that Python's C handler writes to, and makes
sure that the program ends:

* outside :func:`orderly` there is nothing to clean up, and the thread ends the process at once;
* inside, the handler raises KeyboardInterrupt (or :class:`Terminated`) in the main thread, so that partial outputs are
  removed. It waits while the main thread imports: an exception during the initialisation of an extension module crashes the
  process. If the process has not ended after :data:`GRACE` seconds, the thread ends it; checkpoints and outputs survive that,
  as they survive a kill. A second Ctrl-C also ends the process at once;
* inside :func:`deferred`, where training loops run, SIGTERM and SIGHUP are left to the loop, which saves a checkpoint first.

This module is imported first and imports little.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

INTERRUPTED, TERMINATED = 130, 75  # exit statuses
GRACE = 5.0  # seconds for an orderly end
_AGAIN = 0.3  # seconds; a wrapper may forward a Ctrl-C that the terminal has sent already, which is not a second one


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came where no checkpoint is saved. Code that catches KeyboardInterrupt to clean up catches it too."""


class _State:
    """The state of signal handling."""

    orderly = False  # whether a signal raises an exception in the main thread
    deferred = 0  # how many loops handle SIGTERM themselves
    passed_on = False  # whether a child receives all signals while this process waits for it
    quiet = False  # whether another process reports why this one ends
    pending = 0  # a signal that has not ended the process yet
    raised = False  # whether the exception has been raised
    repeats = 0  # signals that this process has sent to itself and not yet received
    installed = False


_state = _State()
_the_end = threading.Lock()  # held by the thread that ends the process


def install(*, quiet: bool = False) -> None:
    """Handles the signals of this process from now on; call it in the main thread.

    With ``quiet``, the parent says why the process ended.
    """
    _state.quiet = quiet
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _handle)
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a script's background job, and nohup
            signal.signal(number, _handle)
    os.register_at_fork(after_in_child=_forget)
    _state.installed = True
    threading.Thread(target=_watch, args=(reading,), name="signals", daemon=True).start()


def installed() -> bool:
    """Returns whether :func:`install` was called in this process."""
    return _state.installed


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Inside ``with``, a signal raises an exception in the main thread, once, so that partial outputs are removed."""
    _state.orderly = True
    try:
        if _state.pending:
            _handle(_state.pending)
        yield
    finally:
        _state.orderly = False


@contextlib.contextmanager
def deferred(*, all_signals: bool = False) -> Iterator[None]:
    """Inside ``with``, other handlers end the process on SIGTERM and SIGHUP, or on all signals."""
    _state.deferred += 1
    _state.passed_on |= all_signals
    try:
        yield
    finally:
        _state.deferred -= 1
        _state.passed_on &= not all_signals


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Starts the worker processes of the block with Ctrl-C blocked, which a terminal sends to all its processes.

    A Ctrl-C in the meantime is delivered at the end of the block, or to another thread.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # otherwise the first worker would start it, which unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def line_of(number: int) -> str:
    """Returns the last line of a process that a signal ends."""
    if number == signal.SIGINT:
        return "salmu: interrupted; the same command resumes from here"
    return f"salmu: stopped by {signal.Signals(number).name}; the same command resumes from here"


def claim_the_end() -> None:
    """Makes sure that no signal ends the process from now on; the main thread calls it before its last line.

    Does not return if a signal is already ending the process.
    """
    if not _the_end.acquire(blocking=False):
        time.sleep(60)  # the other thread is ending the process


def end(number: int) -> None:
    """Ends the process for a signal, from any thread: ends its children, prints one line, does not return."""
    if not _the_end.acquire(blocking=False):
        time.sleep(60)
    end_children()
    if not _state.quiet:
        with contextlib.suppress(OSError):
            os.write(2, f"{line_of(number)}\n".encode())
    os._exit(INTERRUPTED if number == signal.SIGINT else TERMINATED)


def end_children() -> None:
    """Terminates the processes started by multiprocessing, which would outlive ``os._exit``."""
    if "multiprocessing.process" in sys.modules:
        import multiprocessing

        for child in multiprocessing.active_children():
            with contextlib.suppress(Exception):
                child.terminate()


def lost() -> None:
    """Raises the exception again; the main thread calls it after Python dropped the exception (in a destructor)."""
    if _state.raised:
        _state.raised = False
        _handle_again()


def _handle(number: int, frame: FrameType | None = None) -> None:
    """Runs in the main thread."""
    if not _state.pending or number == signal.SIGINT:
        _state.pending = number
    if _state.orderly and not _state.raised:
        if _is_importing(frame):
            _handle_again()
            return
        _state.raised = True
        raise KeyboardInterrupt if _state.pending == signal.SIGINT else Terminated(line_of(_state.pending))


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _handle_again() -> None:
    """Calls the main thread's handler again, after 50 ms."""

    def repeat() -> None:
        _state.repeats += 1
        signal.pthread_kill(threading.main_thread().ident or 0, _state.pending)

    again = threading.Timer(0.05, repeat)
    again.daemon = True
    again.start()


def _watch(descriptor: int) -> None:
    """Runs in the second thread."""
    ours = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    first: float | None = None
    number = 0
    while True:
        wait = None if first is None else max(first + GRACE - time.monotonic(), 0)
        if not select.select([descriptor], [], [], wait)[0]:
            end(number)
        came = os.read(descriptor, 1)[0]
        if _state.repeats:
            _state.repeats -= 1
            continue
        if came not in ours or _state.passed_on or (_state.deferred and came != signal.SIGINT):
            continue
        number, now = came, time.monotonic()
        if not (_state.orderly or _state.raised) or (
            first is not None and number == signal.SIGINT and now - first > _AGAIN
        ):
            end(number)
        first = now if first is None else first


def _forget() -> None:
    """Restores the default handlers in a forked child."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is _handle:
                signal.signal(number, signal.SIG_DFL)

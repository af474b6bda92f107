"""Ctrl-C, SIGTERM and SIGHUP, from the first line of the program to its last: exit status 130, or 75, and one line.

Python runs a signal's handler in the main thread, between two of its instructions. An import of a large library or a
compilation keeps it waiting for minutes, and an exception that a handler raises inside a destructor or below somebody's bare
``except`` is lost. So a second thread learns of every signal at once, through the file descriptor that Python's C handler
writes to, and sees to it that the program ends:

* outside of :func:`orderly` nothing has to be put in order: the thread ends the process on the spot;
* inside, the handler raises KeyboardInterrupt (or :class:`Terminated`) in the main thread, for outputs to be taken back, as
  soon as that is not importing: an exception amid the initialisation of an extension module crashes the process. The
  thread ends the process if that has led to nothing after :data:`GRACE` seconds. States and outputs survive that, as they
  survive a kill. A second Ctrl-C ends the process on the spot as well;
* inside :func:`deferred`, which training loops are in, SIGTERM and SIGHUP are theirs: they save their state first.

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
_AGAIN = 0.3  # seconds; wrappers pass a Ctrl-C on that the terminal has sent already, which is no second one


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came where no state is to be saved. What catches KeyboardInterrupt to clean up catches it too."""


class _State:
    """What the main thread is doing, as far as signals matter."""

    orderly = False  # whether an exception is to be raised in the main thread
    deferred = 0  # how many loops are going to end by themselves on SIGTERM
    passed_on = False  # whether a child gets all signals and this process waits for its end
    quiet = False  # whether somebody else says why this process ends
    pending = 0  # a signal that came before the main thread began what has to be put in order
    raised = False  # whether the one exception has been raised
    repeats = 0  # signals under way that this process has sent to itself
    installed = False


_state = _State()
_the_end = threading.Lock()  # held by the thread that ends the process


def install(*, quiet: bool = False) -> None:
    """Handles signals from now on, in the program that owns this process; to be called in its main thread.

    A ``quiet`` one leaves it to its parent to say why it ended.
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
    """Whether this process is the program's, and signals come here."""
    return _state.installed


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Inside ``with``, a signal raises an exception in the main thread, once, for outputs to be taken back."""
    _state.orderly = True
    try:
        if _state.pending:
            _handle(_state.pending)
        yield
    finally:
        _state.orderly = False


@contextlib.contextmanager
def deferred(*, all_signals: bool = False) -> Iterator[None]:
    """Inside ``with``, somebody else's handlers see to it that the process ends on SIGTERM and SIGHUP, or for all signals."""
    _state.deferred += 1
    _state.passed_on |= all_signals
    try:
        yield
    finally:
        _state.deferred -= 1
        _state.passed_on &= not all_signals


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Inside ``with``, worker processes are started that leave Ctrl-C, which goes to all of a terminal's group, to this one.

    They inherit that it is blocked. What comes here meanwhile arrives at the end of the block, or in another thread.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # the first worker would start it, and starting it ends the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def line_of(number: int) -> str:
    """What a process says that ends for a signal."""
    if number == signal.SIGINT:
        return "salmu: interrupted; the same command goes on from here"
    return f"salmu: stopped by {signal.Signals(number).name}; the same command goes on from here"


def claim_the_end() -> None:
    """To be called by the main thread before its last words: from here on no signal ends the process. May not return."""
    if not _the_end.acquire(blocking=False):
        time.sleep(60)  # the other thread is ending the process


def end(number: int) -> None:
    """Ends the process for a signal, from any thread: its child processes, one line, no return."""
    if not _the_end.acquire(blocking=False):
        time.sleep(60)
    end_children()
    if not _state.quiet:
        with contextlib.suppress(OSError):
            os.write(2, f"{line_of(number)}\n".encode())
    os._exit(INTERRUPTED if number == signal.SIGINT else TERMINATED)


def end_children() -> None:
    """Ends the processes that multiprocessing has started, which would outlive an ``os._exit``."""
    if "multiprocessing.process" in sys.modules:
        import multiprocessing

        for child in multiprocessing.active_children():
            with contextlib.suppress(Exception):
                child.terminate()


def lost() -> None:
    """To be called in the main thread when Python had to drop the exception (in a destructor): it is raised again."""
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
    """Calls the main thread's handler once more in a moment."""

    def repeat() -> None:
        _state.repeats += 1
        signal.pthread_kill(threading.main_thread().ident or 0, _state.pending)

    again = threading.Timer(0.05, repeat)
    again.daemon = True
    again.start()


def _watch(descriptor: int) -> None:
    """The body of the second thread."""
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
    """In a forked child, whose signals are not the program's."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is _handle:
                signal.signal(number, signal.SIG_DFL)

"""Starts processes that have a pipe each to this one, and ends them.

They are spawned: forking a parent with JAX's threads may hang. When the parent is gone, however it ended, a process reads end
of file from its pipe, or fails to send, and can end too.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from salmu_jax.runtime import interrupts


class Died(RuntimeError):
    """A process ended before its work was done."""


@contextlib.contextmanager
def started(
    work: Callable[..., None], arguments: Sequence[tuple[Any, ...]], *, duplex: bool
) -> Iterator[dict[Connection, BaseProcess]]:
    """Starts a process for each of ``arguments``, which runs ``work(pipe, *arguments)``; yields them by our end of the pipe.

    Without ``duplex`` the processes only send. Leaving the block ends them. ``work`` and ``arguments`` are pickled.
    """
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection, BaseProcess] = {}
    try:
        with interrupts.kept_from_children():
            for of_one in arguments:
                ours, theirs = context.Pipe(duplex=duplex)
                process = context.Process(target=work, args=(theirs, *of_one), daemon=True)
                process.start()
                theirs.close()  # so that the pipe closes when the process ends
                processes[ours] = process
        yield processes
    finally:
        for running in processes.values():
            running.terminate()
        for pipe, running in processes.items():
            running.join()
            pipe.close()


def send(pipe: Connection, value: Any) -> None:
    """Sends ``value`` to a process. Raises :class:`Died` if the process has ended: a pipe may break on either side first."""
    try:
        pipe.send(value)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise _died() from error


def received(pipe: Connection) -> Any:
    """Returns what a process sends next. Raises it if it is an exception, and :class:`Died` if the process has ended."""
    try:
        result = pipe.recv()
    except (EOFError, ConnectionResetError) as error:
        raise _died() from error
    if isinstance(result, Exception):
        raise result
    return result


def _died() -> Died:
    return Died("a process ended before its work was done (out of memory?)")

"""Makes all parts on this machine, in several processes, without Apache Beam.

Each process is sent one part at a time, and ends when its pipe does: with the parent, however that ends.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

from data_pipelines import processes
from data_pipelines.retain.work import Task, make_part
from salmu_jax.runtime import host
from salmu_jax.runtime.errors import InputError

Report = Callable[[int, dict[str, Any]], None]
"""Called with the number of parts that are done, and the record of the latest."""


def run_locally(tasks: Sequence[Task], workers: int = 0, report: Report = lambda done, record: None) -> None:
    """Makes all parts.

    Args:
      tasks: one for each part.
      workers: processes; 0: one for each core. One is this process itself.
      report: the progress.

    Raises:
      InputError: a part cannot be made (:func:`make_part`), or a process was killed. Finished parts are kept.
    """
    workers = min(workers or host.cpu_count(), len(tasks))
    if workers > 1:
        _in_processes(tasks, workers, report)
        return
    for done, task in enumerate(tasks, 1):
        report(done, make_part(task))


def _in_processes(tasks: Sequence[Task], workers: int, report: Report) -> None:
    waiting, done = collections.deque(tasks), 0
    with processes.started(_serve, [()] * workers, duplex=True) as started:
        for pipe, process in started.items():
            with _death_refused(process):
                processes.send(pipe, waiting.popleft())
        while done < len(tasks):
            for pipe in cast(list[Connection], wait(list(started))):
                with _death_refused(started[pipe]):
                    record = processes.received(pipe)
                    done += 1
                    if waiting:
                        processes.send(pipe, waiting.popleft())
                report(done, record)


@contextlib.contextmanager
def _death_refused(process: BaseProcess) -> Iterator[None]:
    """Refuses, with its status, that ``process`` has ended."""
    try:
        yield
    except processes.Died as error:
        process.join()
        raise InputError(
            f"a worker process ended before its part was done (status {process.exitcode}; out of memory?); finished parts"
            " are kept: run the same command again, with fewer workers"
        ) from error


def _serve(pipe: Connection) -> None:
    """Runs in a process of its own, until the pipe closes."""
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = pipe.recv()
            try:
                answer: Any = make_part(task)
            except Exception as error:
                answer = error
            pipe.send(answer)

"""Makes files in several processes: each is made and written by one of them, whichever is free.

Processes are spawned (forking a parent with JAX's threads may hang). Each has a pipe of its own to the parent, which sends it
the number of a part and gets the digest of the file back. When the parent is gone, however it ended, a process reads end of
file and ends too, after the file that it is making.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

from salmu_jax.runtime import files, interrupts
from salmu_jax.runtime.errors import InputError

Part = tuple[Path, Callable[[], bytes]]  # a file, and what makes its contents


@contextlib.contextmanager
def written(parts: Sequence[Part], workers: int) -> Iterator[Iterator[tuple[int, str]]]:
    """Yields an iterator over (index, SHA-256) of ``parts`` as they are written, in any order.

    Leaving the block ends the processes. With fewer than two workers, or two parts, everything is made in this process, in
    order; otherwise the parts are pickled.

    Raises whatever a part raises, and RuntimeError if a process dies.
    """
    workers = min(workers, len(parts))
    if workers < 2:
        yield ((index, _write(part)) for index, part in enumerate(parts))
        return
    context = multiprocessing.get_context("spawn")
    processes, pipes = [], []
    try:
        with interrupts.kept_from_children():
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, list(parts)), daemon=True)
                process.start()
                theirs.close()  # so that the pipe closes when the process ends
                processes.append(process)
                pipes.append(ours)
        yield _as_written(pipes, len(parts))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        for pipe in pipes:
            pipe.close()


def _as_written(pipes: list[Connection], count: int) -> Iterator[tuple[int, str]]:
    started = 0
    for pipe in pipes:
        pipe.send(started)
        started += 1
    for _ in range(count):
        pipe = cast(Connection, wait(pipes)[0])
        try:
            result: Any = pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise RuntimeError("a process ended before its work was done (out of memory?)") from error
        if isinstance(result, Exception):
            raise result
        if started < count:
            pipe.send(started)
            started += 1
        yield result


def _write(part: Part) -> str:
    path, make = part
    files.write_bytes(path, make())
    return files.sha256_file(path)


def _work(pipe: Connection, parts: list[Part]) -> None:
    """Runs in a process, until the parent ends it or is gone."""
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            index = pipe.recv()
            try:
                result: Any = (index, _write(parts[index]))
            except InputError as error:
                result = InputError(str(error))  # its subclasses cannot be pickled
            except Exception as error:
                result = error
            pipe.send(result)

"""Makes files in several processes: each is made and written by one of them, whichever is free.

The parent sends a process the number of a part and gets the digest of the file back. When the parent is gone, a process
ends too, after the file that it is making.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

from data_pipelines import processes
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

Part = tuple[Path, Callable[[], bytes]]  # a file, and what makes its contents


@contextlib.contextmanager
def written(parts: Sequence[Part], workers: int) -> Iterator[Iterator[tuple[int, str]]]:
    """Yields an iterator over (index, SHA-256) of ``parts`` as they are written, in any order.

    Leaving the block ends the processes. With fewer than two workers, or two parts, everything is made in this process, in
    order; otherwise the parts are pickled.

    Raises whatever a part raises, and :class:`processes.Died`.
    """
    workers = min(workers, len(parts))
    if workers < 2:
        yield ((index, _write(part)) for index, part in enumerate(parts))
        return
    with processes.started(_work, [(list(parts),)] * workers, duplex=True) as started:
        yield _as_written(list(started), len(parts))


def _as_written(pipes: list[Connection], count: int) -> Iterator[tuple[int, str]]:
    sent = 0
    for pipe in pipes:
        processes.send(pipe, sent)
        sent += 1
    for _ in range(count):
        pipe = cast(Connection, wait(pipes)[0])
        result = processes.received(pipe)
        if sent < count:
            processes.send(pipe, sent)
            sent += 1
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

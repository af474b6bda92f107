"""One framework's process: prepares a task, then runs it once for each line it is sent, and sleeps in between."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

UNLEARNING_TASKS = tuple(
    method + cached
    for method in ("cliperase", "pinned_surrogates", "redirect")
    for cached in ("", "_cached", "_both_cached")
)


@dataclasses.dataclass(frozen=True)
class Spec:
    """A task: ``name``, on which ``device``, over how many rows, with how many threads, of which architecture and dtype."""

    name: str
    device: str
    batch: int
    threads: int
    model: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class Task:
    """``run(round)`` is timed and returns when the work is done; ``value(result)`` shows, untimed, what it computed.

    ``facts`` go to the JSON, except ``first_step``, what was computed before the first round (``first_step.py``).
    """

    run: Callable[[int], Any]
    value: Callable[[Any], Any]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def unlearning_task(name: str) -> tuple[str, bool, bool]:
    """The method of an unlearning task, and whether our side and PyTorch's look up the start model's embeddings."""
    for ending, cached in (("_both_cached", (True, True)), ("_cached", (True, False)), ("", (False, False))):
        if name.endswith(ending):
            return name.removesuffix(ending), *cached
    raise AssertionError(name)


def versions(*names: str) -> dict[str, str]:
    """Python's version, and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def serve(prepare: Callable[[Spec], Task]) -> None:
    """Answers on standard output, a JSON object a line; all else that is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    spec = Spec(**json.loads(sys.argv[1]))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: spec.threads])
    task = prepare(spec)
    print(json.dumps(task.facts), file=answers)
    for line in sys.stdin:
        index = int(line)
        begin = time.perf_counter()
        result = task.run(index)
        seconds = time.perf_counter() - begin
        print(json.dumps({"seconds": seconds, "value": task.value(result)}), file=answers)

"""Kills a command at random moments, starts it again each time, and compares what it ends with.

The scripts ``kill_*.py`` say which command that is. An undisturbed run tells when each step of its progress was reached: a
stage, or a state of training. Each kill is then aimed at a moment of its own part of that run: it falls so many seconds after
the step that the undisturbed run had last reached by then. So kills are spread over the whole run, however long the command
takes to come back to where it was.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

_PAUSE = 0.05  # seconds between two looks at the progress

Progress = Callable[[], int]  # how far the command has come: 0 at first, more with every step
Comparable = Callable[[Path], Any]  # what a file says, without times and paths


class Running(Protocol):
    """A command that has been started."""

    def kill(self) -> None: ...

    def ended(self) -> bool: ...

    def wait(self) -> int:
        """Waits for its end, and returns its exit status: negative, the number of the signal that ended it."""


class Process:
    """``salmu ARGUMENTS`` in a process group of its own. ``environment`` is added to this process's."""

    def __init__(self, arguments: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None):
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "salmu_jax.cli", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> int:
        return self._process.wait()


class Step(NamedTuple):
    """A step of an undisturbed run: the progress ``reached``, and the ``seconds`` from the start until then."""

    reached: int
    seconds: float


class Moment(NamedTuple):
    """When to kill: ``delay`` seconds after the progress has ``reached`` this, or after the start if it had before."""

    reached: int
    delay: float


class Kill(NamedTuple):
    """How a kill went: whether it ``landed``, or the command had ended by itself, and the progress ``reached`` by then."""

    landed: bool
    reached: int


def run_undisturbed(running: Running, progress: Progress) -> list[Step]:
    """Waits for the end of a command, and returns its steps: the first is its start, the last its end.

    Raises RuntimeError if it fails.
    """
    began, steps = time.monotonic(), [Step(0, 0.0)]
    while not running.ended():
        if (reached := progress()) > steps[-1].reached:
            steps.append(Step(reached, time.monotonic() - began))
        time.sleep(_PAUSE)
    _finish(running)
    return [*steps, Step(progress(), time.monotonic() - began)]


def moments(steps: Sequence[Step], kills: int, seed: int) -> list[Moment]:
    """Returns a random moment of each of ``kills`` equal parts of the run that took ``steps``, in their order."""
    draw, seconds, found = random.Random(seed), steps[-1].seconds, []
    for number in range(kills):
        at = draw.uniform(number, number + 1) / kills * seconds
        last = max(step for step in steps[:-1] if step.seconds <= at)
        found.append(Moment(last.reached, at - last.seconds))
    return found


def run_and_kill(
    start: Callable[[int], Running], progress: Progress, planned: Iterable[Moment], say: Callable[[str], None] = print
) -> list[Kill]:
    """Starts a command, kills it at each of the ``planned`` moments, and lets the last start finish.

    ``start`` gets the number of the start, from 0. Raises RuntimeError if the command fails by itself.
    """
    story: list[Kill] = []
    for number, moment in enumerate(planned):
        running = start(number)
        while not running.ended() and progress() < moment.reached:
            time.sleep(_PAUSE)
        until = time.monotonic() + moment.delay
        while not running.ended() and time.monotonic() < until:
            time.sleep(min(_PAUSE, max(0.0, until - time.monotonic())))
        running.kill()
        status = running.wait()
        if status not in (0, -signal.SIGKILL):
            raise RuntimeError(f"start {number + 1} ended by itself with status {status}")
        story.append(Kill(status != 0, progress()))
        how = "landed" if story[-1].landed else "had ended by itself"
        say(f"kill {number + 1:2d}  {how}, {moment.delay:5.1f} s after {moment.reached}, at {story[-1].reached}")
    _finish(start(len(story)))
    return story


def summary(story: Sequence[Kill], step: str) -> str:
    """Returns ``9 of 10 kills landed, 8 of them after a stage was finished``; ``step`` is what progress counts: ``stage``."""
    landed = [kill for kill in story if kill.landed]
    later = sum(kill.reached > 0 for kill in landed)
    return f"{len(landed)} of {len(story)} kills landed, {later} of them after a {step} was finished"


def differences(first: Path, second: Path, pattern: str, comparable: Comparable) -> list[str]:
    """Returns the names of the files ``pattern`` of two directories that are not equal, or are in one only."""
    names = sorted({str(path.relative_to(one)) for one in (first, second) for path in one.glob(pattern)})
    return [
        name
        for name in names
        if not all((one / name).exists() for one in (first, second))
        or comparable(first / name) != comparable(second / name)
    ]


def stages_done(workdir: Path) -> int:
    """Returns how many stages a work directory has finished."""
    return sum(path.name != "seen.json" for path in (workdir / "stages").glob("*.json"))


def _finish(running: Running) -> None:
    if status := running.wait():
        raise RuntimeError(f"the command ended with status {status}")

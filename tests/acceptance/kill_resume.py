"""Kills a run again and again, and compares what it ends with.

    python tests/acceptance/kill_resume.py --config configs/mini.py --kills 10 --workdir DIR
    python tests/acceptance/kill_resume.py --config configs/tiny_runs.py --kills 10 --workdir DIR

An undisturbed run of ``salmu bench`` in DIR/undisturbed; then one in DIR/killed that is ended with SIGKILL at random moments
(spread over the time that the undisturbed run took, seeded) and started again each time. Exit status 1 if any result file
of the two differs in anything but times and the work directory, or is not in the report. The second config has three seeds of
a method, one person's request, and a relearning run on top of an unlearned model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Start = Callable[[Path], Any]  # starts the benchmark in a work directory: an object with kill() and wait() -> status


def moments(kills: int, seconds: float, seed: int) -> list[float]:
    """How long to let each of the killed runs live: random, a little more than the whole run in all."""
    draw = random.Random(seed)
    return [draw.uniform(0, 2.2 * seconds / max(kills, 1)) for _ in range(kills)]


def run_and_kill(start: Start, workdir: Path, lives: list[float]) -> list[tuple[float, str]]:
    """Starts the benchmark, kills it after each of ``lives`` (seconds) and lets the last one finish.

    Returns how long each lived and what it was at. Raises RuntimeError if the last one fails.
    """
    story = []
    for life in lives:
        began = time.monotonic()
        running = start(workdir)
        time.sleep(max(0.0, life - (time.monotonic() - began)))
        running.kill()
        status = running.wait()
        story.append((life, "had ended by itself" if status == 0 else state_of(workdir)))
    status = start(workdir).wait()
    if status != 0:
        raise RuntimeError(f"the run after the last kill ended with status {status}")
    return story


def state_of(workdir: Path) -> str:
    """What a killed run had reached: its finished stages, and the states it would go on from."""
    done = len(list((workdir / "stages").glob("*.json")))
    states = [path for path in (workdir / "models").glob("*.state/*/*") if path.name.isdecimal()]
    at = max(states, key=lambda path: path.stat().st_mtime_ns, default=None)
    return f"{done} stages done" + (f", {at.parent.stem} at step {at.name}" if at else "")


def comparable(path: Path) -> dict[str, Any]:
    """A result file without what two equal runs may differ in: times, and the paths of the work directory."""
    result = json.loads(path.read_text())
    for field in ("created", "seconds", "command"):
        del result["provenance"][field]
    del result["provenance"]["config"]["workdir"]
    del result["digest"]  # of all of it, times and paths included
    return result


def differences(first: Path, second: Path) -> list[str]:
    """The names of the result files of two work directories that are not equal, or are in one only."""
    names = sorted({path.name for workdir in (first, second) for path in (workdir / "results").glob("*.json")})
    return [
        name
        for name in names
        if not all((workdir / "results" / name).exists() for workdir in (first, second))
        or comparable(first / "results" / name) != comparable(second / "results" / name)
    ]


def not_in_the_report(workdir: Path) -> list[str]:
    """The models that have a result and are not in the report."""
    board = (workdir / "report" / "leaderboard.json").read_text()
    names = sorted(path.stem for path in (workdir / "results").glob("*.json"))
    return [name for name in names if json.dumps(name) not in board]


class Process:
    """The command itself, in a process group of its own."""

    def __init__(self, config: str, workdir: Path):
        salmu = Path(sys.executable).with_name("salmu")
        workdir.parent.mkdir(parents=True, exist_ok=True)
        with open(workdir.parent / f"{workdir.name}.log", "ab") as log:
            self._process = subprocess.Popen(
                [salmu, "bench", "--config", config, "--workdir", workdir],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> int:
        return self._process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/mini.py")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--workdir", type=Path, required=True, help="a directory for both runs; what is there is removed"
    )
    options = parser.parse_args()
    undisturbed, killed = options.workdir / "undisturbed", options.workdir / "killed"
    for workdir in (undisturbed, killed):
        shutil.rmtree(workdir, ignore_errors=True)

    def start(workdir: Path) -> Process:
        return Process(options.config, workdir)

    began = time.monotonic()
    if start(undisturbed).wait() != 0:
        print(f"the undisturbed run failed, see {options.workdir}/undisturbed.log", file=sys.stderr)
        return 1
    seconds = time.monotonic() - began
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    began = time.monotonic()
    story = run_and_kill(start, killed, moments(options.kills, seconds, options.seed))
    for number, (life, state) in enumerate(story, 1):
        print(f"kill {number:2d}  after {life:6.1f} s  {state}")
    print(f"killed and started again: {time.monotonic() - began:.0f} s in all")
    different = differences(undisturbed, killed)
    count = len(list((undisturbed / "results").glob("*.json")))
    print(f"{count} result files: " + (f"DIFFERENT: {', '.join(different)}" if different else "all equal"))
    absent = not_in_the_report(undisturbed) + not_in_the_report(killed)
    print(f"in one report: {'all' if not absent else 'not ' + ', '.join(absent)}")
    return 1 if different or absent or not count else 0


if __name__ == "__main__":
    sys.exit(main())

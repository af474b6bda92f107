"""Kills a run again and again, and compares what it ends with.

    python tests/acceptance/kill_resume.py --config configs/mini.py --kills 10 --workdir DIR
    python tests/acceptance/kill_resume.py --config configs/tiny_runs.py --kills 10 --workdir DIR

An undisturbed run of ``salmu bench`` in DIR/undisturbed; then one in DIR/killed that is ended with SIGKILL at random moments
(``killing.py``, seeded) and started again each time. Exit status 1 if any result file of the two differs in anything but times
and the work directory, or is not in the report. The second config has three seeds of a method, one person's request, and a
relearning run on top of an unlearned model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import killing


def comparable(path: Path) -> dict[str, Any]:
    """A result file without what two equal runs may differ in: times, and the paths of the work directory."""
    result = json.loads(path.read_text())
    for field in ("created", "seconds", "command"):
        del result["provenance"][field]
    del result["provenance"]["config"]["workdir"]
    del result["digest"]  # of all of it, times and paths included
    return result


def differences(first: Path, second: Path) -> list[str]:
    """The result files of two work directories that are not equal, or are in one only."""
    return killing.differences(first, second, "results/*.json", comparable)


def not_in_the_report(workdir: Path) -> list[str]:
    """The models that have a result and are not in the report."""
    board = (workdir / "report" / "leaderboard.json").read_text()
    names = sorted(path.stem for path in (workdir / "results").glob("*.json"))
    return [name for name in names if json.dumps(name) not in board]


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

    def start(workdir: Path) -> killing.Process:
        return killing.Process(["bench", "--config", options.config, "--workdir", workdir], workdir.with_suffix(".log"))

    steps = killing.run_undisturbed(start(undisturbed), lambda: killing.stages_done(undisturbed))
    print(f"undisturbed: {steps[-1].seconds:.0f} s, {steps[-1].reached} stages", flush=True)
    planned = killing.moments(steps, options.kills, options.seed)
    story = killing.run_and_kill(lambda number: start(killed), lambda: killing.stages_done(killed), planned)
    print(killing.summary(story, "stage"))
    different = differences(undisturbed, killed)
    count = len(list((undisturbed / "results").glob("*.json")))
    print(f"{count} result files: " + (f"DIFFERENT: {', '.join(different)}" if different else "all equal"))
    absent = not_in_the_report(undisturbed) + not_in_the_report(killed)
    print(f"in one report: {'all' if not absent else 'not ' + ', '.join(absent)}")
    return 1 if different or absent or not count else 0


if __name__ == "__main__":
    sys.exit(main())

"""Kills a sweep again and again, and compares what it ends with.

    salmu bench --config configs/tiny.py
    python tests/acceptance/kill_sweep.py --config configs/sweep_tiny.py --from runs/tiny --kills 10 --workdir DIR

An undisturbed ``salmu sweep`` in a copy of the work directory ``--from``; then one in another copy that is ended with SIGKILL
at random moments (``killing.py``, seeded) and started again each time. Exit status 1 if the two ``sweep.json`` have different
digests: those are of the rule, every trial's figures and checkpoint, and what was chosen, and not of times.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import killing


def stages_done(workdir: Path) -> int:
    """How many stages the sweep has finished: the validation world, its Compromised, and two a trial."""
    return sum(map(killing.stages_done, (workdir / "sweep").glob("*")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/sweep_tiny.py")
    parser.add_argument("--from", dest="source", type=Path, required=True, help="a work directory with Compromised")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--workdir", type=Path, required=True, help="for both copies; what is there is removed")
    options = parser.parse_args()
    undisturbed, killed = options.workdir / "undisturbed", options.workdir / "killed"
    for workdir in (undisturbed, killed):
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(options.source, workdir, ignore=shutil.ignore_patterns("sweep"))

    def start(workdir: Path) -> killing.Process:
        return killing.Process(["sweep", "--config", options.config, "--workdir", workdir], workdir.with_suffix(".log"))

    steps = killing.run_undisturbed(start(undisturbed), lambda: stages_done(undisturbed))
    print(f"undisturbed: {steps[-1].seconds:.0f} s, {steps[-1].reached} stages", flush=True)
    planned = killing.moments(steps, options.kills, options.seed)
    story = killing.run_and_kill(lambda number: start(killed), lambda: stages_done(killed), planned)
    print(killing.summary(story, "stage"))
    found = [json.loads(path.read_text()) for path in sorted(options.workdir.glob("*/sweep/*/sweep.json"))]
    digests = [one["digest"] for one in found]
    same = len(digests) == 2 and len(set(digests)) == 1
    print(f"{found[0]['trials']} trials, digests: " + ("equal" if same else f"DIFFERENT: {digests}"))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

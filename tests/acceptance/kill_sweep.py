"""Kills a sweep again and again, and compares what it ends with.

    salmu bench --config configs/tiny.py
    python tests/acceptance/kill_sweep.py --config configs/sweep_tiny.py --from runs/tiny --kills 10 --workdir DIR

An undisturbed ``salmu sweep`` in a copy of the work directory ``--from``; then one in another copy that is ended with SIGKILL
at random moments (seeded) and started again each time. Exit status 1 if the two ``sweep.json`` have different digests: those
are of the rule, every trial's figures and checkpoint, and what was chosen, and not of times.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from kill_resume import moments, run_and_kill


class Process:
    """The command itself, in a process group of its own."""

    def __init__(self, config: str, workdir: Path):
        salmu = Path(sys.executable).with_name("salmu")
        with open(workdir.with_suffix(".log"), "ab") as log:
            self._process = subprocess.Popen(
                [salmu, "sweep", "--config", config, "--workdir", workdir],
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

    def start(workdir: Path) -> Process:
        return Process(options.config, workdir)

    began = time.monotonic()
    if start(undisturbed).wait() != 0:
        print(f"the undisturbed sweep failed, see {undisturbed}.log", file=sys.stderr)
        return 1
    seconds = time.monotonic() - began
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    story = run_and_kill(start, killed, moments(options.kills, seconds, options.seed))
    for number, (life, _) in enumerate(story, 1):
        print(f"kill {number:2d}  after {life:6.1f} s")
    found = [json.loads(path.read_text()) for path in sorted(options.workdir.glob("*/sweep/*/sweep.json"))]
    digests = [one["digest"] for one in found]
    same = len(digests) == 2 and len(set(digests)) == 1
    print(f"{found[0]['trials']} trials, digests: " + ("equal" if same else f"DIFFERENT: {digests}"))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

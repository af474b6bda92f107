"""Kills the making of a full-size data set again and again, and compares what it ends with.

    python tests/acceptance/kill_generate.py --kills 5 --workdir DIR [--undisturbed DIR] [--people N, or other options]

``salmu generate --config configs/salmu_full.py`` runs undisturbed, unless ``--undisturbed`` names the work directory of a run
that has ended. Then it runs in another work directory, where it is ended with SIGKILL at random moments (``killing.py``,
seeded) and started again each time. Exit status 1 if a file of the two data sets differs, or what a step says of its files'
digests.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import killing

from salmu_jax.runtime import files

COMPARED = ("*/step.json", "world/**/*.*")


def made(workdir: Path) -> Iterator[Path]:
    """Yields the files that the steps have finished. Those of the data set are links to them, and are left out."""
    for directory, folders, names in os.walk(workdir):
        if Path(directory) == workdir and "world" in folders:
            folders.remove("world")
        yield from (Path(directory, name) for name in names if ".partial-" not in name and not name.startswith("."))


def steps_of(workdir: Path) -> list[killing.Step]:
    """Returns the steps of a run that has ended: each file is one, at the time when it was written."""
    written = sorted(path.stat().st_mtime for path in made(workdir))
    began = (workdir / ".lock").stat().st_mtime
    ended = (workdir / "world" / "world.json").stat().st_mtime
    steps = [killing.Step(reached, seconds - began) for reached, seconds in enumerate([began, *written])]
    return [*steps, killing.Step(len(written), ended - began)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/salmu_full.py")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--workdir", type=Path, required=True, help="for the runs; what is there of them is removed")
    parser.add_argument("--undisturbed", type=Path, help="the work directory of a run that has ended")
    options, rest = parser.parse_known_args()
    killed = options.workdir / "killed"
    undisturbed = options.undisturbed or options.workdir / "undisturbed"

    def start(workdir: Path) -> killing.Process:
        arguments = ["generate", "--config", options.config, "--workdir", workdir, *rest]
        return killing.Process(arguments, workdir.with_suffix(".log"))

    def progress(workdir: Path) -> int:
        return sum(1 for _ in made(workdir))

    for workdir in {killed, undisturbed} - {options.undisturbed}:
        shutil.rmtree(workdir, ignore_errors=True)
    if options.undisturbed:
        steps = steps_of(undisturbed)
    else:
        steps = killing.run_undisturbed(start(undisturbed), lambda: progress(undisturbed))
    print(f"undisturbed: {steps[-1].seconds:.0f} s, {steps[-1].reached} files", flush=True)
    planned = killing.moments(steps, options.kills, options.seed)
    story = killing.run_and_kill(lambda number: start(killed), lambda: progress(killed), planned)
    print(killing.summary(story, "file"))
    count = {name: sum(1 for path in undisturbed.glob(name) if path.is_file()) for name in COMPARED}
    different = [
        name for pattern in COMPARED for name in killing.differences(undisturbed, killed, pattern, files.sha256_file)
    ]
    print(f"{count[COMPARED[0]]} steps and {count[COMPARED[1]]} files of the data set: ", end="")
    print(f"DIFFERENT: {', '.join(different)}" if different else "all equal")
    return 1 if different or not all(count.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

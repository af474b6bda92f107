"""Kills a sequence of deletion requests again and again, and compares the tables that it ends with.

    python tests/acceptance/kill_forget.py --config configs/mini.py --workdir runs/mini --requests 3 --kills 10 --output DIR

Needs a finished ``salmu pretrain --model compromised`` in the work directory. ``salmu forget --requests`` of so many people
runs undisturbed into DIR/undisturbed; then into DIR/killed, where it is ended with SIGKILL at random moments (``killing.py``,
seeded) and started again each time. Exit status 1 if any answer or table of the two differs in anything but times and paths.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import killing

from salmu_jax.unlearning import view


def comparable(path: Path) -> dict[str, Any]:
    """An answer or a table without what two equal runs may differ in: times, and the paths of the directory."""
    value = json.loads(path.read_text())
    del value["made"]
    if "models" in value:
        del value["models"]["seconds"], value["models"]["results"]
    for step in value.get("steps", ()):
        del step["seconds"]
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/mini.py")
    parser.add_argument("--workdir", type=Path, default=Path("runs/mini"))
    parser.add_argument("--requests", type=int, default=3, help="the people of forget who ask, the first by their ids")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, required=True, help="for both runs; what is there of them is removed")
    options, rest = parser.parse_known_args()
    undisturbed, killed = options.output / "undisturbed", options.output / "killed"
    for output in (undisturbed, killed):
        shutil.rmtree(output, ignore_errors=True)
    options.output.mkdir(parents=True, exist_ok=True)
    people = sorted(set(view.read_columns(options.workdir / "datasets", view.FORGET, "identity_id")["identity_id"]))
    asked = options.output / "requests.jsonl"
    asked.write_text("".join(f"{json.dumps({'identity': one})}\n" for one in people[: options.requests]))
    checkpoint = options.workdir / "models" / "compromised"
    arguments = ["--config", options.config, "--workdir", options.workdir, "--checkpoint", checkpoint]
    arguments += ["--requests", asked, *rest]

    def start(output: Path) -> killing.Process:
        return killing.Process(["forget", *arguments, "--output", output], output.with_suffix(".log"))

    steps = killing.run_undisturbed(start(undisturbed), lambda: killing.stages_done(undisturbed))
    print(f"undisturbed: {steps[-1].seconds:.0f} s, {steps[-1].reached} stages", flush=True)
    planned = killing.moments(steps, options.kills, options.seed)
    story = killing.run_and_kill(lambda number: start(killed), lambda: killing.stages_done(killed), planned)
    print(killing.summary(story, "stage"))
    different = killing.differences(undisturbed, killed, "request*.json", comparable)
    count = len(list(undisturbed.glob("request*.json")))
    print(f"{count} answers and tables: " + (f"DIFFERENT: {', '.join(different)}" if different else "all equal"))
    return 1 if different or not count else 0


if __name__ == "__main__":
    sys.exit(main())

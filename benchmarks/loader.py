"""Our input pipeline against OpenCLIP's: ``python -m benchmarks.loader --workdir DIR --output result.json``.

Both read the same pairs with as many worker processes on the same cores: JPEGs of 512 pixels to random crops of 224,
captions to token rows, and both to batches. Each side has a process of its own; they take turns, an epoch each, and the other
one sleeps. Every epoch both must have seen the same pairs exactly once. ``--profile`` says instead where the time of
our side goes; ``benchmarks.decoders`` compares decoders of JPEGs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import loader_data, loader_profile
from benchmarks.loader_sides import SIDES, LoaderSpec
from benchmarks.run import ROOT, machine, summary
from salmu_jax.runtime import files

PIXELS_TOLERANCE = 0.1  # of the mean of normalised pixels over some thousand crops of different pictures


class Side:
    """A running process of one loader."""

    def __init__(self, name: str, spec: LoaderSpec):
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment |= {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        command = [sys.executable, "-m", "benchmarks.loader_sides", name, json.dumps(dataclasses.asdict(spec))]
        pipe = subprocess.PIPE
        self._name = name
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.facts = self._answer()

    def run(self, index: int) -> dict[str, Any]:
        """Reads an epoch: ``{"seconds", "cpu_seconds", "value", "pixels"}``."""
        print(index, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            sys.exit(f"the side {self._name} ended with {self._process.wait()}; its message is above")
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()


def measure(spec: LoaderSpec, rounds: int, warmup: int) -> dict[str, Any]:
    """Runs ``warmup`` epochs that do not count, then ``rounds`` that do, on both sides, which take turns in going first."""
    sides = {name: Side(name, spec) for name in SIDES}
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    problems = []
    for index in range(warmup + rounds):
        order = list(SIDES) if index % 2 == 0 else list(SIDES)[::-1]
        found = {name: sides[name].run(index) for name in order}
        values = [found[name]["value"] for name in SIDES]
        if values[0] != values[1] or values[0][0] != spec.pairs:
            problems.append(f"round {index}: the sides saw {values}")
        if abs(found["ours"]["pixels"] - found["open_clip"]["pixels"]) > PIXELS_TOLERANCE:
            problems.append(f"round {index}: mean pixels {[found[name]['pixels'] for name in SIDES]}")
        if index >= warmup:
            for name in SIDES:
                answers[name].append(found[name])
        rates = "  ".join(f"{name} {rate(spec, found[name]['seconds']):,.0f} pairs/s" for name in SIDES)
        print(f"round {index}{' (not counted)' if index < warmup else ''}: {rates}", flush=True)
    for side in sides.values():
        side.close()
    ratios = [
        theirs["seconds"] / mine["seconds"] for mine, theirs in zip(answers["ours"], answers["open_clip"], strict=True)
    ]
    result: dict[str, Any] = {"ratio": summary(ratios), "problems": problems, "rounds": rounds}
    for name, epochs in answers.items():
        timed = spec.pairs - spec.skip * spec.batch
        result[name] = {
            "pairs_per_second": summary([rate(spec, one["seconds"]) for one in epochs]),
            "cpu_ms_per_pair": summary([1000 * one["cpu_seconds"] / timed for one in epochs]),
            "seconds": [one["seconds"] for one in epochs],
            "versions": sides[name].facts["versions"],
        }
    return result


def rate(spec: LoaderSpec, seconds: float) -> float:
    """Timed pairs a second."""
    return (spec.pairs - spec.skip * spec.batch) / seconds


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="where the pairs are made; kept, and used again")
    parser.add_argument("--pairs", type=int, default=8_000)
    parser.add_argument("--tars", type=int, default=8)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2, help="processes that decode, on each side")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=1, help="epochs that do not count")
    parser.add_argument("--profile", action="store_true", help="where the time of our side goes, in one process")
    parser.add_argument("--output", type=Path, help="where to write the JSON")
    options = parser.parse_args(arguments)
    share = options.tars // options.workers * (options.pairs // options.tars) if options.workers > 0 else 0
    if options.pairs % options.tars or options.tars % options.workers or share % options.batch:
        parser.error("every worker needs whole tars, and these whole batches, or OpenCLIP reads pairs twice")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measures; the exit code is 1 if the two sides did not see the same pairs."""
    options = parse(arguments)
    loader_data.make(options.workdir, options.pairs, options.tars)
    spec = LoaderSpec(
        os.fspath(options.workdir), options.pairs, options.tars, options.batch, options.workers, options.cores
    )
    report: dict[str, Any] = {
        "command": "python -m benchmarks.loader " + " ".join(sys.argv[1:] if arguments is None else arguments),
        "machine": machine(),
        "spec": dataclasses.asdict(spec),
    }
    if options.profile:
        report["profile"] = loader_profile.profile(spec)
        print("\n".join(loader_profile.lines(report["profile"])))
    else:
        report |= measure(spec, options.rounds, options.warmup)
        ratio = report["ratio"]
        for name in SIDES:
            print(f"{name}: {report[name]['pairs_per_second']['median']:,.0f} pairs/s", end=", ")
            print(f"{report[name]['cpu_ms_per_pair']['median']:.2f} ms of CPU time a pair")
        print(f"ratio {ratio['median']:.2f} ({ratio['first_quartile']:.2f} to {ratio['third_quartile']:.2f})")
        print(*report["problems"], sep="\n", end="")
    report["load_at_end"] = os.getloadavg()
    if options.output:
        files.write_json(options.output, report)
    return 1 if report.get("problems") else 0


if __name__ == "__main__":
    sys.exit(main())

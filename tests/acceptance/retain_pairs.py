"""Builds retain pairs of many tars, and checks what a build promises: after kills, of bad samples, in memory, by any runner.

    python tests/acceptance/retain_pairs.py --workdir DIR                          # 200,000 pairs in 40 tars, all parts
    python tests/acceptance/retain_pairs.py --workdir DIR --pairs 4000 --tars 8 --only quarantine,kills
    python tests/acceptance/retain_pairs.py --workdir DIR --only runners --runner DirectRunner --runner MODULE.CLASS

quarantine    the samples that were planted are in the quarantine file, and nothing else is
kills         killed at random moments (``killing.py``) and started again, the result is that of an undisturbed build
speed         two processes against one, alternating, medians: by the clock, and in seconds of the processors
memory        peak resident memory of the largest process with a part of the tars, and with all
runners       each ``--runner`` of Apache Beam gives the same bytes

The source is made once, below ``--workdir``. The exit status is 1 if anything but the speed is not as promised.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import killing
import web_tars
from web_pairs import tree

PARTS = ("quarantine", "kills", "speed", "memory", "runners")
DATA = "retain_pairs/1.0.0"
_GROWTH = 1.1  # of the peak memory from a few tars to all: what is kept of each tar is its record
_PEAK = """
import json, resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(json.dumps([status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024]))
"""


def main() -> int:
    options = _options()
    source, undisturbed = options.workdir / "source", options.workdir / "undisturbed"
    made = options.workdir / "planted.jsonl"
    if not made.is_file():
        shutil.rmtree(source, ignore_errors=True)
        began = time.monotonic()
        web_tars.write_source(source, options.pairs, options.tars, options.bad)
        print(f"source: {options.pairs:,} pairs in {options.tars} tars, {time.monotonic() - began:.0f} s", flush=True)
    steps = None
    if not (undisturbed / DATA / "dataset_info.json").is_file() or "kills" in options.only:
        shutil.rmtree(undisturbed, ignore_errors=True)
        running = killing.Process(command(source, undisturbed), options.workdir / "undisturbed.log")
        steps = killing.run_undisturbed(running, lambda: parts_done(undisturbed))
        print(f"undisturbed: {steps[-1].seconds:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    right = True
    if "quarantine" in options.only:
        right &= quarantine(undisturbed, made, options.pairs)
    if "kills" in options.only and steps:
        right &= kills(options, source, undisturbed, steps)
    if "speed" in options.only:
        speed(options, source)
    if "memory" in options.only:
        right &= memory(options, source)
    for runner in options.runner if "runners" in options.only else ():
        right &= by_runner(options, source, undisturbed, runner)
    return 0 if right else 1


def command(source: Path, out: Path, *more: str) -> list[str]:
    return ["data", "retain", str(source), "--output", str(out), "--max-bad-share", "0.5", *more]


def parts_done(out: Path) -> int:
    return len(list((out / "retain_pairs-records").glob("*.json")))


def quarantine(out: Path, planted: Path, pairs: int) -> bool:
    """Compares the quarantine file with what was planted, line by line, and the number of pairs."""
    with open(out / DATA / "quarantine.jsonl", encoding="utf-8") as lines:
        found = [{name: line[name] for name in ("part", "key", "kind")} for line in map(json.loads, lines)]
    with open(planted, encoding="utf-8") as lines:
        expected = [json.loads(line) for line in lines]
    kept = json.loads((out / DATA / "report.json").read_text())["counts"]["pairs"]
    right = found == expected and kept == pairs - len(expected)
    print(
        f"quarantine: {len(found):,} of {len(expected):,} planted, {kept:,} pairs kept: {_verdict(right)}", flush=True
    )
    return right


def kills(options: argparse.Namespace, source: Path, undisturbed: Path, steps: Sequence[killing.Step]) -> bool:
    """Kills a build at random moments, and compares every file of the result."""
    out = options.workdir / "killed"
    shutil.rmtree(out, ignore_errors=True)

    def start(number: int) -> killing.Process:
        return killing.Process(command(source, out), options.workdir / "killed.log")

    planned = killing.moments(steps, options.kills, options.seed)
    story = killing.run_and_kill(start, lambda: parts_done(out), planned)
    right = tree(out) == tree(undisturbed)
    print(f"kills: {killing.summary(story, 'part')}; the bytes are {_verdict(right)}", flush=True)
    shutil.rmtree(out)
    return right


def speed(options: argparse.Namespace, source: Path) -> None:
    """Times whole builds with one process and with two, in turn, starting up included.

    The time from the first finished part to the last leaves starting up out. Processor time tells what several processes cost
    beside one where other work makes the clock useless.
    """
    seconds: dict[int, list[float]] = {1: [], 2: []}
    steady: dict[int, list[float]] = {1: [], 2: []}
    busy: dict[int, list[float]] = {1: [], 2: []}
    some, pairs = options.workdir / "some", options.pairs * options.speed_tars / options.tars
    _link(source, some, options.speed_tars)
    for number in range(options.rounds):
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            out = options.workdir / "timed"
            shutil.rmtree(out, ignore_errors=True)
            began, used = time.monotonic(), _processor_time()
            _salmu(command(some, out, "--workers", str(workers)))
            seconds[workers].append(time.monotonic() - began)
            busy[workers].append(_processor_time() - used)
            ended = [path.stat().st_mtime for path in (out / "retain_pairs-records").iterdir()]
            steady[workers].append(max(ended) - min(ended))
            print(
                f"speed: {workers} workers {seconds[workers][-1]:6.1f} s, from the first part to the last"
                f" {steady[workers][-1]:6.1f} s, of processors {busy[workers][-1]:6.1f} s, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            shutil.rmtree(out)
    for what, times in (("whole", seconds), ("first part to last", steady), ("of processors", busy)):
        one, two = (statistics.median(times[workers]) for workers in (1, 2))
        print(
            f"speed, {what}: medians {one:.1f} s and {two:.1f} s: {one / two:.2f} times; {pairs / one:,.0f} and"
            f" {pairs / two:,.0f} pairs/s",
            flush=True,
        )


def _processor_time() -> float:
    """Returns the seconds of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _link(source: Path, some: Path, count: int) -> None:
    """Fills a directory with the first ``count`` tars of a source."""
    shutil.rmtree(some, ignore_errors=True)
    for tar in sorted(source.rglob("*.tar"))[:count]:
        (some / tar.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        os.link(tar, some / tar.relative_to(source))


def memory(options: argparse.Namespace, source: Path) -> bool:
    """Measures builds of the first tars, and of all; each in processes of its own."""
    peaks = []
    for count in sorted({max(options.tars // 8, 1), max(options.tars // 2, 1), options.tars}):
        some, out = options.workdir / "some", options.workdir / "measured"
        shutil.rmtree(out, ignore_errors=True)
        _link(source, some, count)
        asked = [sys.executable, "-m", "salmu_jax.cli", *command(some, out, "--workers", "1")]
        ended = subprocess.run([sys.executable, "-c", _PEAK, *asked], stdout=subprocess.PIPE, text=True, check=True)
        status, peak = json.loads(ended.stdout.splitlines()[-1])
        if status:
            raise RuntimeError(f"a build of {count} tars ended with status {status}")
        peaks.append(peak)
        print(f"memory: {count:3d} tars, {peak / 2**20:.0f} MiB", flush=True)
        for directory in (some, out):
            shutil.rmtree(directory)
    right = peaks[-1] <= _GROWTH * peaks[0]
    print(f"memory: {peaks[-1] / peaks[0]:.2f} times from the fewest tars to all: {_verdict(right)}", flush=True)
    return right


def by_runner(options: argparse.Namespace, source: Path, undisturbed: Path, runner: str) -> bool:
    """Builds with another runner, and compares every file."""
    out = options.workdir / "by_runner"
    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    _salmu(command(source, out, "--runner", runner, f"--beam-options={options.beam_options}"))
    seconds = time.monotonic() - began
    right = tree(out) == tree(undisturbed)
    print(f"runner {runner}: {seconds:.1f} s; the bytes are {_verdict(right)}", flush=True)
    shutil.rmtree(out)
    return right


def _salmu(arguments: Sequence[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "salmu_jax.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])


def _verdict(right: bool) -> str:
    return "as they should be" if right else "DIFFERENT"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--tars", type=int, default=40)
    parser.add_argument("--bad", type=float, default=0.01, help="the share of samples that are planted")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3, help="of the speed")
    parser.add_argument("--speed-tars", type=int, help="how many of the tars the speed is measured with (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", default=",".join(PARTS), help="which parts, with commas")
    parser.add_argument("--runner", action="append", default=[], help="of Apache Beam; may be repeated")
    parser.add_argument("--beam-options", default="", help="of the runners")
    options = parser.parse_args()
    options.only = options.only.split(",")
    options.speed_tars = options.speed_tars or options.tars
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"--only: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())

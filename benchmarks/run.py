"""Ours against PyTorch, each in a process of its own, run alternately: ``python -m benchmarks.run --output result.json``.

A process pays for its start, its compilation and its warm-up once, and sleeps while the other one works, so that both have
the whole machine and see the same neighbours. The ratio of a round is PyTorch's time over ours: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import first_step
from benchmarks.side import UNLEARNING_TASKS, Spec
from salmu_jax.runtime import files

ROOT = Path(__file__).parent.parent
SIDES = ("jax", "torch")
# Name: rows on a CPU, what a row is, the threads that it is measured with (None: --threads), the tolerance of its value.
TASKS: dict[str, tuple[int, str, int | None, float]] = {
    "matmul": (2048, "product", None, 1e-4),
    "train": (8, "pair", None, 1e-3),
    "image": (8, "image", None, 1e-3),
    "text": (16, "caption", None, 1e-3),
    "text_long": (16, "caption", None, 1e-3),
    "loss": (4096, "pair", None, 1e-4),
    "loss_chunked": (4096, "pair", None, 1e-4),
    "tokenizer": (4000, "caption", 1, 0.0),
    "tokenizer_repeated": (4000, "caption", 1, 0.0),
    "preprocess": (32, "image", 1, 1e-2),
    "evaluate": (64, "image", None, 1e-3),
    "evaluate_cached": (64, "image", None, 1e-3),
    **{name: (2 if name.startswith("redirect") else 8, "row", None, 1e-3) for name in UNLEARNING_TASKS},
}
# Image files to embeddings; measured by benchmarks/evaluate.py. (UNLEARNING_TASKS are, by benchmarks/unlearning.py.)
EVALUATION_TASKS = ("evaluate", "evaluate_cached")
HOST_TASKS = ("tokenizer", "tokenizer_repeated", "preprocess")
BFLOAT16_TOLERANCE = 0.1


class Side:
    """A running process of one framework; its answers are JSON lines."""

    def __init__(self, framework: str, spec: Spec):
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment |= {name: str(spec.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        if framework == "torch" or spec.device == "cpu":
            environment["JAX_PLATFORMS"] = "cpu"
        if spec.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        command = [sys.executable, "-m", f"benchmarks.{framework}_side", json.dumps(dataclasses.asdict(spec))]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self._framework = framework
        self.facts: dict[str, Any] = {}

    def wait_until_ready(self) -> None:
        self.facts = self._answer()

    def run(self, index: int) -> dict[str, Any]:
        """One timed run: ``{"seconds", "value"}``."""
        print(index, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the {self._framework} side ended with {self._process.wait()}; its message is above")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@contextlib.contextmanager
def both_sides(spec: Spec) -> Iterator[dict[str, Side]]:
    with contextlib.ExitStack() as stack:
        sides = {}
        for framework in SIDES:
            sides[framework] = Side(framework, spec)
            stack.callback(sides[framework].close)
            if spec.device == "cpu":  # where they would get into each other's way; a GPU's sides compile on other cores
                sides[framework].wait_until_ready()
        if spec.device == "gpu":
            for side in sides.values():
                side.wait_until_ready()
        yield sides


def measure(spec: Spec, rounds: int, warmup: int) -> dict[str, Any]:
    """``warmup`` rounds that do not count, then ``rounds`` that do; each runs both sides, taking turns in going first."""
    seconds: dict[str, list[float]] = {framework: [] for framework in SIDES}
    difference = 0.0
    with both_sides(spec) as sides:
        check_first_step(spec, {framework: sides[framework].facts for framework in SIDES})
        for index in range(warmup + rounds):
            order = SIDES if index % 2 == 0 else SIDES[::-1]
            answers = {framework: sides[framework].run(index) for framework in order}
            values = [answers[framework]["value"] for framework in SIDES]
            if index == 0 or spec.dtype == "float32":  # rounded to bfloat16, training soon takes another path
                difference = max(difference, *(abs(a - b) for a, b in zip(*values, strict=True)))
            if index >= warmup:
                for framework in SIDES:
                    seconds[framework].append(answers[framework]["seconds"])
        facts = {framework: sides[framework].facts for framework in SIDES}
    ratios = [theirs / ours for ours, theirs in zip(seconds["jax"], seconds["torch"], strict=True)]
    result = {"task": spec.name, "spec": dataclasses.asdict(spec), "rounds": rounds, "ratio": summary(ratios)}
    for framework in SIDES:
        result[framework] = {"seconds": summary(seconds[framework]), "all_seconds": seconds[framework]}
        result[framework]["rows_per_second"] = spec.batch / result[framework]["seconds"]["median"]
        extra = {key: value for key, value in facts[framework].items() if key not in ("versions", "first_step")}
        result[framework] |= extra
    tolerance = BFLOAT16_TOLERANCE if spec.dtype == "bfloat16" else TASKS[spec.name][3]
    result["values"] = {"max_difference": difference, "tolerance": tolerance, "equal": difference <= tolerance}
    return result | {"load_at_end": os.getloadavg(), "facts": facts}


def check_first_step(spec: Spec, facts: dict[str, dict[str, Any]]) -> None:
    """Ends the program, with code 1, if both sides took a step in float32 before the first round and it differs."""
    steps = [facts[framework].get("first_step") for framework in SIDES]
    if spec.dtype == "float32" and all(steps) and (found := first_step.differences(*steps)):
        more = f", and {len(found) - 3} more" if len(found) > 3 else ""
        sys.exit(f"{spec.name}: the first steps of the two sides differ: {'; '.join(found[:3])}{more}")


def summary(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return dict(zip(("first_quartile", "median", "third_quartile"), quartiles, strict=True))


def add_utilisation(results: list[dict[str, Any]], device: str) -> float | None:
    """Adds each side's MFU; of the published bfloat16 peak on a GPU, on a CPU of the faster side's large product.

    By what the model needs, and by what it takes to compute every position, as is usually counted: of the last blocks, which
    are read at one, and those after the end of a caption.
    """
    peak = next((result["jax"]["published_peak"] for result in results), None)
    if device == "cpu":
        products = [result for result in results if result["task"] == "matmul"]
        rates = [
            result["jax"]["flops"] / result[side]["seconds"]["first_quartile"] for result in products for side in SIDES
        ]
        peak = max(rates, default=None)
    for result in results:
        for count, name in (("flops", "mfu"), ("flops_every_position", "mfu_every_position")):
            flops = result["jax"].get(count)
            for side in SIDES:
                if flops and peak:
                    result[side][name] = flops / result[side]["seconds"]["median"] / peak
    return peak


def machine() -> dict[str, Any]:
    """The processor, and how busy it was at the start."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform(), "load_at_start": os.getloadavg()}


def line_of(result: dict[str, Any]) -> str:
    """A row of the printed table."""
    ratio, unit = result["ratio"], TASKS[result["task"]][1]
    rates = " ".join(f"{result[side]['rows_per_second']:10.2f}" for side in SIDES)
    quartiles = f"{ratio['first_quartile']:.2f} - {ratio['third_quartile']:.2f}"
    same = "" if result["values"]["equal"] else f"  VALUES DIFFER by {result['values']['max_difference']:.3g}"
    name = f"{result['task']} {result['spec']['batch']}"
    return f"{name:32} {rates} {unit + 's/s':12} {ratio['median']:6.2f} ({quartiles}){same}"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--tasks", help=f"comma-separated, of {', '.join(TASKS)}")
    parser.add_argument("--model", default="ViT-B-16", help="an architecture of salmu_jax.models.zoo")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of the products; by default bfloat16 on a GPU"
    )
    parser.add_argument(
        "--batches", help="comma-separated rows of a run, for every task; by default those of README.md"
    )
    parser.add_argument("--threads", type=int, help="cores of each side; by default 2, with a GPU all")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=2, help="rounds that do not count")
    parser.add_argument("--output", type=Path, help="where to write the JSON")
    options = parser.parse_args(arguments)
    default = [name for name in TASKS if options.device == "cpu" or name not in HOST_TASKS]
    default = [name for name in default if name not in (*EVALUATION_TASKS, *UNLEARNING_TASKS)]
    options.tasks = options.tasks.split(",") if options.tasks else default
    unknown = [name for name in options.tasks if name not in TASKS]
    if unknown:
        parser.error(f"unknown task {', '.join(unknown)}; there are {', '.join(TASKS)}")
    options.dtype = options.dtype or ("bfloat16" if options.device == "gpu" else "float32")
    options.threads = options.threads or (2 if options.device == "cpu" else os.cpu_count())
    options.batches = [int(rows) for rows in options.batches.split(",")] if options.batches else []
    if options.rounds < 1 or options.warmup < 0 or options.rounds + options.warmup > 32:
        parser.error("--rounds has to be 1 or more, and with --warmup at most 32 (the sets of captions)")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs the tasks; the exit code is 1 if a task's two sides did not compute the same."""
    options = parse(arguments)
    report: dict[str, Any] = {
        "command": "python -m benchmarks.run " + " ".join(sys.argv[1:] if arguments is None else arguments),
        "machine": machine(),
        "versions": {},
        "results": [],
    }
    print(f"{'':32} {'jax':>10} {'torch':>10} {'':12} torch time / jax time (quartiles)", flush=True)
    for name in options.tasks:
        rows, _, threads, _ = TASKS[name]
        for batch in options.batches or [rows]:
            spec = Spec(name, options.device, batch, threads or options.threads, options.model, options.dtype)
            result = measure(spec, options.rounds, options.warmup)
            for facts in result.pop("facts").values():
                report["versions"] |= facts["versions"]
            report["results"].append(result)
            print(line_of(result), flush=True)
    report["peak_flops"] = add_utilisation(report["results"], options.device)
    if options.output:
        files.write_json(options.output, report)
    return 0 if all(result["values"]["equal"] for result in report["results"]) else 1


if __name__ == "__main__":
    sys.exit(main())

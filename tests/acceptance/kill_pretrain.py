"""Kills a pretraining ten times, goes on each time, the last times on other numbers of devices, and compares the parameters.

    python tests/acceptance/kill_pretrain.py --config configs/mini.py --workdir DIR

Trains *clean* undisturbed on one (fake CPU) device. Then twice more, ended with SIGKILL ten times, each time a random moment
after a further state was saved: once always on one device, whose parameters have to be equal bit for bit; and once with the
last three starts on 2, 4 and 1 devices, whose parameters may differ by 1e-5. Exit status 1 if they differ by more.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

PLANS = {"one device": ([1] * 10, 1, 0.0), "2, 4 and 1 devices in the end": ([1] * 8 + [2, 4], 1, 1e-5)}


def start(workdir: Path, config: str, devices: int, stage: str = "pretrain") -> subprocess.Popen:
    """Runs a stage of ``salmu`` on so many fake devices."""
    arguments = [stage, "--config", config, "--workdir", str(workdir)] + ["--model", "clean"] * (stage == "pretrain")
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    log = open(workdir.with_suffix(".log"), "a")  # noqa: SIM115 (the process outlives this call)
    return subprocess.Popen(
        [sys.executable, "-m", "salmu_jax.cli", *arguments], env=environment, stdout=log, stderr=log
    )


def finish(process: subprocess.Popen) -> None:
    """Waits. Raises RuntimeError if it ends badly."""
    if status := process.wait():
        raise RuntimeError(f"a run ended with status {status}")


def newest_state(workdir: Path) -> int:
    """The step of the newest saved state, 0 without one."""
    return max(
        (int(path.name) for path in (workdir / "models" / "clean.state").glob("*/*") if path.name.isdecimal()),
        default=0,
    )


def kill_after_a_state(workdir: Path, config: str, devices: int, delay: float) -> bool:
    """Starts a run and kills it ``delay`` seconds after it has saved a state; False if it had ended by itself."""
    reached, process = newest_state(workdir), start(workdir, config, devices)
    while process.poll() is None and newest_state(workdir) <= reached:
        time.sleep(0.05)
    time.sleep(delay)
    landed = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    print(
        f"  killed on {devices} device(s), newest state {newest_state(workdir)}" if landed else "  had ended",
        flush=True,
    )
    return landed


def largest_difference(one: Path, other: Path) -> float:
    """The largest absolute difference of a parameter."""
    import jax

    from salmu_jax.training.checkpoint import load_model

    pairs = zip(*(jax.tree.leaves(load_model(path / "models" / "clean")[1]) for path in (one, other)), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/mini.py")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plan", action="append", choices=PLANS, help="only this one; may be repeated")
    options = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    options.workdir.mkdir(parents=True)
    data, draw, failed = options.workdir / "undisturbed", random.Random(options.seed), False
    for stage in ("generate", "build"):
        finish(start(data, options.config, 1, stage))
    plans = {name: PLANS[name] for name in options.plan or PLANS}
    copies = [shutil.copytree(data, options.workdir / f"killed-{index}") for index in range(len(plans))]
    finish(start(data, options.config, 1))
    for copy, (name, (devices, last, tolerance)) in zip(copies, plans.items(), strict=True):
        print(f"{name}:", flush=True)
        landed = sum(kill_after_a_state(copy, options.config, count, draw.uniform(0, 2)) for count in devices)
        finish(start(copy, options.config, last))
        difference = largest_difference(data, copy)
        failed |= not difference <= tolerance
        print(
            f"  {landed} kills landed; largest difference of a parameter {difference:.1e}, allowed {tolerance:.0e}",
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

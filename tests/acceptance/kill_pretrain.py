"""Kills a pretraining ten times, goes on each time, the last times on other numbers of devices, and compares the parameters.

    python tests/acceptance/kill_pretrain.py --config configs/mini.py --workdir DIR

Trains *clean* undisturbed on one (fake CPU) device. Then twice more, ended with SIGKILL ten times at random moments
(``killing.py``, seeded): once always on one device, whose parameters have to be equal bit for bit; and once with the
last three starts on 2, 4 and 1 devices, whose parameters may differ by 1e-5. Exit status 1 if they differ by more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import killing
import numpy as np

PLANS = {"one device": ([1] * 11, 0.0), "2, 4 and 1 devices in the end": ([1] * 8 + [2, 4, 1], 1e-5)}  # a start each


def newest_state(workdir: Path) -> int:
    """The step of the newest saved state, 0 without one."""
    return max(
        (int(path.name) for path in (workdir / "models" / "clean.state").glob("*/*") if path.name.isdecimal()),
        default=0,
    )


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
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--plan", action="append", choices=PLANS, help="only this one; may be repeated")
    options = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    options.workdir.mkdir(parents=True)
    undisturbed, failed = options.workdir / "undisturbed", False

    def start(workdir: Path, *stage: str, devices: int = 1) -> killing.Process:
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        arguments = [*stage, "--config", options.config, "--workdir", workdir]
        return killing.Process(arguments, workdir.with_suffix(".log"), flags)

    for stage in ("generate", "build"):
        killing.run_undisturbed(start(undisturbed, stage), lambda: 0)
    plans = {name: PLANS[name] for name in options.plan or PLANS}
    copies = [shutil.copytree(undisturbed, options.workdir / f"killed-{index}") for index in range(len(plans))]
    pretrain = ("pretrain", "--model", "clean")
    steps = killing.run_undisturbed(start(undisturbed, *pretrain), lambda: newest_state(undisturbed))
    print(f"undisturbed: {steps[-1].seconds:.0f} s, {len(steps) - 2} states", flush=True)
    for copy, (name, (devices, tolerance)) in zip(copies, plans.items(), strict=True):
        print(f"{name}:", flush=True)

        def start_copy(number: int, copy: Path = copy, devices: list[int] = devices) -> killing.Process:
            return start(copy, *pretrain, devices=devices[number])

        planned = killing.moments(steps, len(devices) - 1, options.seed)
        story = killing.run_and_kill(start_copy, lambda copy=copy: newest_state(copy), planned)
        difference = largest_difference(undisturbed, copy)
        failed |= not difference <= tolerance
        print(killing.summary(story, "state"))
        print(f"largest difference of a parameter {difference:.1e}, allowed {tolerance:.0e}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

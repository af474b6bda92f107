"""The loop that drives a step over batches: pretraining and unlearning share it.

The order of a resume, by cases:

1. a state of this run is in the store: parameters, optimizer and step come from the newest intact one, and the data goes on
   at that step (the batches are a function of the seed and the step alone, so nothing is replayed or skipped);
2. there is none, or it belongs to a run of another config: the run starts at step 0.

Steps are grouped into device calls of ``steps_per_call`` (a scan), which start at multiples of it whatever was interrupted,
so that a resumed run executes the very same programs on the very same inputs, and ends with the same bits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from salmu_jax import files
from salmu_jax.errors import InputError
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.checkpoint import StateStore
from salmu_jax.training.progress import Progress, is_main_process
from salmu_jax.training.step import scan_steps

Batches = Callable[[int], Iterator[Any]]


def run(
    step: Callable[..., tuple[Any, dict[str, jax.Array]]],
    state: Any,
    batches: Batches,
    *,
    total_steps: int,
    steps_per_call: int,
    batch_size: int,
    mesh: Mesh,
    store: StateStore,
    save_every: int,
    history: History,
    label: str,
    constants: tuple[Any, ...] = (),
) -> Any:
    """Runs ``step`` until ``state.step`` is ``total_steps`` and returns the final state.

    Args:
      step: ``step(state, batch, *constants) -> (state, metrics)``, pure; metrics are scalars, those
        whose names begin with ``loss`` have to stay finite.
      state: a fresh state with a field ``step``; its shardings are kept.
      batches: ``batches(first_step)`` yields pytrees of numpy arrays [B, ...], this process's share.
      total_steps: a multiple of ``steps_per_call``, see :func:`whole_calls`.
      batch_size: pairs of a step over all processes, for the progress line.
      store: where states are saved every ``save_every`` steps and restored from.
      history: keeps the metrics of every call.
      constants: further arguments of ``step`` that never change (reference parameters).

    Raises:
      InputError: the loss is not finite; the last good state is kept.
    """
    restored = store.restore(state)
    state = state if restored is None else restored
    done = int(state.step)
    history.truncate(done)
    if done and is_main_process():
        print(f"{label}: going on at step {done:,} of {total_steps:,}", flush=True)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    call = jax.jit(
        lambda state, stack, *constants: scan_steps(lambda s, b: step(s, b, *constants))(state, stack),
        donate_argnums=0,
        out_shardings=(shardings, None),
    )
    progress = Progress(label, total_steps, done)
    iterator = batches(done)
    with mesh_lib.use(mesh):
        while done < total_steps:
            began = time.monotonic()
            local = [next(iterator) for _ in range(steps_per_call)]
            stack = mesh_lib.put_batch(jax.tree.map(lambda *leaves: np.stack(leaves), *local), mesh, leading=1)
            progress.waited(time.monotonic() - began)

            state, metrics = call(state, stack, *constants)
            done += steps_per_call
            metrics = {name: np.asarray(value) for name, value in metrics.items()}  # waits for the device
            _check_finite(metrics, done - steps_per_call, label)
            latest = {name: float(value[-1]) for name, value in metrics.items()}
            history.add(done, latest)
            progress.update(done, steps_per_call * batch_size, latest)
            if done % save_every < steps_per_call or done == total_steps:
                store.save(done, state)
    return state


def whole_calls(steps: float, steps_per_call: int) -> int:
    """``steps`` rounded up to whole device calls (another length of the last call would be compiled for itself)."""
    return max(1, -(-int(np.ceil(steps)) // steps_per_call)) * steps_per_call


class History:
    """The metrics of a run as JSON lines, one a device call; survives kills, and forgets what a resume does again."""

    def __init__(self, path: Path):
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def truncate(self, step: int) -> None:
        """Drops what lies after ``step``, and a last line cut off by a kill."""
        self._write([record for record in self.records() if record["step"] <= step])

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Appends the metrics as of ``step``."""
        with open(self._path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps({"step": step, **metrics}) + "\n")

    def records(self) -> list[dict[str, float]]:
        """All complete lines."""
        if not self._path.exists():
            return []
        records = []
        for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            records.append(json.loads(line))
        return records

    def _write(self, records: list[dict[str, float]]) -> None:
        files.write_text(self._path, "".join(json.dumps(record) + "\n" for record in records))


def derived_seed(seed: int, purpose: int) -> int:
    """A seed of its own for each purpose, a function of ``seed`` and the constant alone; 0 to 2^31 - 1."""
    return int(np.random.default_rng([seed, purpose]).integers(2**31))


def _check_finite(metrics: dict[str, np.ndarray], first_step: int, label: str) -> None:
    """Raises InputError if a loss of a call that began after ``first_step`` steps is not a finite number."""
    for name, values in metrics.items():
        if name.startswith("loss") and not np.isfinite(values).all():
            step = first_step + int(np.argmin(np.isfinite(values))) + 1
            raise InputError(
                f"{name} is not finite at step {step:,}; lower the learning rate (saved states are kept)", label
            )

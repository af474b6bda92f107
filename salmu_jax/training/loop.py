"""The loop that drives a step over batches: pretraining and unlearning share it.

The order of a resume, by cases:

1. a state of this run is in the store: parameters, optimizer and step come from the newest intact one, and the data goes on
   at that step (the batches are a function of the seed and the step alone, so nothing is replayed or skipped);
2. there is none, or it belongs to a run of another config: the run starts at step 0.

Steps are grouped into device calls of ``steps_per_call`` (a scan), which start at multiples of it whatever was interrupted,
so that a resumed run executes the very same programs on the very same inputs, and ends with the same bits. States are saved
at their ends alone, never one that follows a loss that is not finite.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from salmu_jax import files
from salmu_jax.errors import Preempted
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training import nonfinite
from salmu_jax.training.chips import peak_flops
from salmu_jax.training.progress import Progress, is_main_process
from salmu_jax.training.state_store import StateStore
from salmu_jax.training.step import scan_steps
from salmu_jax.training.stopping import SAVE, STOP, SaveTimer, Termination, cast_vote, count_votes
from salmu_jax.training.watch import Watch

Batches = Callable[[int], Iterator[Any]]


class _Call(NamedTuple):
    """A device call under way: ``done`` steps will be done when it is."""

    done: int
    metrics: dict[str, jax.Array]
    votes: jax.Array
    places: list[Mapping[str, np.ndarray]]  # of the batch of each step


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
    history: History,
    label: str,
    constants: tuple[Any, ...] = (),
    identify: nonfinite.Identify | None = None,
    watch: Watch = Watch(),  # noqa: B008 (frozen)
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """Runs ``step`` until ``state.step`` is ``total_steps`` and returns the final state.

    Args:
      step: ``step(state, batch, *constants) -> (state, metrics)``, pure; metrics are scalars, those
        whose names begin with ``loss`` have to stay finite.
      state: a fresh state with fields ``params`` and ``step``; its shardings are kept.
      batches: ``batches(first_step)`` yields pytrees of numpy arrays [B, ...], this process's share, or these as
        :class:`~salmu_jax.training.nonfinite.Numbered`.
      total_steps: a multiple of ``steps_per_call``, see :func:`whole_calls`.
      batch_size: pairs of a step over all processes, for the progress line.
      store: where states are restored from, and saved as often as its policy says.
      history: keeps the metrics of every call.
      constants: further arguments of ``step`` that never change (reference parameters).
      identify: ``identify(source, places)`` names examples, for a batch whose loss is not finite.
      watch: where else metrics go, and what is evaluated on the way.
      clock: seconds, for saving by minutes.

    Raises:
      InputError: the loss is not finite (naming the batch), or the parameters about to be saved are not; the last good state
        is kept.
      Preempted: SIGTERM came; the state is saved.
    """
    restored = store.restore(state)
    state = state if restored is None else restored
    done = int(state.step)
    history.truncate(done)
    if done and is_main_process():
        print(f"{label}: going on at step {done:,} of {total_steps:,}", flush=True)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)

    def whole_call(state: Any, stack: Any, votes: jax.Array, *constants: Any) -> tuple[Any, Any, jax.Array]:
        state, metrics = scan_steps(lambda s, b: step(s, b, *constants))(state, stack)
        return state, metrics, count_votes(votes)

    copies = mesh_lib.replicated(mesh)  # what every process reads
    call = jax.jit(whole_call, donate_argnums=0, out_shardings=(shardings, copies, copies))
    peak = peak_flops(list(mesh.devices.flat))
    progress = Progress(label, total_steps, done, flops_per_item=watch.flops_per_item, peak_flops=peak, feed=watch.feed)
    evaluations: dict[int, Mapping[str, float]] = {}  # by the steps that were done
    timer = SaveTimer(store.policy.minutes, clock)

    def finish(under_way: _Call) -> int:
        """Waits for a call, keeps its metrics, and returns what any process wished before it."""
        metrics = {name: np.asarray(value) for name, value in under_way.metrics.items()}
        first = under_way.done - steps_per_call
        if bad := nonfinite.first_bad_step(metrics):
            name, place = bad
            places = under_way.places[place]
            raise nonfinite.report(
                f"{name} is not finite", first + place + 1, places, history.directory, label, identify
            )
        latest = {name: float(value[-1]) for name, value in metrics.items()}
        progress.update(under_way.done, steps_per_call * batch_size, latest)
        latest.update(evaluations.pop(under_way.done, {}))
        history.add(under_way.done, latest)
        for writer in writers:
            writer.write(under_way.done, latest)
        return int(under_way.votes)

    iterator = batches(done)
    before: _Call | None = None
    with mesh_lib.use(mesh), watch.opened(done) as writers, Termination() as termination:
        while done < total_steps:
            began = time.monotonic()
            numbered = [_numbered(next(iterator)) for _ in range(steps_per_call)]
            stack = jax.tree.map(lambda *leaves: np.stack(leaves), *(batch.arrays for batch in numbered))
            stack = mesh_lib.put_batch(stack, mesh, leading=1)
            progress.waited(time.monotonic() - began)

            wish = SAVE * timer.due() | STOP * termination.requested
            state, metrics, votes = call(state, stack, cast_vote(wish, mesh), *constants)
            termination.defer()  # it is compiled: from here on there is something to save
            done += steps_per_call
            latest = _Call(done, metrics, votes, [batch.places for batch in numbered])
            if watch.profile is not None:
                jax.block_until_ready(metrics)
                watch.profile.call_done()
            if watch.evaluation_due(done - steps_per_call, done):
                evaluations[done] = _evaluate(watch, state.params, label, done)
            # The call before is waited for while this one runs, so that the devices have always something to do.
            wishes = finish(before) if before else 0
            before = latest
            if (
                jax.process_count() == 1
            ):  # nobody to agree with: no need to wait for the votes of this call, or for a next one
                wishes |= wish | STOP * termination.requested
            if wishes or store.policy.due(done - steps_per_call, done) or done == total_steps:
                wishes |= finish(latest)
                before = None
                jax.block_until_ready(state)
                if not nonfinite.is_finite(state.params):
                    what, places = "a parameter is not finite", latest.places[-1]
                    raise nonfinite.report(what, done, places, history.directory, label, identify)
                store.save(done, state)
                timer.saved()
                for writer in writers:
                    writer.flush()
                if wishes & STOP and done < total_steps:
                    store.wait()
                    raise Preempted(label, done, store.directory)
    return state


def whole_calls(steps: float, steps_per_call: int) -> int:
    """``steps`` rounded up to whole device calls (another length of the last call would be compiled for itself)."""
    return max(1, -(-int(np.ceil(steps)) // steps_per_call)) * steps_per_call


class History:
    """The metrics of a run as JSON lines, one a device call; survives kills, and forgets what a resume does again.

    Process 0 alone writes them.
    """

    def __init__(self, path: Path):
        self._path, self.directory = path, path.parent
        self._writes = is_main_process()
        if self._writes:
            path.parent.mkdir(parents=True, exist_ok=True)

    def truncate(self, step: int) -> None:
        """Drops what lies after ``step``, and a last line cut off by a kill."""
        if self._writes:
            self._write([record for record in self.records() if record["step"] <= step])

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Appends the metrics as of ``step``."""
        if not self._writes:
            return
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


def prepare_directory(directory: Path) -> None:
    """Removes what killed runs left half-removed beside the directory of a run under way."""
    if is_main_process():
        files.remove_partials(directory)


def remove_directory(directory: Path, *, keep: bool = False) -> None:
    """Removes the directory of a run whose model is written, unless its states were to be kept."""
    if is_main_process() and not keep:
        files.remove_directory(directory)


def derived_seed(seed: int, purpose: int) -> int:
    """A seed of its own for each purpose, a function of ``seed`` and the constant alone; 0 to 2^31 - 1."""
    return int(np.random.default_rng([seed, purpose]).integers(2**31))


def _evaluate(watch: Watch, params: Any, label: str, done: int) -> Mapping[str, float]:
    found = watch.evaluate(params) if watch.evaluate else {}
    if is_main_process():
        print(
            f"{label}: step {done:,}: " + "  ".join(f"{name} {value:.4g}" for name, value in found.items()), flush=True
        )
    return found


def _numbered(batch: Any) -> nonfinite.Numbered:
    return batch if isinstance(batch, nonfinite.Numbered) else nonfinite.Numbered(batch, {})

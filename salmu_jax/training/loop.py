"""The training loop, shared by pretraining and unlearning.

How a run resumes:

1. The store has a state of this run: parameters, optimizer and step come from the newest intact one, and the data continues at
   that step (batches are a function of the seed and the step alone, so nothing is repeated or skipped).
2. It has none: the run starts at step 0, or from a state of another run if the user says so (``states.py``).

Steps are grouped into device calls of ``steps_per_call`` (a scan). Calls end at multiples of it even after an interruption,
so a resumed run executes the same programs on the same inputs and ends with the same bits. The last call has as many steps
as are left. States are saved only between calls, and never after a loss that is not finite.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from salmu_jax.runtime.errors import Preempted
from salmu_jax.runtime.progress import Progress, is_main_process
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training import nonfinite
from salmu_jax.training.chips import peak_flops
from salmu_jax.training.history import History
from salmu_jax.training.state_store import StateStore
from salmu_jax.training.step import scan_steps
from salmu_jax.training.stopping import SAVE, STOP, SaveTimer, Termination, merge_requests, share_requests, stopped_by
from salmu_jax.training.watch import Watch

Batches = Callable[[int], Iterator[Any]]


class _Call(NamedTuple):
    """A device call under way, of ``length`` steps; at its end ``done`` steps are done."""

    done: int
    length: int
    metrics: dict[str, jax.Array]
    requests: jax.Array  # of all processes
    positions: list[Mapping[str, np.ndarray]]  # of the batch of each step


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
      total_steps: of the whole run, see :func:`steps_of`.
      steps_per_call: steps of a device call; a shorter last call is compiled separately.
      batch_size: pairs of a step over all processes, for the progress line.
      store: restores states, and saves them by its policy.
      history: keeps the metrics of every call.
      constants: further, constant arguments of ``step`` (reference parameters).
      identify: ``identify(source, places)`` names examples, for a batch whose loss is not finite.
      watch: further writers of metrics, and evaluations during training.
      clock: seconds, for saving by minutes.

    Raises:
      InputError: the loss is not finite (naming the batch), or the parameters about to be saved are not; the last good state
        is kept.
      Preempted: SIGTERM or SIGHUP came; the state is saved.
    """
    restored = store.restore(state)
    state = state if restored is None else restored
    done = int(state.step)
    history.truncate(done)
    if done and is_main_process():
        print(f"{label}: going on at step {done:,} of {total_steps:,}", flush=True)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)

    def whole_call(state: Any, stack: Any, shared: jax.Array, *constants: Any) -> tuple[Any, Any, jax.Array]:
        state, metrics = scan_steps(lambda s, b: step(s, b, *constants))(state, stack)
        return state, metrics, merge_requests(shared)

    copies = mesh_lib.replicated(mesh)  # what every process reads
    call = jax.jit(whole_call, donate_argnums=0, out_shardings=(shardings, copies, copies))
    peak = peak_flops(list(mesh.devices.flat))
    progress = Progress(label, total_steps, done, flops_per_item=watch.flops_per_item, peak_flops=peak, feed=watch.feed)
    evaluations: dict[int, Mapping[str, float]] = {}  # by the steps that were done
    timer = SaveTimer(store.policy.minutes, clock)

    def finish(under_way: _Call) -> int:
        """Waits for a call, keeps its metrics, and returns the requests that the processes had passed to it."""
        metrics = {name: np.asarray(value) for name, value in under_way.metrics.items()}
        first = under_way.done - under_way.length
        if bad := nonfinite.first_bad_step(metrics):
            name, index = bad
            positions = under_way.positions[index]
            raise nonfinite.report(
                f"{name} is not finite", first + index + 1, positions, history.directory, label, identify
            )
        latest = {name: float(value[-1]) for name, value in metrics.items()}
        progress.update(under_way.done, under_way.length * batch_size, latest)
        latest.update(evaluations.pop(under_way.done, {}))
        history.add(under_way.done, latest)
        for writer in writers:
            writer.write(under_way.done, latest)
        return int(under_way.requests)

    iterator = batches(done)
    before: _Call | None = None
    with mesh_lib.use(mesh), watch.opened(done) as writers, Termination() as termination:
        while done < total_steps:
            began = time.monotonic()
            length = min(steps_per_call - done % steps_per_call, total_steps - done)
            numbered = [_numbered(next(iterator)) for _ in range(length)]
            stack = jax.tree.map(lambda *leaves: np.stack(leaves), *(batch.arrays for batch in numbered))
            stack = mesh_lib.put_batch(stack, mesh, leading=1)
            progress.waited(time.monotonic() - began)

            own = SAVE * timer.due() | termination.requests
            state, metrics, requests = call(state, stack, share_requests(own, mesh), *constants)
            termination.defer()  # the step is compiled: from here on there is something to save
            done += length
            latest = _Call(done, length, metrics, requests, [batch.positions for batch in numbered])
            if watch.profile is not None:
                jax.block_until_ready(metrics)
                watch.profile.call_done()
            if watch.evaluation_due(done - length, done):
                evaluations[done] = _evaluate(watch, state.params, label, done)
            # Wait for the call before while this one runs, so that the devices are never idle.
            requested = finish(before) if before else 0
            before = latest
            if jax.process_count() == 1:  # no other process to agree with, so no need to wait for this call or the next
                requested |= own | termination.requests
            if requested or store.policy.due(done - length, done) or done == total_steps:
                requested |= finish(latest)
                before = None
                jax.block_until_ready(state)
                if not nonfinite.is_finite(state.params):
                    what, positions = "a parameter is not finite", latest.positions[-1]
                    raise nonfinite.report(what, done, positions, history.directory, label, identify)
                history.sync()
                store.save(done, state)
                timer.saved()
                for writer in writers:
                    writer.flush()
                if requested & STOP and done < total_steps:
                    store.wait()
                    raise Preempted(label, done, store.directory, stopped_by(requested))
    return state


def steps_of(epochs: float, pairs: int, batch_size: int) -> int:
    """Returns the steps of ``epochs`` passes over ``pairs``, rounded up; at least one."""
    return max(1, math.ceil(epochs * pairs / batch_size - 1e-9))  # 0.1 * 30 / 3 is a little more than 1


def derived_seed(seed: int, *purpose: int) -> int:
    """Returns a seed for a purpose (one or more words), a function of ``seed`` and ``purpose`` alone; 0 to 2^31 - 1."""
    return int(np.random.default_rng([seed, *purpose]).integers(2**31))


def _evaluate(watch: Watch, params: Any, label: str, done: int) -> Mapping[str, float]:
    found = watch.evaluate(params) if watch.evaluate else {}
    if is_main_process():
        print(
            f"{label}: step {done:,}: " + "  ".join(f"{name} {value:.4g}" for name, value in found.items()), flush=True
        )
    return found


def _numbered(batch: Any) -> nonfinite.Numbered:
    return batch if isinstance(batch, nonfinite.Numbered) else nonfinite.Numbered(batch, {})

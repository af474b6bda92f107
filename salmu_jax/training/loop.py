"""The training loop, shared by pretraining and unlearning.

How a run resumes:

1. The store has a state of this run: parameters, optimizer state and step come from the newest intact one, and the data
   continue at that step (batches are a function of the seed and the step alone, so none is repeated or skipped).
2. It has none: the run starts at step 0, or from a state of another run if the user says so (``states.py``).

Steps are grouped into device calls of ``steps_per_call`` (a scan). Calls end at multiples of it even after an interruption,
so a resumed run executes the same programs on the same inputs and ends with the same bits. The last call is shorter if need
be. States are saved only between calls, and never after a loss that is not finite.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from salmu_jax.runtime import distributed
from salmu_jax.runtime.errors import Preempted
from salmu_jax.runtime.progress import Progress
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training import nonfinite
from salmu_jax.training.chips import peak_flops
from salmu_jax.training.history import History
from salmu_jax.training.observer import Call, Observer
from salmu_jax.training.state_store import StateStore
from salmu_jax.training.step import scan_steps
from salmu_jax.training.stopping import SAVE, STOP, SaveTimer, Termination, merge_requests, share_requests, stopped_by
from salmu_jax.training.watch import Watch

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
      history: records the metrics of every call.
      label: names the run in messages.
      constants: further, constant arguments of ``step`` (reference parameters).
      identify: ``identify(source, positions)`` names examples, for a batch whose loss is not finite.
      watch: further writers of metrics, and evaluations during training.
      clock: returns seconds, for saving by minutes.

    Raises:
      InputError: the loss is not finite (naming the batch), or the parameters about to be saved are not; the last good state
        is kept.
      Preempted: SIGTERM or SIGHUP came; the state is saved.
    """
    state = _resume(state, store, history, label, total_steps)
    done = int(state.step)
    call = _jit_call(step, state, mesh)
    peak = peak_flops(list(mesh.devices.flat))
    progress = Progress(label, total_steps, done, flops_per_item=watch.flops_per_item, peak_flops=peak, feed=watch.feed)
    timer = SaveTimer(store.policy.minutes, clock)
    iterator = batches(done)
    unread: Call | None = None  # the call before, if its metrics have not been read yet

    with mesh_lib.use(mesh), watch.opened(done) as writers, Termination() as termination:
        observer = Observer(watch, writers, history, progress, batch_size=batch_size, label=label, identify=identify)
        while done < total_steps:
            length = min(steps_per_call - done % steps_per_call, total_steps - done)
            began = time.monotonic()
            stack, positions = _next_stack(iterator, length, mesh)
            progress.waited(time.monotonic() - began)

            own = SAVE * timer.due() | termination.requests
            state, metrics, requests = call(state, stack, share_requests(own, mesh), *constants)
            termination.defer()  # the step is compiled: from here on there is something to save
            latest = Call(done, done + length, metrics, requests, positions)
            done = latest.end
            observer.called(latest, state.params)
            # Read the metrics of the call before while this one runs, so that the devices are never idle.
            requested = observer.read(unread) if unread else 0
            unread = latest
            if jax.process_count() == 1:  # no other process to agree with, so no need to wait for this call or the next
                requested |= own | termination.requests

            if requested or store.policy.due(latest.begin, done) or done == total_steps:
                requested |= observer.read(latest)
                unread = None
                jax.block_until_ready(state)
                observer.check_finite(latest, state.params)
                history.sync()
                store.save(done, state)
                timer.saved()
                observer.flush()
                if requested & STOP and done < total_steps:
                    store.wait()
                    raise Preempted(label, done, store.directory, stopped_by(requested))
    return state


def steps_of(epochs: float, pairs: int, batch_size: int) -> int:
    """Returns the steps of ``epochs`` passes over ``pairs``, rounded up; at least one."""
    return max(1, math.ceil(epochs * pairs / batch_size - 1e-9))  # 0.1 * 30 / 3 is a little more than 1


def derived_seed(seed: int, *purpose: int) -> int:
    """Returns a seed for a purpose (one or more words), 0 to 2^31 - 1; a function of ``seed`` and ``purpose`` alone."""
    return int(np.random.default_rng([seed, *purpose]).integers(2**31))


def _resume(state: Any, store: StateStore, history: History, label: str, total_steps: int) -> Any:
    """Returns the state to continue from, ``state`` if none was saved; drops the history after it."""
    restored = store.restore(state)
    state = state if restored is None else restored
    done = int(state.step)
    history.truncate(done)
    if done and distributed.is_main():
        print(f"{label}: resuming at step {done:,} of {total_steps:,}", flush=True)
    return state


def _jit_call(step: Callable[..., Any], state: Any, mesh: Mesh) -> Callable[..., Any]:
    """Compiles ``call(state, stack, requests, *constants) -> (state, metrics, requests of all processes)``.

    It runs a step for each batch of the stack. The shardings of ``state`` are kept, and its buffers are donated.
    """

    def call(state: Any, stack: Any, shared: jax.Array, *constants: Any) -> tuple[Any, Any, jax.Array]:
        state, metrics = scan_steps(lambda s, b: step(s, b, *constants))(state, stack)
        return state, metrics, merge_requests(shared)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    copies = mesh_lib.replicated(mesh)  # every process reads these
    return jax.jit(call, donate_argnums=0, out_shardings=(shardings, copies, copies))


def _next_stack(iterator: Iterator[Any], length: int, mesh: Mesh) -> tuple[Any, list[Mapping[str, np.ndarray]]]:
    """Stacks the next ``length`` batches on the devices, [length, B, ...]; also returns the positions of their examples."""
    numbered = [_numbered(next(iterator)) for _ in range(length)]
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *(batch.arrays for batch in numbered))
    return mesh_lib.put_batch(stack, mesh, leading=1), [batch.positions for batch in numbered]


def _numbered(batch: Any) -> nonfinite.Numbered:
    return batch if isinstance(batch, nonfinite.Numbered) else nonfinite.Numbered(batch, {})

"""Observes a run: reads the metrics of its device calls, and passes them to history, writers and progress line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from salmu_jax.runtime import distributed
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.progress import Progress
from salmu_jax.training import nonfinite
from salmu_jax.training.history import History
from salmu_jax.training.watch import Watch
from salmu_jax.training.writers import MetricWriter


class Call(NamedTuple):
    """A device call, running or finished, over the steps from ``begin`` (exclusive) to ``end`` (inclusive)."""

    begin: int
    end: int
    metrics: dict[str, jax.Array]  # one value a step
    requests: jax.Array  # those of all processes
    positions: list[Mapping[str, np.ndarray]]  # one batch a step


class Observer:
    """Reads the metrics of device calls, and evaluates and traces the run as ``watch`` says.

    Args:
      watch: what to evaluate and to trace.
      writers: take the metrics, besides ``history``.
      history: of the run.
      progress: the progress line.
      batch_size: pairs of a step, for the progress line.
      label: names the run in messages.
      identify: names examples, for a batch whose loss is not finite.
    """

    def __init__(
        self,
        watch: Watch,
        writers: Sequence[MetricWriter],
        history: History,
        progress: Progress,
        *,
        batch_size: int,
        label: str,
        identify: nonfinite.Identify | None,
    ):
        self._watch, self._writers, self._history, self._progress = watch, writers, history, progress
        self._batch_size, self._label, self._identify = batch_size, label, identify
        self._evaluations: dict[int, Mapping[str, float]] = {}  # by step, until the metrics of that step are read

    def called(self, call: Call, params: Any) -> None:
        """Traces and evaluates, if due, once ``call`` has been dispatched; ``params`` are those after it."""
        if self._watch.profile is not None:
            jax.block_until_ready(call.metrics)
            self._watch.profile.call_done()
        if self._watch.evaluate is not None and self._watch.evaluation_due(call.begin, call.end):
            found = self._watch.evaluate(params)
            self._evaluations[call.end] = found
            if distributed.is_main():
                values = "  ".join(f"{name} {value:.4g}" for name, value in found.items())
                print(f"{self._label}: step {call.end:,}: {values}", flush=True)

    def read(self, call: Call) -> int:
        """Waits for ``call``, records its metrics, and returns the requests of all processes.

        Raises InputError if a loss is not finite, naming the batch.
        """
        metrics = {name: np.asarray(value) for name, value in call.metrics.items()}
        if bad := nonfinite.first_bad_step(metrics):
            name, index = bad
            raise self._not_finite(f"{name} is not finite", call.begin + index + 1, call.positions[index])
        latest = {name: float(value[-1]) for name, value in metrics.items()}
        self._progress.update(call.end, (call.end - call.begin) * self._batch_size, latest)
        latest.update(self._evaluations.pop(call.end, {}))
        self._history.add(call.end, latest)
        for writer in self._writers:
            writer.write(call.end, latest)
        return int(call.requests)

    def check_finite(self, call: Call, params: Any) -> None:
        """Raises InputError if ``params``, those after ``call``, are not all finite."""
        if not nonfinite.is_finite(params):
            raise self._not_finite("a parameter is not finite", call.end, call.positions[-1])

    def flush(self) -> None:
        """Flushes the writers."""
        for writer in self._writers:
            writer.flush()

    def _not_finite(self, what: str, step: int, positions: Mapping[str, np.ndarray]) -> InputError:
        return nonfinite.report(what, step, positions, self._history.directory, self._label, self._identify)

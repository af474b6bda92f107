"""Traces a few device calls: ``salmu pretrain --profile``."""

from __future__ import annotations

from pathlib import Path

import jax

from salmu_jax.runtime import distributed


class Profile:
    """Traces ``count`` device calls after the first ``skip``, which compile; TensorBoard and Perfetto show the trace.

    Each process writes the trace of its own devices below ``directory``.
    """

    def __init__(self, directory: Path, *, skip: int = 2, count: int = 3):
        self._directory, self._skip, self._stop = Path(directory), skip, skip + count
        self._calls = 0
        self._tracing = False

    def call_done(self) -> None:
        """Starts or ends the trace if it is time; call this after every device call."""
        self._calls += 1
        if self._calls == self._skip:
            self._directory.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(self._directory)
            self._tracing = True
        elif self._calls == self._stop:
            self.close()

    def close(self) -> None:
        """Ends the trace if it is still running (a run may be shorter)."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            if distributed.is_main():
                print(f"profile: a trace of {self._calls - self._skip} calls is in {self._directory}", flush=True)

"""What a run shows of itself besides its progress line: further places for metrics, evaluations on the way, a trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from salmu_jax.runtime.progress import DataFeed
from salmu_jax.training.profile import Profile
from salmu_jax.training.writers import MetricWriter


@dataclasses.dataclass(frozen=True)
class Watch:
    """How a run is watched; nothing of it changes what the run does.

    Attributes:
      flops_per_item: for model FLOPs utilisation, 0 if it is not known.
      feed: how batches are made, for explaining a wait for them.
      writers: ``writers(first_step)`` makes further places for the metrics.
      evaluate: ``evaluate(params)`` gives more metrics, every ``evaluate_every`` steps; 0: never.
      profile: traces a few device calls.
    """

    flops_per_item: float = 0.0
    feed: DataFeed | None = None
    writers: Callable[[int], Sequence[MetricWriter]] = lambda first_step: ()
    evaluate: Callable[[Any], Mapping[str, float]] | None = None
    evaluate_every: int = 0
    profile: Profile | None = None

    def evaluation_due(self, before: int, after: int) -> bool:
        """Returns whether an evaluation follows a device call that began after ``before`` steps and ended after ``after``."""
        every = self.evaluate_every
        return self.evaluate is not None and every > 0 and before // every < after // every

    @contextmanager
    def opened(self, first_step: int) -> Iterator[Sequence[MetricWriter]]:
        """Yields the writers of a run that goes on from ``first_step``; at the end they, and a trace under way, are closed."""
        writers = self.writers(first_step)
        try:
            yield writers
        finally:
            for writer in writers:
                writer.close()
            if self.profile is not None:
                self.profile.close()

"""How a run is watched besides its progress line: further metric writers, evaluations on the way, a profile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from salmu_jax.runtime.feed import DataFeed
from salmu_jax.training.profile import Profile
from salmu_jax.training.writers import MetricWriter

Evaluate = Callable[[Any], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Watch:
    """How a run is watched. Nothing here changes the trained parameters.

    Attributes:
      flops_per_item: for model FLOPs utilisation; 0: unknown.
      feed: how batches are made, to explain a wait for them.
      writers: ``writers(first_step)`` opens further writers of the metrics.
      evaluate: ``evaluate(params)`` returns more metrics.
      evaluate_every: steps between evaluations; 0: never.
      profile: traces a few device calls.
    """

    flops_per_item: float = 0.0
    feed: DataFeed | None = None
    writers: Callable[[int], Sequence[MetricWriter]] = lambda first_step: ()
    evaluate: Evaluate | None = None
    evaluate_every: int = 0
    profile: Profile | None = None

    def evaluation_due(self, before: int, after: int) -> bool:
        """Returns whether to evaluate after a device call that took the run from ``before`` to ``after`` steps."""
        every = self.evaluate_every
        return self.evaluate is not None and every > 0 and before // every < after // every

    @contextmanager
    def opened(self, first_step: int) -> Iterator[Sequence[MetricWriter]]:
        """Opens the writers of a run that starts at ``first_step``; closes them, and a running trace, at the end."""
        writers = self.writers(first_step)
        try:
            yield writers
        finally:
            for writer in writers:
                writer.close()
            if self.profile is not None:
                self.profile.close()

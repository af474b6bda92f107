"""Decides when a run saves and when it stops: by step, by the clock, and on SIGTERM, in all processes at the same step.

Each process passes its requests (to save, to stop) to the next device call as a bitmask. The call ORs them over all devices
and returns the result with the metrics, so all processes act on the same requests at the same step, without messages and
without synchronised clocks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from salmu_jax.runtime import distributed, interrupts

SAVE, STOP, HANGUP = 1, 2, 4  # bits of a request; HANGUP: the reason to stop is SIGHUP


@dataclasses.dataclass(frozen=True)
class SavePolicy:
    """When states are saved, and which are kept.

    Attributes:
      every: steps between saved states; a state is saved at the first end of a device call at or after each multiple.
      minutes: also save when this many have passed since the last state; 0: by step only.
      keep_last: number of states to keep.
      keep_every: also save, and keep, the first state at or after each multiple of it; 0: none.
    """

    every: int = 500
    minutes: float = 0.0
    keep_last: int = 2
    keep_every: int = 0

    def due(self, before: int, after: int) -> bool:
        """Returns whether a state is due after ``after`` steps, the device call having begun after ``before``."""
        return any(every and before // every < after // every for every in (self.every, self.keep_every))

    def is_milestone(self, step: int, stride: int) -> bool:
        """Returns whether ``keep_every`` keeps the state of ``step``, states being ``stride`` steps apart."""
        return 0 < self.keep_every <= step and step % self.keep_every < stride


class SaveTimer:
    """Says when ``minutes`` have passed since the last save, by the clock of process 0."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic):
        self._seconds, self._clock = 60 * minutes, clock
        self._last = clock()

    def saved(self) -> None:
        """Notes that a state has just been saved."""
        self._last = self._clock()

    def due(self) -> bool:
        """Returns whether the next state is due."""
        return self._seconds > 0 and distributed.is_main() and self._clock() - self._last >= self._seconds


class Termination:
    """Inside ``with``, SIGTERM and SIGHUP only set ``requested``: the loop saves its state after the device call, and ends.

    This starts with :meth:`defer`, when there is something to save. Until then, while the first device call compiles, a signal
    ends the program at once. (With several processes it starts at once, since they have to end together.)
    """

    requested = False

    def __enter__(self) -> Termination:
        self._held = contextlib.ExitStack()
        if jax.process_count() > 1 or not interrupts.installed():
            self.defer()
        return self

    def defer(self) -> None:
        """Defers signals to the loop from now on; further calls do nothing."""
        if self.requested or self._deferred or threading.current_thread() is not threading.main_thread():
            return  # Python allows signal handlers in the main thread only
        self._deferred = True
        self._held.enter_context(interrupts.deferred())
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._held.callback(signal.signal, number, signal.signal(number, self._request))

    _deferred = False

    def __exit__(self, *_: Any) -> None:
        self._held.close()

    @property
    def requests(self) -> int:
        """The request of this process: STOP, with HANGUP if SIGHUP came first; 0 if no signal came."""
        return STOP * self.requested | HANGUP * self._hangup

    _hangup = False

    def _request(self, number: int, *_: Any) -> None:
        self._hangup |= number == signal.SIGHUP and not self.requested
        self.requested = True


def share_requests(requests: int, mesh: Mesh) -> jax.Array:
    """Returns a global int32 array with one element a device of ``mesh``; this process sets its own to ``requests``."""
    sharding = NamedSharding(mesh, P(mesh.axis_names))
    return jax.make_array_from_process_local_data(sharding, np.full(len(mesh.local_devices), requests, np.int32))


def merge_requests(shared: jax.Array) -> jax.Array:
    """ORs the requests of all processes, int32 []; for use inside ``jit``."""
    return jnp.max(shared & SAVE) | jnp.max(shared & STOP) | jnp.max(shared & HANGUP)


def stopped_by(requests: int) -> str:
    """Returns the name of the signal that stopped a run, from the requests of its processes."""
    return "SIGHUP" if requests & HANGUP else "SIGTERM"

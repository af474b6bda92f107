"""When a run saves and when it stops: by its steps, by the clock, and on SIGTERM, in all processes at the same step.

What a process wishes (its minutes are over, it was told to end) goes into the next device call as a vote, and comes back out
of it as the wish of all, together with the metrics. So all processes see the same at the same step, none waits for a message,
and nobody has to be in step with anybody else's clock.
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

from salmu_jax import interrupts
from salmu_jax.training import distributed

SAVE, STOP, HANGUP = 1, 2, 4  # wishes, bits of one word; the last says what STOP is for


@dataclasses.dataclass(frozen=True)
class SavePolicy:
    """When states are saved, and which are kept.

    Attributes:
      every: steps between two saved states; they fall on the first end of a device call at or after each multiple.
      minutes: a state is also saved when so many have passed since the last one; 0: by steps alone.
      keep_last: how many states are kept.
      keep_every: the first state at or after every multiple of it is saved and kept too; 0: none.
    """

    every: int = 500
    minutes: float = 0.0
    keep_last: int = 2
    keep_every: int = 0

    def due(self, before: int, after: int) -> bool:
        """Whether steps alone ask for a state after ``after`` steps, the call having begun after ``before``."""
        return any(every and before // every < after // every for every in (self.every, self.keep_every))

    def is_milestone(self, step: int, stride: int) -> bool:
        """Whether the state of ``step`` is one that ``keep_every`` keeps, states being ``stride`` steps apart."""
        return 0 < self.keep_every <= step and step % self.keep_every < stride


class SaveTimer:
    """Tells when ``minutes`` have passed since the last save; in process 0 alone, whose clock it is."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic):
        self._seconds, self._clock = 60 * minutes, clock
        self._last = clock()

    def saved(self) -> None:
        """A state has just been saved."""
        self._last = self._clock()

    def due(self) -> bool:
        """Whether it is time."""
        return self._seconds > 0 and distributed.is_main() and self._clock() - self._last >= self._seconds


class Termination:
    """Inside ``with``, SIGTERM and SIGHUP only set ``requested``: the loop ends at the next device call, its state saved.

    That is so once :meth:`defer` was called, when there is something to save; until then, while the first device call is
    compiled, the program ends at once. (With several processes it is so from the start: they end together.)
    """

    requested = False

    def __enter__(self) -> Termination:
        self._held = contextlib.ExitStack()
        if jax.process_count() > 1 or not interrupts.installed():
            self.defer()
        return self

    def defer(self) -> None:
        """Signals wait for the loop from now on; what is called again does nothing."""
        if self.requested or self._deferred or threading.current_thread() is not threading.main_thread():
            return  # Python allows handlers in the main thread alone
        self._deferred = True
        self._held.enter_context(interrupts.deferred())
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._held.callback(signal.signal, number, signal.signal(number, self._request))

    _deferred = False

    def __exit__(self, *_: Any) -> None:
        self._held.close()

    @property
    def wish(self) -> int:
        """What this process wishes for it: STOP, with HANGUP if SIGHUP came first; 0 if none came."""
        return STOP * self.requested | HANGUP * self._hangup

    _hangup = False

    def _request(self, number: int, *_: Any) -> None:
        self._hangup |= number == signal.SIGHUP and not self.requested
        self.requested = True


def cast_vote(wish: int, mesh: Mesh) -> jax.Array:
    """This process's wish as its part of a global int32 array, an element a device of ``mesh``."""
    sharding = NamedSharding(mesh, P(mesh.axis_names))
    return jax.make_array_from_process_local_data(sharding, np.full(len(mesh.local_devices), wish, np.int32))


def count_votes(votes: jax.Array) -> jax.Array:
    """What any process wishes; to be called inside ``jit``."""
    return jnp.max(votes & SAVE) | jnp.max(votes & STOP) | jnp.max(votes & HANGUP)


def stopped_by(wishes: int) -> str:
    """The name of the signal that told a run to end, by what its processes wished."""
    return "SIGHUP" if wishes & HANGUP else "SIGTERM"

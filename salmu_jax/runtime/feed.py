"""Measures what making batches costs, and says what would cure a wait for them: workers, cores or storage."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from salmu_jax.runtime import host

_MOSTLY = 0.5  # of the time of making batches: what takes more is what bounds it


@dataclasses.dataclass
class BatchCosts:
    """What making a batch, or many, took one thread at a time; seconds, by the clock and of a CPU.

    The storage is waited for while ``read_seconds`` pass and ``read_cpu_seconds`` do not.
    """

    pairs: float = 0.0
    image_bytes: float = 0.0  # encoded
    read_seconds: float = 0.0
    read_cpu_seconds: float = 0.0
    decode_seconds: float = 0.0  # everything after reading
    decode_cpu_seconds: float = 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Adds what happens inside ``with`` to the reading."""
        began, cpu = time.perf_counter(), time.thread_time()
        yield
        self.read_cpu_seconds += time.thread_time() - cpu
        self.read_seconds += time.perf_counter() - began

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Adds what happens inside ``with`` to the decoding."""
        began, cpu = time.perf_counter(), time.thread_time()
        yield
        self.decode_cpu_seconds += time.thread_time() - cpu
        self.decode_seconds += time.perf_counter() - began

    def to_array(self) -> np.ndarray:
        """Returns the fields, float64 [6]: a batch brings them from its worker process."""
        return np.array(dataclasses.astuple(self))

    def add(self, costs: np.ndarray) -> None:
        """Adds those of another batch, as an array."""
        for field, cost in zip(dataclasses.fields(self), costs.tolist(), strict=True):
            setattr(self, field.name, getattr(self, field.name) + cost)

    @property
    def pairs_per_cpu_second(self) -> float:
        """How many pairs a core reads and decodes in a second."""
        return self.pairs / max(self.read_cpu_seconds + self.decode_cpu_seconds, 1e-9)

    @property
    def storage_share(self) -> float:
        """The share of the time that passes waiting for the storage.

        Where threads wait for a CPU, too, reading takes longer by the factor that decoding shows, which needs no storage.
        """
        delay = max(self.decode_seconds / max(self.decode_cpu_seconds, 1e-9), 1.0)
        waited = max(self.read_seconds - delay * self.read_cpu_seconds, 0.0)
        return waited / max(self.read_seconds + self.decode_seconds, 1e-9)


@dataclasses.dataclass(frozen=True)
class DataFeed:
    """How batches are made, to explain a wait for them.

    Attributes:
      workers: decoding processes; 0: this process decodes.
      cached: whether decoded images are in memory.
      cpus: of this host.
      hosts: that share a batch.
      costs: what making this host's batches has taken so far; without, the advice follows from the counts alone.
    """

    workers: int
    cached: bool = False
    cpus: int = dataclasses.field(default_factory=host.cpu_count)
    hosts: int = 1
    costs: BatchCosts | None = None

    def cause_of_waiting(self, rate: float = 0.0, share: float = 0.0) -> str:
        """Returns the likely reason why the devices wait for data, and what to change.

        Args:
          rate: pairs that the devices get in a second, over all hosts; 0: unknown.
          share: of the time that they wait; without waiting they would take ``rate / (1 - share)``.
        """
        if self.cached:
            return "decoded images are in memory already, so it is the copying: larger steps or a smaller image help"
        if self.costs is None or not self.costs.pairs or not rate:
            return self._by_counts()
        here = rate / self.hosts
        wanted = here / max(1 - share, 0.05)
        if self.costs.storage_share > _MOSTLY:
            return self._storage(self.costs, here, wanted)
        return self._decoding(self.costs, wanted)

    def _storage(self, costs: BatchCosts, here: float, wanted: float) -> str:
        mebibytes = costs.image_bytes / costs.pairs / 2**20
        return (
            f"of the time of making batches {100 * costs.storage_share:.0f} % passes waiting for the storage, which"
            f" gives {_rate(here * mebibytes)} MiB/s where {_rate(wanted * mebibytes)} would do: nearer or faster storage"
            f" would help, or data.workers={2 * max(self.workers, self.cpus)}, which wait at the same time"
        )

    def _decoding(self, costs: BatchCosts, wanted: float) -> str:
        each = costs.pairs_per_cpu_second
        needed = math.ceil(wanted / each)
        asked = f"a CPU decodes {_rate(each)} pairs/s and the devices would take {_rate(wanted)}"
        line = f"{asked}, which is work for {needed:,} CPUs"
        if self.workers < self.cpus - 1:
            by = "this process alone decodes" if self.workers == 0 else f"{self.workers} workers decode"
            useful = min(max(needed, self.workers + 1), self.cpus - 1)
            return f"{line}; {by} and {self.cpus} CPUs are here: data.workers={useful} would help"
        return f"{line}; {self.cpus} are here: a host with more of them would help, or smaller stored images"

    def _by_counts(self) -> str:
        if self.workers == 0:
            cure = f"data.workers={max(self.cpus - 1, 1)} would decode beside it" if self.cpus > 1 else "it has one CPU"
            return f"images are decoded in the training process itself; {cure}"
        if self.workers < self.cpus - 1:
            return f"{self.workers} workers decode and {self.cpus} CPUs are here; data.workers={self.cpus - 1} would use them"
        return (
            f"{self.workers} workers keep all {self.cpus} CPUs busy, or wait for the storage; more CPUs, smaller images"
            " or faster storage would help"
        )


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"

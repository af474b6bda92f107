"""Prints what 400 million and 5 billion retain pairs ask for: the tables of docs/scale.md.

    python -m benchmarks.scale                 # the tables, from the constants below and a simulation of reads
    python -m benchmarks.scale --measure       # measures these constants here: a minute of one core

Everything printed follows from :data:`ASSUMED`, :data:`MEASURED`, the published peaks of the chips and the permutation that
training uses.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.order import shuffled
from salmu_jax.training import chips
from salmu_jax.training.input_costs import MFU

SIZES = (400_000_000, 5_000_000_000)  # pairs
HOSTS = (1, 4, 16, 64)
CHIPS = ("TPU v5e", "TPU v6e")
CHIPS_PER_HOST = 4
BATCH = 32_768  # as published
EPOCHS = 32
FLOPS_PER_PAIR = 113.1e9  # a training step of ViT-B/16, as benchmarks/README.md counts them


class Assumed(NamedTuple):
    """What was not measured."""

    bytes_per_pair: float = 40_000  # an image of at most 512 px and its caption: 16 TB for 400 M
    bucket_latency: float = 0.030  # seconds until the first byte of a small range of an object
    open_reads: int = 3  # ranges read one after another to open a shard in a bucket
    threads: int = 64  # of a host, that wait for such reads
    disk_rate: float = 1e9  # bytes a second of one host, reading a shard from end to end


class Measured(NamedTuple):
    """What ``--measure`` prints, as it was on one machine; docs/scale.md says on which."""

    build_cpu_per_pair: float  # seconds of a vCPU for a pair of 512 px: read, decode completely, serialise, write, hash
    shuffle_per_4096: tuple[float, float]  # seconds, at each of SIZES
    open_shard: float  # seconds, warm, on a disk
    index_per_record: float  # bytes of memory of an open shard
    describe_per_shard: float  # seconds to read a shard's entry in dataset_info.json


ASSUMED = Assumed()
MEASURED = Measured(0.00154, (0.00125, 0.00209), 0.00051, 7.0, 4.0e-5)


def tables() -> Iterator[str]:
    """Yields the tables, each as Markdown."""
    yield storage()
    yield reading()
    yield shuffling()
    yield touching()
    yield building()


def storage() -> str:
    """Returns what lies on disk or in a bucket, and what opening it costs, by the pairs of a tar (and so of a shard)."""
    rows = []
    for pairs in SIZES:
        for per_shard in (10_000, 100_000):
            shards = pairs // per_shard
            opening = ASSUMED.open_reads * ASSUMED.bucket_latency / ASSUMED.threads
            rows.append(
                [
                    _count(pairs),
                    f"{per_shard:,}",
                    f"{shards:,}",
                    f"{per_shard * ASSUMED.bytes_per_pair / 1e9:.1f} GB",
                    f"{pairs * ASSUMED.bytes_per_pair / 1e12:,.0f} TB",
                    _duration(shards * MEASURED.describe_per_shard),
                    _duration(shards * MEASURED.open_shard),
                    _duration(shards * opening),
                    f"{pairs * MEASURED.index_per_record / 1e9:.1f} GB",
                ]
            )
    head = "pairs", "a shard", "shards", "of", "in all", "describe", "open all, disk", "open all, bucket", "indices"
    return _table(head, rows)


def reading() -> str:
    """Returns what a host has to read while it trains, and how long an epoch is."""
    rows = []
    for name in CHIPS:
        rates = pairs_per_second(name)
        for hosts in HOSTS:
            host = [CHIPS_PER_HOST * rate for rate in rates]
            epochs = [[pairs / hosts / rate for rate in reversed(host)] for pairs in SIZES]
            rows.append(
                [
                    f"{name} x {CHIPS_PER_HOST * hosts}",
                    f"{hosts}",
                    _range(host, ",.0f"),
                    _range([rate * ASSUMED.bytes_per_pair / 1e9 for rate in host], ".2f") + " GB/s",
                    _range([hosts * rate * ASSUMED.bytes_per_pair / 1e9 for rate in host], ",.2f") + " GB/s",
                    _range([rate * ASSUMED.bucket_latency for rate in host], ",.0f"),
                    *map(_span, epochs),
                    _span([EPOCHS * seconds for seconds in epochs[0]]),
                ]
            )
    head = ["chips", "hosts", "reads a second, a host", "a host", "all hosts", "in flight"]
    head += [f"an epoch of {_count(pairs)}" for pairs in SIZES]
    return _table([*head, f"{EPOCHS} epochs of {_count(SIZES[0])}"], rows)


def shuffling() -> str:
    """Returns what the permutation costs a host in each step, as a share of the shortest step."""
    rows = []
    for hosts in HOSTS:
        own = BATCH // hosts
        cells = [f"{hosts}", f"{own:,}"]
        step = own / (CHIPS_PER_HOST * pairs_per_second(CHIPS[-1])[1])
        cells.append(f"{1000 * step:,.0f} ms")
        for seconds in MEASURED.shuffle_per_4096:
            cost = seconds * own / 4096
            cells.append(f"{1000 * cost:.2f} ms, {cost / step:.2%}")
        rows.append(cells)
    head = [
        "hosts",
        "pairs of a step, a host",
        f"a step, {CHIPS[-1]}",
        *(f"shuffle {_count(pairs)}" for pairs in SIZES),
    ]
    return _table(head, rows)


def touching() -> str:
    """Returns how many shards the first steps read, simulated with the order that training uses."""
    rows = []
    for pairs in SIZES:
        per_shard = 10_000 if pairs == SIZES[0] else 100_000
        for hosts in HOSTS:
            opened: set[int] = set()
            counts = []
            for step in range(64):
                first = step * BATCH
                own = shuffled(np.arange(first, first + BATCH // hosts, dtype=np.int64), pairs, seed=42)
                touched = set((own // per_shard).tolist())
                opened |= touched
                counts.append((len(touched), len(opened)))
            shards = pairs // per_shard
            rows.append(
                [
                    _count(pairs),
                    f"{shards:,}",
                    f"{hosts}",
                    f"{counts[0][0]:,}",
                    *(f"{counts[step - 1][1] / shards:.1%}" for step in (1, 8, 64)),
                    _duration(counts[0][1] * MEASURED.open_shard),
                    _duration(counts[0][1] * ASSUMED.open_reads * ASSUMED.bucket_latency / ASSUMED.threads),
                ]
            )
    head = ["pairs", "shards", "hosts", "read in step 1", "opened by step 1", "by step 8", "by step 64"]
    return _table([*head, "opening for step 1, disk", "bucket"], rows)


def building() -> str:
    """Returns what ``salmu data retain`` takes with more or fewer vCPUs, and how fast they read and write."""
    rows = []
    for pairs in SIZES:
        hours = pairs * MEASURED.build_cpu_per_pair / 3600
        for vcpus in (16, 256, 1024):
            rate = vcpus / MEASURED.build_cpu_per_pair
            rows.append(
                [
                    _count(pairs),
                    f"{hours:,.0f}",
                    f"{vcpus:,}",
                    _duration(hours * 3600 / vcpus),
                    f"{rate:,.0f}",
                    f"{rate * ASSUMED.bytes_per_pair / 1e9:.2f} GB/s",
                    _duration(pairs * ASSUMED.bytes_per_pair / (vcpus / 16 * ASSUMED.disk_rate)),
                ]
            )
    head = "pairs", "vCPU hours", "vCPUs", "build", "pairs/s", "read, and written", "compare all digests"
    return _table(head, rows)


def pairs_per_second(chip: str) -> list[float]:
    """Returns the pairs a second of one chip at the lower and the higher end of :data:`MFU`."""
    found = chips.chip_of(SimpleNamespace(device_kind=chip))
    assert found is not None
    return [share * found.peak_flops / FLOPS_PER_PAIR for share in MFU]


# Measuring ----------------------------------------------------------------------------------------------------------------


def measure() -> dict[str, Any]:
    """Measures :class:`Measured` here. The build is timed by its processor, not by the clock, so other work counts little."""
    with tempfile.TemporaryDirectory(prefix="salmu-") as scratch:
        build, opening, index = _measure_build(Path(scratch))
        describe = _measure_description(Path(scratch) / "many")
    return {
        "build_cpu_per_pair": build,
        "shuffle_per_4096": [_best(lambda size=size: _shuffle(size)) for size in SIZES],
        "open_shard": opening,
        "index_per_record": index,
        "describe_per_shard": describe,
    }


def _measure_build(scratch: Path) -> tuple[float, float, float]:
    """Builds a tar of 512 px twice as long as once; returns CPU seconds a pair, seconds to open a shard, bytes a record."""
    from array_record.python import array_record_module

    from data_pipelines.layout import Pair, pair_members, write_tar
    from data_pipelines.retain import build_retain_pairs
    from salmu_jax.training.input_costs import _photograph

    image, seconds = _photograph(), []
    for count in (500, 2500):
        source = scratch / f"source{count}"
        source.mkdir()
        pairs = (Pair(f"{number:09d}", image, f"a made picture, number {number}") for number in range(count))
        write_tar(source / "00000.tar", (member for pair in pairs for member in pair_members(pair)))
        began = time.process_time()
        build_retain_pairs(source, scratch / f"out{count}", workers=1, say=lambda line: None)
        seconds.append(time.process_time() - began)
    path = next((scratch / "out2500").rglob("*.array_record-00000"))
    before, held = _resident(), []
    began = time.perf_counter()
    for _ in range(100):
        held.append(array_record_module.ArrayRecordReader(os.fspath(path), "readahead_buffer_size:0"))
        held[-1].num_records()
    opening = (time.perf_counter() - began) / 100
    return (seconds[1] - seconds[0]) / 2000, opening, (_resident() - before) / 100 / 2500


def _measure_description(directory: Path, shards: int = 40_000) -> float:
    """Opens a data set of very many shards, none of which is there; returns the seconds a shard."""
    from data_pipelines.builders.source import RecordSource
    from data_pipelines.retain.finish import descriptions

    for name, data in descriptions([10_000] * shards, 10_000 * shards).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    began = time.perf_counter()
    source = RecordSource(directory / "retain_pairs" / "1.0.0", "train")
    assert len(source) == 10_000 * shards
    return (time.perf_counter() - began) / shards


def _shuffle(size: int) -> float:
    positions = np.arange(4096, dtype=np.int64) + size // 3
    began = time.perf_counter()
    shuffled(positions, size, seed=42)
    return time.perf_counter() - began


def _best(timed: Any, rounds: int = 50) -> float:
    return min(timed() for _ in range(rounds))


def _resident() -> int:
    with open("/proc/self/statm") as handle:
        return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Formatting ---------------------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _count(pairs: int) -> str:
    return f"{pairs / 1e9:.0f} B" if pairs >= 1e9 else f"{pairs / 1e6:.0f} M"


def _range(values: Sequence[float], form: str) -> str:
    low, high = (format(value, form) for value in values)
    return low if low == high else f"{low} to {high}"


def _duration(seconds: float) -> str:
    return _span([seconds])


def _span(seconds: Sequence[float]) -> str:
    """Formats durations from the shortest to the longest, in the unit of the longest."""
    units = (
        ("days", 172_800.0, 86_400.0),
        ("h", 3600.0, 3600.0),
        ("min", 60.0, 60.0),
        ("s", 1.0, 1.0),
        ("ms", 0.0, 0.001),
    )
    unit, _, length = next(one for one in units if seconds[-1] >= one[1])
    form = ",.0f" if unit == "ms" else ",.1f"
    return f"{_range([seconds[0] / length, seconds[-1] / length], form)} {unit}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure the constants here, and print them as JSON")
    if parser.parse_args(arguments).measure:
        print(json.dumps(measure(), indent=1))
    else:
        print("\n\n".join(tables()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

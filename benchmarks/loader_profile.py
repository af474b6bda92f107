"""Where the time of our input pipeline goes: one process, one thread, by function."""

from __future__ import annotations

import cProfile
import pstats
import time
from pathlib import Path
from typing import Any

from benchmarks.loader_sides import LoaderSpec

BATCHES = 12
# A part of the work, and the functions whose whole time it is: a file's end and a name, or a name within a library's call.
PARTS = {
    "read the records": ("data_pipelines/builders/source.py", "read"),
    "decode JPEGs": ("salmu_jax/models/fast_jpeg.py", "decode"),
    "crop and resize": ("salmu_jax/models/fast_jpeg.py", "resize"),
    "draw the crops": ("salmu_jax/models/preprocess.py", "random_crop_box"),
    "tokenise": ("salmu_jax/models/tokenizer.py", "__call__"),
    "order": ("data_pipelines/order.py", "shuffled"),
}


def profile(spec: LoaderSpec) -> dict[str, Any]:
    """Makes batches in this process; returns milliseconds a pair, in all and by part (which the profiler makes slower)."""
    from data_pipelines.input import AUGMENT, PairSource, _Load
    from salmu_jax.models.tokenizer import ClipTokenizer

    source = PairSource.open(Path(spec.directory) / "datasets", ["retain_pairs/train"])
    load = _Load(source, ClipTokenizer(), spec.image_size, spec.batch, 0, AUGMENT, None)
    load(0)
    profiler, began = cProfile.Profile(time.process_time), time.process_time()
    for number in range(1, 1 + BATCHES):
        load(number)
    plain = time.process_time() - began
    profiler.enable()
    for number in range(1 + BATCHES, 1 + 2 * BATCHES):
        load(number)
    profiler.disable()
    stats = pstats.Stats(profiler)
    pairs = BATCHES * spec.batch
    found = {part: 0.0 for part in PARTS}
    for (file, _, name), (_, _, _, cumulative, callers) in stats.stats.items():  # type: ignore[attr-defined]
        for part, (path, function) in PARTS.items():
            if file.endswith(path) and name == function:
                inner = sum(times[3] for (caller, _, same), times in callers.items() if (caller, same) == (file, name))
                found[part] += cumulative - inner
    whole = stats.total_tt  # type: ignore[attr-defined]
    parts = {part: 1000 * seconds / pairs for part, seconds in found.items()}
    parts["the rest"] = 1000 * whole / pairs - sum(parts.values())
    return {"cpu_ms_per_pair": 1000 * plain / pairs, "profiled_ms_per_pair": 1000 * whole / pairs, "parts": parts}


def lines(found: dict[str, Any]) -> list[str]:
    """The table to print."""
    rows = [
        f"{found['cpu_ms_per_pair']:.2f} ms of CPU time a pair, in one process without the profiler; of the profiled:"
    ]
    for part, milliseconds in found["parts"].items():
        rows.append(f"{part:20} {milliseconds:6.3f} ms {100 * milliseconds / found['profiled_ms_per_pair']:5.1f} %")
    return rows

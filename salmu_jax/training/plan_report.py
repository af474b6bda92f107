"""Reports a plan (``salmu plan``): prints its table, tries changes that would make it fit, and writes JSON."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from salmu_jax import config as config_lib
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.workspace import provenance, say
from salmu_jax.training import chips, plan

PUBLISHED_PAIRS = 400_000_000  # of the released foundation models
ASSUMED_BYTES_PER_PAIR = 40_000  # a JPEG of 512 pixels at img2dataset's quality, and its caption
_CAVEAT = "This is a plan: compiled and computed, with published figures of the chip. Nothing in it was measured."


def run(
    config: ConfigDict,
    topology: str,
    *,
    pairs: int | None = None,
    bytes_per_pair: float | None = None,
    fast: bool = False,
    output: Path | None = None,
) -> plan.Plan:
    """Prints the plan of ``config`` on ``topology``, tries changes if it does not fit, and writes JSON to ``output``.

    Raises InputError, see :func:`plan.make_plan`, or if ``output`` cannot be written.
    """
    if pairs is not None and pairs < config.train.batch_size:
        raise InputError(f"{pairs} pairs are less than a batch of {config.train.batch_size}", "--pairs")
    if bytes_per_pair is not None and not (math.isfinite(bytes_per_pair) and bytes_per_pair > 0):
        raise InputError(f"is {bytes_per_pair:g}; a number above 0 is needed", "--bytes-per-pair")
    assumed = [
        *([f"{PUBLISHED_PAIRS:,} pairs, as published (--pairs)"] if pairs is None else []),
        *([f"{ASSUMED_BYTES_PER_PAIR:,} bytes per pair (--bytes-per-pair)"] if bytes_per_pair is None else []),
    ]
    sizes = {
        "pairs": PUBLISHED_PAIRS if pairs is None else pairs,
        "bytes_per_pair": ASSUMED_BYTES_PER_PAIR if bytes_per_pair is None else bytes_per_pair,
        "fast": fast,
    }
    made = plan.make_plan(config, topology, **sizes, say=lambda line: say(f"plan: {line}"))
    say("\n" + "\n".join(table(config, made, assumed)))
    tried = [] if made.memory.fits else _try_changes(config, topology, fast)
    if output is not None:
        whole = {
            "schema": "salmu_jax.plan/1",
            "caveat": _CAVEAT,
            **dataclasses.asdict(made),
            "seconds_per_step": made.seconds(),
            "assumed": assumed,
            "tried": tried,
            **provenance(config_lib.to_json(config)),
        }
        files.write_json(output, whole)
    return made


def table(config: ConfigDict, made: plan.Plan, assumed: list[str]) -> list[str]:
    """Formats the plan as lines; memory in powers of two, everything else in powers of ten."""
    model, train, memory = config.model, config.train, made.memory
    share = train.batch_size / made.chips
    execution = f"{'scanned' if model.scan_layers else 'unrolled'} layers, remat {model.remat}"
    caching = f", {train.microbatch:,} at a time" if train.microbatch else ""
    rows = [
        (
            "model",
            f"{model.architecture}, {made.parameters / 1e6:,.1f} M parameters, {model.compute_dtype}, {execution}",
        ),
        ("chips", f"{made.chips:,} {made.chip.name if made.chip else made.chip_kind}, {_mesh(made)}"),
        ("batch", f"{train.batch_size:,} pairs, {share:,.4g} a chip{caching}; {train.loss} loss, {train.loss_form}"),
        ("steps", f"{made.steps:,}: {train.epochs:g} epochs of {made.pairs:,} pairs"),
        ("memory a chip", _memory(memory)),
        ("FLOPs per step", _flops(made)),
        ("moved a step", _moved(made)),
    ]
    seconds = made.seconds()
    if seconds:
        slowest = max(seconds, key=seconds.get)
        parts = ", ".join(f"{name} {1e3 * value:,.1f}" for name, value in seconds.items())
        least = made.roofline()
        mfu = made.model_flops / (least * made.chips * made.chip.peak_flops)
        hours = least * made.steps / 3600
        rows += [
            ("time a step", f"at least {1e3 * least:,.1f} ms, bound by {slowest} (ms: {parts})"),
            ("that is", f"{train.batch_size / least:,.0f} pairs/s, MFU at most {100 * mfu:.0f} %"),
            ("the whole run", f"at least {hours:,.1f} h, {hours * made.chips:,.0f} chip-hours"),
        ]
        data = f"{made.bytes_to_read / 1e12:,.3g} TB, {made.bytes_to_read / made.steps / least / 1e9:,.2f} GB/s at that speed"
    else:
        reason = "it does not fit" if not memory.fits else f"no published figures of {made.chip_kind}"
        rows.append(("time a step", f"not known: {reason}"))
        data = f"{made.bytes_to_read / 1e12:,.3g} TB"
    rows.append(("data to read", data))
    lines = [f"Plan of '{config.name}' on {made.topology}", ""]
    lines += [f"  {name:<14} {text}" for name, text in rows]
    lines += ["", _CAVEAT, *([f"Assumed: {'; '.join(assumed)}."] if assumed else [])]
    return lines


def _try_changes(config: ConfigDict, topology: str, fast: bool) -> list[dict[str, Any]]:
    """Compiles the step with each change and prints what it would need."""
    devices = plan.topology_devices(topology)
    per_chip = chips.devices_per_chip(devices)
    say("\nIt does not fit. What would:")
    tried = []
    for change in plan.alternatives(config, len(devices)):
        text = " ".join(f"--config.{field}={value}" for field, value in change.items())
        try:
            memory = plan.compile_step(plan.changed(config, change), devices, fast=fast)[0]
        except InputError as error:
            say(f"  {text}: not possible ({error})")
            continue
        verdict = "fits" if memory.fits else "does not fit"
        say(f"  {text}: {verdict}, {per_chip * memory.needed / chips.GIB:,.1f} GiB a chip")
        tried.append({"change": change, "fits": memory.fits, "bytes_per_chip": per_chip * memory.needed})
    if not any(attempt["fits"] for attempt in tried):
        say("  none of these; it takes a larger topology or a smaller model")
    return tried


def _mesh(made: plan.Plan) -> str:
    axes = " x ".join(f"{name} {size}" for name, size in made.mesh.items())
    return f"mesh {axes}" + (f" ({made.devices // made.chips} devices a chip)" if made.devices > made.chips else "")


def _memory(memory: plan.Memory) -> str:
    def gib(size: float) -> str:
        return f"{size / chips.GIB:,.1f}"

    of = f" of {gib(memory.limit)}" if memory.limit else ""
    if not memory.fits:
        return f"{gib(memory.needed)}{of} GiB: it does not fit"
    return (
        f"{gib(memory.needed)}{of} GiB ({gib(memory.arguments)} state and batch, {gib(memory.temporaries)} temporary)"
    )


def _flops(made: plan.Plan) -> str:
    again = made.executed_flops / made.model_flops - 1
    recomputed = f", and {100 * again:.0f} % of it again (recomputation)" if again > 1e-3 else ""
    return f"{made.model_flops / 1e12:,.1f} TFLOP{recomputed}"


def _moved(made: plan.Plan) -> str:
    if not made.memory_traffic:
        return "not known"
    kinds = ", ".join(
        f"{kind} {size * made.devices / made.chips / 1e6:,.0f}" for kind, size in made.collectives.items()
    )
    network = f"{made.interconnect_traffic / 1e6:,.0f} MB over the interconnect" + (f" ({kinds})" if kinds else "")
    return f"a chip: {made.memory_traffic / 1e9:,.1f} GB through memory, {network}"

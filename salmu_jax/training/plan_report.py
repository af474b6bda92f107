"""Reports a plan (``salmu plan``): prints its table, tries changes that would make it fit, and writes JSON."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from salmu_jax import config as config_lib
from salmu_jax.models.build import make_clip
from salmu_jax.runtime import files, host
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.workspace import provenance, say
from salmu_jax.training import chips, plan
from salmu_jax.training.input_costs import MFU, InputCosts, input_costs, measure_decoding, vcpus_of

SCHEMA = "salmu_jax.plan/1"
PUBLISHED_PAIRS = 400_000_000  # of the released foundation models
ASSUMED_BYTES_PER_PAIR = 40_000  # a JPEG of 512 pixels at img2dataset's quality, and its caption
_CAVEAT = "This is a plan: compiled and computed, with published figures of the chip. No run was measured."


def run(
    config: ConfigDict,
    topology: str,
    *,
    pairs: int | None = None,
    bytes_per_pair: float | None = None,
    images_per_vcpu: float | None = None,
    fast: bool = False,
    output: Path | None = None,
) -> plan.Plan:
    """Prints the plan of ``config`` on ``topology``, tries changes if it does not fit, and writes JSON to ``output``.

    ``images_per_vcpu`` is what a vCPU of a host decodes in a second; None: it is measured here.

    Raises InputError, see :func:`plan.make_plan`, or if ``output`` cannot be written.
    """
    if pairs is not None and pairs < config.train.batch_size:
        raise InputError(f"{pairs} pairs are less than a batch of {config.train.batch_size}", "--pairs")
    for option, value in (("--bytes-per-pair", bytes_per_pair), ("--images-per-vcpu", images_per_vcpu)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"is {value:g}; a number above 0 is needed", option)
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
    costs = _costs(config, made, sizes["bytes_per_pair"], images_per_vcpu)
    if costs is not None and images_per_vcpu is None:
        assumed.append(f"{costs.images_per_vcpu:,.0f} images/s a vCPU, as this machine decodes now (--images-per-vcpu)")
    say("\n" + "\n".join(table(config, made, assumed, costs)))
    tried = [] if made.memory.fits else _try_changes(config, topology, fast)
    if output is not None:
        whole = {
            "schema": SCHEMA,
            "caveat": _CAVEAT,
            **dataclasses.asdict(made),
            "seconds_per_step": made.seconds(),
            "input": costs.to_json() if costs else None,
            "assumed": assumed,
            "tried": tried,
            **provenance(config_lib.to_json(config)),
        }
        files.write_json(output, whole)
    return made


def _costs(
    config: ConfigDict, made: plan.Plan, bytes_per_pair: float, images_per_vcpu: float | None
) -> InputCosts | None:
    """Returns what the input costs; None where the speed is not known."""
    if made.chip is None or not made.memory.fits:
        return None
    vcpus = host.cpu_count() if made.topology == plan.LOCAL else vcpus_of(made.chip.name, made.chips // made.hosts)
    return input_costs(
        batch=config.train.batch_size,
        model_flops=made.model_flops,
        peak_flops=made.chips * made.chip.peak_flops,
        roofline=made.roofline(),
        hosts=made.hosts,
        vcpus=vcpus,
        images_per_vcpu=images_per_vcpu or measure_decoding(make_clip(config).config.image_size),
        bytes_per_pair=bytes_per_pair,
    )


def table(config: ConfigDict, made: plan.Plan, assumed: list[str], costs: InputCosts | None = None) -> list[str]:
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
    if costs is not None:
        rows += _input_rows(made, costs)
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


def _input_rows(made: plan.Plan, costs: InputCosts) -> list[tuple[str, str]]:
    """Returns the rows of what to expect, and of what that asks of each host."""

    def between(low: float, high: float, digits: str = ",.0f") -> str:
        first, second = format(low, digits), format(high, digits)
        return first if first == second else f"{first} to {second}"

    slow, fast = costs.seconds_per_step
    hours = [seconds * made.steps / 3600 for seconds in (fast, slow)]
    expected = f"{between(1e3 * fast, 1e3 * slow, ',.1f')} ms a step, {between(*hours, ',.1f')} h in all"
    decoding = (
        f"{between(*costs.images_per_second)} images/s to decode, which takes {between(*costs.vcpus_needed)} vCPUs"
    )
    has = "" if costs.vcpus is None else f" of {costs.vcpus}"
    reading = " to ".join(f"{rate / 1e6:,.0f}" for rate in costs.bytes_per_second)
    rows = [
        ("to be expected", f"{expected}: {MFU[0]:.0%} to {MFU[1]:.0%} MFU, where no bound forbids it"),
        ("each host", f"{costs.hosts:,} hosts; {decoding}{has} at {costs.images_per_vcpu:,.0f} images/s each"),
        ("reads", f"{reading} MB/s a host, in records at random places"),
    ]
    if costs.seconds_to_first_batch:
        rows.append(("first batch", f"{costs.seconds_to_first_batch:,.1f} s after the start, besides compilation"))
    if costs.enough is False:
        rows.append(("WARNING", "a host has too few vCPUs to decode at that speed: the chips would wait for data"))
    return rows


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

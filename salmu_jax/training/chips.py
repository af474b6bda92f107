"""Published figures of accelerators, for plans and for model FLOPs utilisation (MFU).

Per chip, as their makers publish them: dense bfloat16 peak, memory, memory bandwidth, and interconnect bandwidth (TPUs:
"interchip interconnect" in the Cloud TPU system architecture pages; GPUs: NVLink in the data sheets of the SXM modules).
"""

from __future__ import annotations

import dataclasses
import re

import jax

GB = 10**9
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator chip. FLOP/s of dense bfloat16, bytes, bytes/s, bytes/s over all links of the chip."""

    name: str
    peak_flops: float
    memory: float
    memory_bandwidth: float
    interconnect_bandwidth: float


# By a pattern for JAX's ``device.device_kind``; the first match counts.
_CHIPS = (
    (r"TPU v2", Chip("TPU v2", 45e12, 16 * GIB, 700 * GB, 496 * GB / 8)),
    (r"TPU v3", Chip("TPU v3", 123e12, 32 * GIB, 900 * GB, 656 * GB / 8)),
    (r"TPU v4", Chip("TPU v4", 275e12, 32 * GIB, 1_228 * GB, 2_400 * GB / 8)),
    (r"TPU v5 ?lite|TPU v5e", Chip("TPU v5e", 197e12, 16 * GIB, 819 * GB, 1_600 * GB / 8)),
    (r"TPU v5", Chip("TPU v5p", 459e12, 95 * GIB, 2_765 * GB, 4_800 * GB / 8)),
    (r"TPU v6", Chip("TPU v6e", 918e12, 32 * GIB, 1_640 * GB, 3_584 * GB / 8)),
    (r"TPU ?v?7", Chip("TPU7x", 2_307e12, 192 * GIB, 7_380 * GB, 9_600 * GB / 8)),
    (r"H200", Chip("NVIDIA H200", 989e12, 141 * GB, 4_800 * GB, 900 * GB)),
    (r"H100", Chip("NVIDIA H100", 989e12, 80 * GB, 3_350 * GB, 900 * GB)),
    (r"A100.*40GB", Chip("NVIDIA A100 40 GB", 312e12, 40 * GB, 1_555 * GB, 600 * GB)),
    (r"A100", Chip("NVIDIA A100 80 GB", 312e12, 80 * GB, 2_039 * GB, 600 * GB)),
    (r"\bL4\b", Chip("NVIDIA L4", 121e12, 24 * GB, 300 * GB, 64 * GB)),
)


def chip_of(device: jax.Device) -> Chip | None:
    """Returns the published figures of the chip of ``device``, or None if it is not in the table (a CPU)."""
    return next((chip for pattern, chip in _CHIPS if re.search(pattern, device.device_kind)), None)


def peak_flops(devices: list[jax.Device]) -> float:
    """Returns the peak FLOP/s of all chips of ``devices`` together, or 0 if one of them is not in the table.

    Some TPU generations have two devices a chip; each then counts as a half.
    """
    chips = [chip_of(device) for device in devices]
    if not chips or None in chips:
        return 0.0
    return sum(chip.peak_flops / devices_per_chip(devices) for chip in chips if chip)


def devices_per_chip(devices: list[jax.Device]) -> int:
    """Returns 2 if each core of a TPU chip is a device of its own, else 1."""
    coordinates = {(getattr(d, "slice_index", 0), *coords) for d in devices if (coords := getattr(d, "coords", None))}
    return len(devices) // len(coordinates) if coordinates else 1

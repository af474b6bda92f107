"""What the devices that JAX computes on can do."""

from __future__ import annotations

import jax


def nvidia_generation() -> int:
    """The first number of the compute capability of NVIDIA's GPUs: 8 for Ampere, 9 for Hopper; 0 on all else."""
    if jax.default_backend() != "gpu":
        return 0
    capability = getattr(jax.local_devices()[0], "compute_capability", "")  # AMD's GPUs have names such as gfx942
    generation = capability.split(".")[0]
    return int(generation) if generation.isdigit() else 0

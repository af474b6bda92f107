"""Queries what JAX's devices can do."""

from __future__ import annotations

import jax


def nvidia_generation() -> int:
    """Returns the major compute capability of NVIDIA GPUs: 8 for Ampere, 9 for Hopper; 0 on other devices."""
    if jax.default_backend() != "gpu":
        return 0
    capability = getattr(jax.local_devices()[0], "compute_capability", "")  # AMD's GPUs have names such as gfx942
    generation = capability.split(".")[0]
    return int(generation) if generation.isdigit() else 0

"""Compares the first step of both sides, its loss and its update, before any step is timed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np

from salmu_jax.interop import huggingface, open_clip
from salmu_jax.interop.mapping import to_state
from salmu_jax.models.clip import ClipConfig, Params

LOSS_TOLERANCE = 1e-4  # relative
UPDATE_TOLERANCE = (
    2e-2  # relative to a tensor's update; Adam's first one divides each gradient by itself, also a tiny one
)

Tensors = Mapping[str, np.ndarray]


def tensors(config: ClipConfig, params: Params) -> dict[str, np.ndarray]:
    """Returns our parameters under the names that they have in PyTorch's library here."""
    library = open_clip if importlib.util.find_spec("open_clip") else huggingface
    return to_state(params, library.table(config))


def summary(loss: float, before: Tensors, after: Tensors) -> dict[str, Any]:
    """Returns the loss, and of each tensor's update its norm and its sum weighed by a fixed wave, which has signs."""
    update = {}
    for name, tensor in after.items():
        moved = _compared(name, (tensor - before[name]).ravel())
        wave = np.cos(np.arange(moved.size, dtype=np.float32))
        update[name] = [float(np.linalg.norm(moved)), float(wave @ moved)]
    return {"loss": loss, "update": update}


def _compared(name: str, update: np.ndarray) -> np.ndarray:
    """Returns the update [N] without that of keys' biases, which softmax ignores.

    Their gradient is 0 but for rounding, of which Adam may make a step.
    """
    if name.endswith("k_proj.bias"):  # transformers
        return np.zeros_like(update)
    if name.endswith("in_proj_bias"):  # OpenCLIP: queries, keys, values
        keys = len(update) // 3
        return np.concatenate([update[:keys], np.zeros_like(update[:keys]), update[2 * keys :]])
    return update


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Returns what differs between two summaries by more than the tolerances, in words; nothing if they agree."""
    found = []
    if abs(ours["loss"] - theirs["loss"]) > LOSS_TOLERANCE * abs(theirs["loss"]):
        found.append(f"the loss is {ours['loss']:.8g}, PyTorch's {theirs['loss']:.8g}")
    if ours["update"].keys() != theirs["update"].keys():
        found.append(f"tensors of one side alone: {sorted(ours['update'].keys() ^ theirs['update'].keys())}")
    for name in sorted(ours["update"].keys() & theirs["update"].keys()):
        (norm, wave), (their_norm, their_wave) = ours["update"][name], theirs["update"][name]
        if max(abs(norm - their_norm), abs(wave - their_wave)) > UPDATE_TOLERANCE * max(norm, their_norm):
            found.append(
                f"the update of {name} is {norm:.4g} ({wave:.4g}), PyTorch's {their_norm:.4g} ({their_wave:.4g})"
            )
    return found

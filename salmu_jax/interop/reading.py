"""Weights from files: safetensors, whole or in shards, and PyTorch's archives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load_file

from salmu_jax import files
from salmu_jax.errors import InputError
from salmu_jax.interop import torch_pickle
from salmu_jax.interop.mapping import State

_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def find_weights(directory: Path, names: tuple[str, ...]) -> Path:
    """The weights file in ``directory``: the first of ``names`` that exists, or the only file with weights.

    Raises InputError if there is none, or several without a usual name.
    """
    for name in names:
        if (directory / name).is_file():
            return directory / name
    found = sorted(path for path in directory.iterdir() if path.suffix in (".safetensors", *_PICKLED))
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "no weights"
        raise InputError(f"holds {listed}; expected one of {', '.join(names)}", directory)
    return found[0]


def read_state(path: Path) -> State:
    """All tensors of ``path`` by name, in the dtypes they are stored in. Raises InputError for what cannot be read."""
    if path.name.endswith(".index.json"):
        state: State = {}
        for shard in weight_files(path):
            state |= read_state(shard)
        return state
    if not path.is_file():
        raise InputError("no such file", path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
            raise InputError(f"not a readable safetensors file ({error}): damaged or cut off", path) from error
    if path.suffix in _PICKLED:
        return _state_dict(torch_pickle.load(path), path)
    raise InputError(f"{path.suffix or 'no'} suffix; .safetensors, {', '.join(_PICKLED)} are read", path)


def weight_files(path: Path) -> list[Path]:
    """The files that hold the tensors of ``path``: itself, or the shards that an index names, in order.

    Raises InputError for an index that is none, or names a file that cannot be one of its shards.
    """
    if not path.name.endswith(".index.json"):
        return [path]
    index = files.read_json(path)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise InputError("field 'weight_map' has to name the file of every tensor", path)
    shards = sorted(set(names.values()))
    for name in shards:
        if Path(name).name != name or name.endswith(".json"):
            raise InputError(f"{name!r} is no file of weights in the directory", path)
    return [path.with_name(name) for name in shards]


def _state_dict(value: Any, path: Path) -> State:
    """The tensors of a state dict, or of a training checkpoint that holds one, without the prefix of a wrapped model."""
    for key in ("state_dict", "model_state_dict"):
        if isinstance(value, Mapping) and isinstance(value.get(key), Mapping):
            value = value[key]
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"holds a {type(value).__name__}, not a state dict", path)
    strays = [name for name, tensor in value.items() if not isinstance(tensor, np.ndarray) or not isinstance(name, str)]
    if strays:
        raise InputError(f"not a state dict: {strays[0]!r} is no tensor", path)
    wrapped = all(name.startswith("module.") for name in value)
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in value.items()}

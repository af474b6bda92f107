"""Reads weights: safetensors, whole or in shards, and PyTorch's archives; finds the state dict in a training checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salmu_jax.interop import safetensors_file, torch_pickle
from salmu_jax.interop.pickled import OtherKey, Unread
from salmu_jax.interop.tensors import StoredTensor
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.opening import check_regular, open_regular

_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
SUFFIXES = (".safetensors", *_PICKLED)
_INDEX = ".index.json"
_ZIP = b"PK\3\4"
_HTML = (b"<!doctype html", b"<html")
# Keys under which training checkpoints keep weights; the first one present counts. An average of weights (EMA) is another
# model, and is read only if it is the only one.
_STATES = (
    *(
        "state_dict",
        "model_state_dict",
        "model_state",
        "model",
        "module",
        "network",
        "net",
        "clip",
        "weights",
        "params",
    ),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema"),
)
_MAX_DEPTH, _MAX_NAME = 4, 500
# Parts of names that wrappers add: torch.compile, FSDP, activation checkpointing.
_WRAPPERS = frozenset(["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
# First parts of names in a bare state dict, never taken for a wrapper's name.
_BARE = frozenset(["visual", "transformer", "vision_model", "text_model", "text"])
# What torch.optim.swa_utils.AveragedModel keeps beside the model.
_BESIDE = frozenset(["n_averaged"])
# What torch.save calls to rebuild tensors that we do not read.
_UNREAD_TENSORS = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor (save its to_dense())",
    "torch._utils._rebuild_qtensor": "a quantised tensor (save the model before it is quantised)",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor on the meta device, which has no numbers",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
}
_NUMPY = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Tensors by bare name, the files that hold them, and how they were found."""

    tensors: dict[str, StoredTensor]
    files: list[Path]
    within: str = ""  # the keys that lead to them in a training checkpoint, such as ``model``
    prefix: str = ""  # the prefix that all names had
    passed_over: tuple[str, ...] = ()  # other contents of the file
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unread: Mapping[str, str] = dataclasses.field(default_factory=dict)  # other names, and what they hold


def find_weights(directory: Path, names: tuple[str, ...]) -> Path:
    """Returns the weights file in ``directory``: the first of ``names`` that exists, or the only file with weights.

    Raises InputError if there is none, or several without a usual name.
    """
    for name in names:
        if (directory / name).exists():
            return directory / name
    found = sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES)
    if len(found) != 1:
        names_found = listed(path.name for path in found) or "no weights"
        raise InputError(f"holds {names_found}; expected one of {', '.join(names)}", directory)
    return found[0]


def read_weights(path: Path) -> Weights:
    """Reads the weights in ``path``. Raises InputError if it cannot be read, or holds no state dict."""
    if not path.name.endswith(_INDEX):
        return _read_file(path)
    index = files.read_json(path)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise InputError("field 'weight_map' has to name the file of every tensor", path)
    tensors: dict[str, StoredTensor] = {}
    shards = [path.with_name(_shard_name(name, path)) for name in sorted(set(names.values()))]
    for shard in shards:
        found = _read_file(shard, strip=False).tensors
        indexed = {name for name, file in names.items() if file == shard.name}
        if found.keys() != indexed:
            differ = listed(sorted(found.keys() ^ indexed))
            raise InputError(f"holds other tensors than {path.name} says: {differ}", shard)
        tensors |= found
    bare, prefix = _without_prefix(tensors, path)
    return Weights(bare, shards, prefix=prefix)


def _shard_name(name: str, index: Path) -> str:
    plain = name.isprintable() and Path(name).name == name
    if not plain or name in ("", ".", "..") or Path(name).suffix not in SUFFIXES:
        raise InputError(f"{name[:80]!r} is not a weights file in the directory", index)
    return name


def _read_file(path: Path, strip: bool = True) -> Weights:
    if not path.exists():
        raise InputError("no such file", path)
    check_regular(path)
    kind = _kind_of_file(path)
    if kind == ".safetensors":
        tensors, metadata = safetensors_file.read_header(path)
        found = Weights(tensors, [path], metadata=metadata)
    elif kind in _PICKLED:
        found = _state_dict(torch_pickle.load(path), path)
    else:
        raise InputError(f"{path.suffix or 'no'} suffix; {', '.join(SUFFIXES)} are read", path)
    if not found.tensors:
        raise InputError("holds no tensors", path)
    if not strip:
        return found
    bare, prefix = _without_prefix(found.tensors, path)
    unread = {_without_wrappers(name).removeprefix(f"{prefix}."): what for name, what in found.unread.items()}
    return dataclasses.replace(found, tensors=bare, prefix=prefix, unread=unread)


def _kind_of_file(path: Path) -> str:
    """Returns the suffix of a file's format, by its first bytes (cached downloads have no suffix), or else its own.

    Raises InputError for an HTML page that was downloaded instead of weights.
    """
    with open_regular(path) as handle:
        head = handle.read(64)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_HTML):
        raise InputError("an HTML page, not weights: a download that needed a login, or of a page about the file", path)
    if head.startswith(_ZIP):
        return _PICKLED[0]
    if head[8:9] == b"{" and head[5:8] == b"\0\0\0":
        return SUFFIXES[0]
    return path.suffix


# The state dict in a checkpoint ---------------------------------------------------------------------------------------


def _state_dict(value: Any, path: Path) -> Weights:
    """Returns the state dict in a saved value: the value itself, or one under the keys that training loops use."""
    passed_over: list[str] = []
    keys = _state_keys(value) if isinstance(value, Mapping) else ()
    for key in keys:
        passed_over += [str(name) for name in value if name != key]
        value = value[key]
    if isinstance(value, Unread):
        raise InputError(
            f"holds an object of {value.kind}, not a state dict; save model.state_dict() instead (with the classes that"
            " made it; nothing of them is run here)",
            path,
        )
    if not isinstance(value, Mapping) or not _tensors_in(value):
        raise InputError(f"holds a {_kind(value)}, not a state dict", path)
    for name, item in value.items():
        if isinstance(name, OtherKey):
            raise InputError("not a state dict: one of its keys is not text", path)
        if not isinstance(item, StoredTensor):
            passed_over.append(f"{name} ({item.kind})" if isinstance(item, Unread) else name)
    tensors = {name: item for name, item in value.items() if isinstance(item, StoredTensor)}
    unread = {name: _what(item) for name, item in value.items() if name not in tensors}
    if not tensors:
        problems = listed((f"{name[:80]} is {what}" for name, what in unread.items()), 3, "; ")
        raise InputError(f"none of its tensors can be read: {problems}", path)
    names = tuple(name[:60] for name in passed_over)
    return Weights(tensors, [path], ".".join(keys), passed_over=names, unread=unread)


def _state_keys(value: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the keys that lead to the state dict in a checkpoint: the first with more tensors under it than at the top.

    No dictionary is visited twice, since one may contain itself.
    """
    here, seen = _tensors_in(value), {id(value)}
    level: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), value)]
    for _ in range(_MAX_DEPTH):
        below = []
        for keys, item in level:
            for key in _STATES:
                child = item.get(key)
                if isinstance(child, Mapping) and id(child) not in seen:
                    seen.add(id(child))
                    below.append(((*keys, key), child))
        found = next((keys for keys, item in below if _tensors_in(item) > here), None)
        if found is not None:
            return found
        level = below
    # An unlisted key, if it is the only one.
    own = [key for key, item in value.items() if isinstance(item, Mapping) and "optim" not in str(key)]
    holding = [key for key in own if isinstance(key, str) and _tensors_in(value[key]) > here]
    return (holding[0],) if len(holding) == 1 else ()


def _tensors_in(value: Mapping[str, Any]) -> int:
    return sum(
        isinstance(item, StoredTensor) or (isinstance(item, Unread) and item.kind in _UNREAD_TENSORS)
        for item in value.values()
    )


def _what(value: Any) -> str:
    """Describes a value that is not a readable tensor."""
    if isinstance(value, Unread):
        if value.kind in _NUMPY:
            return "a numpy array, not a tensor"
        return _UNREAD_TENSORS.get(value.kind, f"an object of {value.kind}, not a tensor")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a plain number, not a tensor"
    return "None, not a tensor" if value is None else f"a {type(value).__name__}, not a tensor"


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "dictionary without tensors"
    return "tensor" if isinstance(value, StoredTensor) else type(value).__name__


# Names ----------------------------------------------------------------------------------------------------------------


def _without_prefix(tensors: Mapping[str, StoredTensor], path: Path) -> tuple[dict[str, StoredTensor], str]:
    """Returns ``tensors`` with wrappers' parts stripped from their names, and the common prefix that was stripped."""
    longest = max(map(len, tensors))
    if longest > _MAX_NAME:
        raise InputError(f"a tensor has a name of {longest:,} characters; at most {_MAX_NAME:,} are read", path)
    bare: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        if name in _BESIDE:
            continue
        short = _without_wrappers(name)
        if short in bare:
            raise InputError(f"two tensors are called {short[:80]}, with and without a wrapper's name", path)
        bare[short] = tensor
    removed: list[str] = []
    while bare:
        first = {name.partition(".")[0] for name in bare}
        if len(first) > 1 or first & _BARE or any("." not in name for name in bare):
            break
        removed += first
        bare = {name.partition(".")[2]: tensor for name, tensor in bare.items()}
    return bare, ".".join(removed)


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)

"""Reads PyTorch's ``.bin``, ``.pt``, ``.pth`` and ``.ckpt`` files without PyTorch, and without executing anything in them.

Such a file is a zip archive (``stored_zip.py``) with a pickle (``pickled.py``), which describes tensors as views of the
numbers in the archive's ``data/N`` entries. These become :class:`StoredTensor`; all other objects are ignored.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from salmu_jax.interop.pickled import MAX_BYTES, Named, PickleError, TrapError, Unread, read_pickle
from salmu_jax.interop.stored_zip import StoredEntry, read_directory
from salmu_jax.interop.tensors import DTYPES, StoredTensor
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.opening import open_regular

_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}  # an UntypedStorage has no dtype here: the tensor names it
_MAX_DIMENSIONS = 64
# The first bytes of files from before 1.6, or of _use_new_zipfile_serialization=False: a pickled number; or a tar's.
_OLD = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
_TAR_MAGIC = (257, b"ustar")


@dataclasses.dataclass(frozen=True, eq=False)
class _Storage:
    entry: StoredEntry
    dtype: str  # in DTYPES, or empty
    verify: Any  # runs once for all tensors of this storage


def load(path: Path) -> Any:
    """Returns the object in ``path``: dictionaries, lists and plain values, with tensors as :class:`StoredTensor`.

    Objects of any other class are :class:`Unread`. Raises InputError for a file that is not such an archive, or is damaged.
    """
    _refuse_old(path)
    entries = read_directory(path)
    pickles = [name for name in entries if name.endswith("/data.pkl") or name == "data.pkl"]
    if len(pickles) != 1:
        raise InputError("a zip archive, but not one of torch.save (no data.pkl in it)", path)
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in entries or any(name.startswith(f"{prefix}code/") for name in entries):
        raise InputError(
            "a TorchScript archive, as OpenAI publishes CLIP: a program, which is not run here. Save its weights once, with"
            f" torch.save(torch.jit.load({path.name!r}, map_location='cpu').state_dict(), 'weights.pt'), and import these"
            " (OpenAI's: with --architecture ViT-B-16-quickgelu or its like, and --allow-half)",
            path,
        )
    packed = next((entry for entry in entries.values() if entry.packed), None)
    if packed is not None:
        raise InputError(f"{packed.name[:80]} is compressed or encrypted, which torch.save never does", path)
    order = entries.get(f"{prefix}byteorder")
    if order is not None and order.read(16) != b"little":
        raise InputError("written on a big-endian machine; save it again on a little-endian one", path)
    storages: dict[str, _Storage] = {}

    def persistent(reference: Any) -> _Storage:
        if not isinstance(reference, tuple) or len(reference) != 5 or reference[0] != "storage":
            raise PickleError("a reference to something other than a tensor's numbers")
        _, kind, key, _, count = reference
        if not isinstance(kind, Named) or not isinstance(key, str | int):
            raise PickleError("a reference to something other than a tensor's numbers")
        name = f"{prefix}data/{key}"
        if name not in entries:
            raise PickleError(f"no numbers {str(key)[:40]!r}")
        dtype = _STORAGES.get(kind.name, "") if kind.module in ("torch", "torch.storage") else ""
        size = entries[name].size
        if dtype and (type(count) is not int or count * DTYPES[dtype].itemsize != size):
            raise PickleError(f"storage {str(key)[:40]} holds {size:,} bytes, not {str(count)[:40]} numbers")
        if name not in storages or storages[name].dtype != dtype:
            storages[name] = _Storage(entries[name], dtype, _Once(entries[name]))
        return storages[name]

    try:
        return read_pickle(entries[pickles[0]].read(MAX_BYTES), _rebuild, persistent)
    except TrapError as error:
        raise InputError(f"{error}; such a file is not opened", path) from error
    except PickleError as error:
        raise InputError(f"damaged, or no file of torch.save: {error}", path) from error


class _Once:
    """Verifies an entry on the first call only."""

    def __init__(self, entry: StoredEntry):
        self._entry, self._done = entry, False

    def __call__(self) -> None:
        if not self._done:
            self._entry.verify()
            self._done = True


def _refuse_old(path: Path) -> None:
    with open_regular(path) as handle:
        head = handle.read(512)
    at, magic = _TAR_MAGIC
    if head.startswith(_OLD) or head[at : at + len(magic)] == magic:
        raise InputError(
            "written by PyTorch before 1.6, or in its old form; load it there and save it again, with"
            f" torch.save(torch.load({path.name!r}, map_location='cpu', weights_only=True), 'new.pt')",
            path,
        )


def _rebuild(named: Named, arguments: tuple[Any, ...]) -> Any:
    """Returns what a call of ``named`` makes, for the calls that torch.save writes for tensors."""
    match str(named):
        case "collections.OrderedDict":
            return _ordered(arguments)
        case "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor":
            return _tensor(*_some(arguments, 4), None)
        case "torch._utils._rebuild_tensor_v3":  # storage, offset, size, stride, requires_grad, hooks, dtype, ...
            return _tensor(*_some(arguments, 4), _some(arguments, 7)[6])
        case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state":
            return _some(arguments, 1)[0]
        case (
            "torch._tensor._rebuild_from_type_v2"
        ):  # a tensor with attributes: how it is made, its class, from what, state
            how, _, of = _some(arguments, 3)
            # Not itself again, which could nest endlessly.
            if isinstance(how, Named) and isinstance(of, tuple) and str(how) != str(named):
                return _rebuild(how, of)
    return Unread(str(named))


def _some(arguments: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    if len(arguments) < count:
        raise PickleError("a tensor that is not a view of its numbers")
    return arguments[:count]


def _ordered(arguments: tuple[Any, ...]) -> dict[str, Any] | Unread:
    if not arguments:
        return {}
    pairs = arguments[0]
    listed = isinstance(pairs, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs)
    if listed and all(isinstance(key, str) for key, _ in pairs):
        return dict(pairs)
    return Unread("collections.OrderedDict")


def _tensor(storage: Any, offset: Any, size: Any, strides: Any, dtype: Any) -> StoredTensor:
    """Returns the view of a storage; its size is checked when it is read. Raises PickleError if it is not a view."""
    whole = isinstance(storage, _Storage) and isinstance(size, tuple) and isinstance(strides, tuple)
    if not whole or len(size) != len(strides) or len(size) > _MAX_DIMENSIONS:
        raise PickleError("a tensor that is not a view of its numbers")
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in (offset, *size, *strides)):
        raise PickleError("a tensor that is not a view of its numbers")
    entry = storage.entry
    kind = storage.dtype or (dtype.name if isinstance(dtype, Named) and dtype.module == "torch" else "unknown numbers")
    if kind not in DTYPES:
        return StoredTensor(entry.path, kind, size, entry.start, entry.size, entry.start)
    width = DTYPES[kind].itemsize
    numbers = entry.size // width
    if 0 not in size and offset + sum((n - 1) * step for n, step in zip(size, strides, strict=True)) >= numbers:
        raise PickleError(f"a tensor of {list(size)[:8]} reaches beyond its {numbers:,} numbers")
    start = entry.start + offset * width
    return StoredTensor(entry.path, kind, size, start, numbers, entry.start, strides, storage.verify)

"""PyTorch's ``.bin``, ``.pt`` and ``.pth`` files, read without PyTorch and without running anything that they contain.

Such a file is a zip archive with a pickle, which may name any function of any module to be called. Here it may name a handful,
that rebuild tensors, each replaced by one of ours; everything else is refused by name. The numbers lie in the archive's
``data/N`` entries; views with strides and offsets come out as they are in PyTorch.
"""

from __future__ import annotations

import collections
import errno
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from salmu_jax.errors import InputError

_DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class _Refused(Exception):
    """The pickle names something that rebuilds no tensor."""


def load(path: Path) -> Any:
    """The object in ``path``, tensors as numpy arrays (bfloat16 as ``ml_dtypes.bfloat16``).

    Raises InputError for a file that is no such archive, is damaged, or wants anything to be run.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # what zipfile makes of damaged bytes: half a dozen kinds
        # EINVAL is a directory that points before the file; other errors of the system are not about what the file holds.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise InputError(
            f"not a zip archive as torch.save writes since 1.6 ({error}): cut off, or of an older PyTorch", path
        ) from error
    try:
        with archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
            if len(pickles) != 1:
                raise InputError("a zip archive, but not one of torch.save (no data.pkl in it)", path)
            prefix = pickles[0].removesuffix("data.pkl")
            if f"{prefix}byteorder" in archive.namelist() and archive.read(f"{prefix}byteorder") != b"little":
                raise InputError("written on a big-endian machine; save it again on a little-endian one", path)
            with archive.open(pickles[0]) as handle:
                return _Unpickler(handle, lambda key: archive.read(f"{prefix}data/{key}")).load()
    except InputError:
        raise
    except _Refused as refused:
        raise InputError(f"{refused}; such a file is not opened", path) from refused
    except Exception as error:  # whatever zipfile, its decompressors and pickle make of damaged bytes: a dozen kinds
        raise InputError(f"damaged, it cannot be read ({type(error).__name__}: {str(error)[:160]})", path) from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, handle: Any, read: Callable[[str], bytes]):
        super().__init__(handle)
        self._read = read

    def find_class(self, module: str, name: str) -> Any:
        # Functions made anew each time: a pickle may set attributes of what it names, and these then die with it.
        permitted = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *arguments: _rebuild_tensor(*arguments),
            ("torch._utils", "_rebuild_parameter"): lambda data, requires_grad, hooks: data,
        }
        if (module, name) in permitted:
            return permitted[module, name]
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        raise _Refused(f"its pickle wants {module}.{name}, which is no part of a tensor")

    def persistent_load(self, reference: Any) -> np.ndarray:
        kind, dtype, key, _, count = reference
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise _Refused(f"its pickle refers to a {kind!r}, not to a tensor's numbers")
        storage = np.frombuffer(self._read(str(key)), dtype)
        if len(storage) != count:
            raise ValueError(f"storage {key} holds {len(storage)} numbers, not {count}")
        return storage


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """A contiguous copy of the view that a tensor is of its storage."""
    if not isinstance(storage, np.ndarray) or len(size) != len(stride) or min((offset, *size, *stride), default=0) < 0:
        raise ValueError("a tensor that is no view of its numbers")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.zeros(size, storage.dtype)
    if last >= len(storage):
        raise ValueError(f"a tensor of {list(size)} reaches beyond its {len(storage)} numbers")
    strides = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False).copy()

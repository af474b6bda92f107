"""Describes tensors in a file: shape and dtype are known; the numbers are read one tensor at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.opening import open_regular

# The dtypes that are read; tensors of other dtypes are listed but stay in their files.
DTYPES = {
    name: np.dtype(getattr(ml_dtypes, name, name))
    for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}


@dataclasses.dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file. ``dtype`` is a name, in :data:`DTYPES` if the tensor can be read.

    ``path`` and ``start`` locate its first number, ``strides`` (in numbers) the others; None for row-major order. ``numbers``
    is how many the file holds from ``storage`` on, perhaps shared with other tensors. ``verify`` checks a checksum, if the
    file has one.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    numbers: int
    storage: int
    strides: tuple[int, ...] | None = None
    verify: Callable[[], None] | None = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def repeats(self) -> bool:
        """Whether it has more elements than are stored: a view that repeats some could claim any size."""
        return self.size > self.numbers

    def read(self) -> np.ndarray:
        """Returns the numbers as a contiguous array. Raises InputError if they are damaged or unreadable."""
        if self.dtype not in DTYPES or self.repeats:
            kind = "a view that repeats its numbers" if self.repeats else f"of {self.dtype}"
            raise InputError(f"a tensor {list(self.shape)} is {kind}, which is not read", self.path)
        if self.verify is not None:
            self.verify()
        dtype = DTYPES[self.dtype]
        if not self.size:
            return np.zeros(self.shape, dtype)
        strides = self.strides
        extent = (
            self.size if strides is None else 1 + sum((n - 1) * s for n, s in zip(self.shape, strides, strict=True))
        )
        with open_regular(self.path) as handle:
            handle.seek(self.start)
            flat = np.fromfile(handle, dtype, extent)
        if len(flat) != extent:
            raise InputError("cut off", self.path)
        if strides is None:
            return flat.reshape(self.shape)
        steps = tuple(step * dtype.itemsize for step in strides)
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False))

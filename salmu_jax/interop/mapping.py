"""Converts parameters both ways by a table. Numbers are only moved, so both directions are exact to the bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from salmu_jax.interop.tensors import StoredTensor
from salmu_jax.models.clip import Clip, ClipConfig, Params
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import listed


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of the library, and the path of our parameter that it corresponds to.

    ``axes`` permutes our axes into theirs; () keeps them. ``part`` is (index, count) if theirs is a slice of our last axis,
    taken before the permutation.
    """

    name: str
    path: tuple[str, ...]
    axes: tuple[int, ...] = ()
    part: tuple[int, int] = (0, 1)


LINEAR = (1, 0)  # torch keeps weights as [out, in]
CONVOLUTION = (3, 2, 0, 1)  # [out, in, height, width]
_HALF = ("float16", "bfloat16")
_MOST_VIEWS = 4  # tensors may be tied, but many views of a small file could claim any size


def to_state(params: Params, table: Sequence[Entry]) -> dict[str, np.ndarray]:
    """Returns our parameters under the library's names, float32 and contiguous."""
    state = {}
    for entry in table:
        leaf = np.asarray(_at(params, entry.path), np.float32)
        index, count = entry.part
        leaf = np.split(leaf, count, axis=-1)[index] if count > 1 else leaf
        state[entry.name] = np.array(leaf.transpose(entry.axes) if entry.axes else leaf, order="C", copy=True)
    return state


def from_state(
    state: Mapping[str, StoredTensor],
    table: Sequence[Entry],
    config: ClipConfig,
    *,
    ignored: frozenset[str] = frozenset(),
    unread: Mapping[str, str] | None = None,
    allow_half: bool = False,
    where: str,
) -> Params:
    """Returns the library's tensors as our parameters, float32, read one at a time.

    Args:
      state: tensors by name.
      table: an entry for each tensor.
      config: the architecture, which determines the shapes.
      ignored: names that are not parameters and may be present (buffers of older versions).
      unread: other names in the file and what they hold, for messages.
      allow_half: widen half precision instead of refusing it.
      where: names the source in messages.

    Raises:
      InputError: names the tensors that are missing, extra, unreadable, misshapen, of half precision, or not finite.
    """
    by_name = {entry.name: entry for entry in table}
    unread = unread or {}
    problems = [f"{name} is {unread.get(name, 'missing')}" for name in by_name if name not in state]
    problems += [
        f"{name[:80]} is not part of this architecture" for name in state if name not in by_name and name not in ignored
    ]
    if 2 * len(by_name.keys() - state.keys()) > len(by_name):  # a different kind of model
        raise InputError(f"{len(problems)} problem(s): {listed(problems, separator='; ')}", where)
    used = [state[name] for name in by_name.keys() & state.keys() if not state[name].repeats]
    stored = sum({(tensor.path, tensor.storage): tensor.numbers for tensor in used}.values())
    if sum(tensor.size for tensor in used) > _MOST_VIEWS * stored:
        raise InputError(f"{len(used)} tensors are views of the same {stored:,} numbers: no model is", where)
    shapes = jax.eval_shape(Clip(config).init, jax.random.key(0))
    half, wrong = [], set()
    for name in by_name.keys() & state.keys():
        tensor, expected = state[name], _their_shape(by_name[name], shapes)
        # A scalar may be stored with shape [1].
        if tensor.shape != expected and not (expected == () and tensor.shape == (1,) * len(tensor.shape)):
            problem = f"{name} is {list(tensor.shape)[:8]}, not {list(expected)}"
        elif tensor.repeats:
            problem = f"{name} is a view that repeats its numbers"
        elif tensor.dtype not in ("float32", *_HALF):
            problem = f"{name} is {tensor.dtype}, not float32"
        else:
            half += [name] if tensor.dtype in _HALF else []
            continue
        problems.append(problem)
        wrong.add(name)
    if half and not allow_half:
        kinds = "/".join(sorted({state[name].dtype for name in half}))
        problems.append(
            f"{len(half)} tensors are {kinds}, half precision (--allow-half widens them), such as {min(half)}"
        )

    def read(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray | None:
        entries = by_path[tuple(key.key for key in path)]
        usable = [entry for entry in entries if entry.name in state and entry.name not in wrong]
        leaf = np.empty(shape.shape, np.float32) if len(usable) == len(entries) else None
        for entry in usable:
            array = state[entry.name].read().astype(np.float32, copy=False)
            if not np.isfinite(array).all():
                problems.append(f"{entry.name} holds values that are not finite")
            if leaf is not None:
                array = array.transpose(np.argsort(entry.axes)) if entry.axes else array
                index, count = entry.part
                width = leaf.shape[-1] // count if count > 1 else 0
                target = leaf[..., index * width : (index + 1) * width] if count > 1 else leaf
                target[...] = array.reshape(target.shape)
        return leaf

    by_path: dict[tuple[str, ...], list[Entry]] = {}
    for entry in table:
        by_path.setdefault(entry.path, []).append(entry)
    params = jax.tree_util.tree_map_with_path(read, shapes)
    if problems:
        raise InputError(f"{len(problems)} problem(s): {listed(sorted(problems), separator='; ')}", where)
    return params


def _their_shape(entry: Entry, shapes: Params) -> tuple[int, ...]:
    shape = _at(shapes, entry.path).shape
    if entry.part[1] > 1:
        shape = (*shape[:-1], shape[-1] // entry.part[1])
    return tuple(shape[axis] for axis in entry.axes) if entry.axes else shape


def _at(tree: Params, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree

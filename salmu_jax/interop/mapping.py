"""Renaming a tree of parameters, both ways, by a table: no number is computed, so that both ways are exact to the bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from salmu_jax.errors import InputError
from salmu_jax.models.clip import Clip, ClipConfig, Params

State = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of theirs, and where it comes from among ours.

    ``axes`` permutes our axes into theirs, () leaving them as they are; ``part`` is (index, count) where theirs is a slice
    of our last axis, which is cut first.
    """

    name: str
    path: tuple[str, ...]
    axes: tuple[int, ...] = ()
    part: tuple[int, int] = (0, 1)


LINEAR = (1, 0)  # torch keeps weights as [out, in]
CONVOLUTION = (3, 2, 0, 1)  # [out, in, height, width]


def to_state(params: Params, table: Sequence[Entry]) -> State:
    """Our parameters under their names; float32, contiguous."""
    state = {}
    for entry in table:
        leaf = np.asarray(_at(params, entry.path), np.float32)
        index, count = entry.part
        leaf = np.split(leaf, count, axis=-1)[index] if count > 1 else leaf
        state[entry.name] = np.array(leaf.transpose(entry.axes) if entry.axes else leaf, order="C", copy=True)
    return state


def from_state(
    state: Mapping[str, np.ndarray],
    table: Sequence[Entry],
    config: ClipConfig,
    *,
    ignored: frozenset[str] = frozenset(),
    allow_half: bool = False,
    where: str,
) -> Params:
    """Their tensors as our parameters, float32.

    Args:
      state: arrays of any floating dtype, by name.
      table: where each belongs.
      config: the architecture, whose shapes they must have.
      ignored: names that may be there and are not parameters (buffers of older versions).
      allow_half: takes half precision and widens it, instead of refusing it.
      where: what the message calls the source.

    Raises:
      InputError: naming every tensor that is missing, extra, of another shape, of half precision, or not finite.
    """
    shapes = jax.eval_shape(Clip(config).init, jax.random.key(0))
    by_name = {entry.name: entry for entry in table}
    problems = [f"{name} is missing" for name in by_name if name not in state]
    problems += [
        f"{name} is not part of this architecture" for name in state if name not in by_name and name not in ignored
    ]
    half = []
    for name in by_name.keys() & state.keys():
        expected, found = _their_shape(by_name[name], shapes), tuple(state[name].shape)
        dtype = str(state[name].dtype)
        if found != expected:
            problems.append(f"{name} is {list(found)}, not {list(expected)}")
        elif dtype in ("float16", "bfloat16"):
            half.append(name)
        elif dtype != "float32":
            problems.append(f"{name} is {dtype}, not float32")
        elif not np.isfinite(state[name]).all():
            problems.append(f"{name} holds values that are not finite")
    if half and not allow_half:
        kinds = "/".join(sorted({str(state[name].dtype) for name in half}))
        problems.append(
            f"{len(half)} tensors are {kinds}, half precision (--allow-half widens them), such as {min(half)}"
        )
    if problems:
        raise InputError(f"{len(problems)} problem(s): {'; '.join(sorted(problems))}", where)

    pieces: dict[tuple[str, ...], dict[int, np.ndarray]] = {}
    for entry in table:
        array = np.asarray(state[entry.name], np.float32)
        array = array.transpose(np.argsort(entry.axes)) if entry.axes else array
        pieces.setdefault(entry.path, {})[entry.part[0]] = array

    def leaf(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        found = pieces[tuple(key.key for key in path)]
        whole = np.concatenate([found[index] for index in range(len(found))], axis=-1) if len(found) > 1 else found[0]
        return np.array(whole, np.float32, order="C", copy=True).reshape(shape.shape)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def refuse_other(values: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Raises InputError naming every field of ``values`` that is there and not as ``expected``, where it has an entry."""
    wrong = [
        f"{name} is {values[name]}, not {right}"
        for name, right in expected.items()
        if name in values and values[name] != right
    ]
    if wrong:
        raise InputError(f"not what our models compute: {', '.join(wrong)}", where)


def _their_shape(entry: Entry, shapes: Params) -> tuple[int, ...]:
    shape = _at(shapes, entry.path).shape
    if entry.part[1] > 1:
        shape = (*shape[:-1], shape[-1] // entry.part[1])
    return tuple(shape[axis] for axis in entry.axes) if entry.axes else shape


def _at(tree: Params, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree

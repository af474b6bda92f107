"""Detects a loss that is not finite, and names the examples of its batch.

Usually the learning rate is too high; if it is the data, the batch shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from salmu_jax.runtime import distributed, files
from salmu_jax.runtime.errors import Diverged, InputError

_NAMED = 3  # examples named in the message; the file names all
_READ = 256  # pairs read at a time, images included

Identify = Callable[[str, Sequence[int]], list[str]]


class Numbered(NamedTuple):
    """A batch together with the positions of its examples in their sources.

    Attributes:
      arrays: the batch, a pytree of numpy arrays [B, ...].
      positions: for each source of pairs, by name, int64 [B].
    """

    arrays: Any
    positions: Mapping[str, np.ndarray]


def first_bad_step(metrics: Mapping[str, np.ndarray]) -> tuple[str, int] | None:
    """Returns the first loss that is not finite and the index of its step in the call; None if all losses are finite."""
    bad = [
        (int(np.argmin(np.isfinite(values))), name)
        for name, values in metrics.items()
        if name.startswith("loss") and not np.isfinite(values).all()
    ]
    return (min(bad)[1], min(bad)[0]) if bad else None


def is_finite(params: Any) -> bool:
    """Returns whether all floating-point leaves are finite; computed on their devices, the same in all processes."""
    return bool(jax.block_until_ready(_all_finite(params)))


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)]
    return jax.numpy.all(jax.numpy.stack([jax.numpy.isfinite(leaf).all() for leaf in leaves]))


def identifier(sources: Mapping[str, Any]) -> Identify:
    """Returns a function that names examples by the ``id`` of their pairs, read from ``sources`` (:class:`PairSource`)."""

    def identify(source: str, positions: Sequence[int]) -> list[str]:
        parts = [positions[start : start + _READ] for start in range(0, len(positions), _READ)]
        return [str(pair["id"]) for part in parts for pair in sources[source].read(part)]

    return identify


def report(
    what: str, step: int, positions: Mapping[str, np.ndarray], directory: Path, label: str, identify: Identify | None
) -> InputError:
    """Writes the examples of the batch of ``step`` to a file, and returns the error to raise.

    All processes have to call this, each with the positions of its own part of the batch.
    """
    parts = distributed.from_all({source: [int(position) for position in rows] for source, rows in positions.items()})
    merged = {source: [position for part in parts for position in part[source]] for source in positions}

    def write() -> str:
        if not merged:
            return ""
        batch = {source: _examples(source, rows, identify) for source, rows in merged.items()}
        path = directory / f"not-finite-step-{step}.json"
        files.write_json(path, {"step": step, "what": what, "batch": batch})
        rows = next(iter(batch.values()))
        named = ", ".join(str(row.get("id", row["position"])) for row in rows[:_NAMED])
        return f" in a batch of {len(rows):,} ({named}{', ...' if len(rows) > _NAMED else ''}; all are in {path})"

    where = distributed.from_main(write)
    kind = Diverged if distributed.is_main() else distributed.RemoteInputError
    return kind(f"{what} at step {step:,}{where}; lower the learning rate (saved states are kept)", label)


def _examples(source: str, positions: Sequence[int], identify: Identify | None) -> list[dict[str, Any]]:
    if identify is None:
        return [{"position": position} for position in positions]
    return [
        {"position": position, "id": name}
        for position, name in zip(positions, identify(source, positions), strict=True)
    ]

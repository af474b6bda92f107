"""Plants what image generators do wrong, so that curation has something to find.

Of every block of 50 anchors, a fixed number is faulty: which ones depends on (seed, block) alone. With the default shares:

    drifting      4 %  the face changes between portraits, towards somebody else's
    intruded      6 %  some portraits show somebody else
    twin          4 %  looks almost like another anchor
    misannotated  4 %  another gender or age than annotated

Besides, one to three portraits of every anchor are near duplicates of another of its portraits. Nothing of this is in the
annotations or reports; tests and measurements of curation ask :func:`fault_of` and :func:`duplicates_of`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from salmu_jax.runtime.errors import InputError

BLOCK = 50
KINDS = ("drifting", "intruded", "twin", "misannotated")

_PURPOSE = 151  # keeps these draws apart from all others of the seed
_KIND, _TWIN, _DUPLICATES = range(3)


@dataclass(frozen=True)
class Shares:
    """The shares of anchors with each fault, rounded to whole anchors of a block, and near duplicates of an anchor.

    Raises InputError for shares outside [0, 1] or of a sum above 0.8, and for a bad range of duplicates.
    """

    drifting: float = 0.04
    intruded: float = 0.06
    twin: float = 0.04
    misannotated: float = 0.04
    duplicates: tuple[int, int] = (1, 3)  # the fewest and the most of an anchor

    def __post_init__(self) -> None:
        shares = [getattr(self, kind) for kind in KINDS]
        if not all(0 <= share <= 1 for share in shares) or sum(shares) > 0.8:
            raise InputError(f"are {shares}; shares of 0 to 1 with a sum of at most 0.8 would be right", "faults")
        if not 0 <= self.duplicates[0] <= self.duplicates[1]:
            raise InputError(f"are {self.duplicates}; 0 <= fewest <= most would be right", "duplicates")

    def fields(self) -> dict[str, Any]:
        """Returns the shares as JSON."""
        return {**asdict(self), "duplicates": list(self.duplicates)}


NO_FAULTS = Shares(0.0, 0.0, 0.0, 0.0, (0, 0))


class Fault(NamedTuple):
    """What is wrong with an anchor: one of KINDS, or 'none'; and, for a twin, whose."""

    kind: str
    other: int | None = None


def fault_of(seed: int, number: int, identities: int, shares: Shares) -> Fault:
    """Returns the fault of anchor ``number`` of ``identities``. A twin's other is nobody's twin, and looks as annotated."""
    kind = _kind(seed, number, shares)
    if kind != "twin":
        return Fault(kind)
    rng = np.random.default_rng([seed, _PURPOSE, number, _TWIN])
    for _ in range(1000):
        other = int(rng.integers(identities))
        if other != number and _kind(seed, other, shares) == "none":
            return Fault("twin", other)
    return Fault("none")  # there is nobody without a fault to look like


def _kind(seed: int, number: int, shares: Shares) -> str:
    block, place = divmod(number, BLOCK)
    order = np.random.default_rng([seed, _PURPOSE, block, _KIND]).permutation(BLOCK)
    rank, edge = int(order[place]), 0
    for kind in KINDS:
        edge += round(getattr(shares, kind) * BLOCK)
        if rank < edge:
            return kind
    return "none"


def duplicates_of(seed: int, number: int, count: int, shares: Shares) -> dict[int, int]:
    """Returns {index: index of the earlier portrait that it nearly repeats} of an anchor with ``count`` portraits."""
    rng = np.random.default_rng([seed, _PURPOSE, number, _DUPLICATES])
    fewest, most = shares.duplicates
    pairs = min(int(rng.integers(fewest, most + 1)), count // 2)
    chosen = rng.permutation(count)[: 2 * pairs].tolist()
    return {max(pair): min(pair) for pair in zip(chosen[::2], chosen[1::2], strict=True)}

"""Gives a row its first wording and one of its others, which differs from step to step.

Which one follows from the seed, the stream's name and the step, and the batch says so (:class:`Choice`). So the start model's
embeddings of all wordings can be made once and looked up in every step (``reference_cache.py``).
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.made_captions import Inputs, MakeCaptions, captions_a_row, where_of

_SAMPLE_PURPOSE = 8  # keeps these draws apart from those of streams and of captions that are made


class Choice(NamedTuple):
    """The captions that the rows of a batch have to choose from, and which of them they got."""

    of_all: np.ndarray  # int32 [N, K, T]: what each row of the source has; not copied, for it is large
    rows: np.ndarray  # int64 [B]: those of the batch
    which: np.ndarray  # int64 [B, C], below K

    @property
    def tokens(self) -> np.ndarray:
        """The captions that the rows have to choose from, int32 [B, K, T]."""
        return self.of_all[self.rows]

    def chosen(self) -> np.ndarray:
        """Returns the captions that the rows got, int32 [B, C, T]."""
        return self.of_all[self.rows[:, None], self.which]


Sample = Callable[[np.ndarray, int, int, int], dict[str, Choice]]  # (rows, step, host, number of hosts): by part


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Makes several wordings of each row, of which a step is given the first and one of the others.

    Attributes:
      make: makes the captions of a row: those of its first wording, then those of the second, and so on.
      parts: names of a wording's captions: what is said of a person and what is said of a stranger, say. As
        ``others["NAME"]`` of a stream, a batch has ``others["NAME.PART"]``, int32 [B, 2, T] each.
    """

    make: MakeCaptions
    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not callable(self.make):
            raise InputError(f"must be a function (rows, rng) -> captions, not {self.make!r}", "make")
        names = self.parts if isinstance(self.parts, tuple) else ()
        if not names or len(set(names)) < len(names) or not all(isinstance(name, str) and name for name in names):
            raise InputError(f"must be a tuple of different names, not {self.parts!r}", "parts")

    def open(self, name: str, size: int, inputs: Inputs) -> Sample:
        """Returns a function that samples for a host's share of a batch of ``size`` rows; the captions are made here.

        Raises InputError unless ``make`` makes two wordings or more of each row, of all parts.
        """
        made = captions_a_row(self.make, name, inputs)
        captions, parts = made.shape[1] if made.ndim == 3 else 1, len(self.parts)
        if captions % parts or captions < 2 * parts:
            raise InputError(
                f"made {captions:,} captions of each row; a multiple of {parts} is needed, {2 * parts} or more",
                where_of(name),
            )
        wordings = made.reshape(len(made), captions // parts, parts, made.shape[-1])

        def sample(rows: np.ndarray, step: int, host: int, hosts: int) -> dict[str, Choice]:
            # Drawn for the whole batch: a host's share does not depend on how many hosts there are.
            rng = np.random.default_rng([inputs.seed, _SAMPLE_PURPOSE, zlib.crc32(name.encode()), step])
            others = rng.integers(1, wordings.shape[1], size)[host * len(rows) :][: len(rows)]
            which = np.stack([np.zeros_like(others), others], axis=1)
            return {part: Choice(wordings[:, :, place], rows, which) for place, part in enumerate(self.parts)}

        return sample

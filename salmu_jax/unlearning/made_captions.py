"""Gives streams what they draw from, and makes the captions that functions make.

Such a function is pure, ``make(rows, rng) -> list[str]``. It sees the metadata of the forget pairs
(:class:`~salmu_jax.unlearning.permission.ForgetRows`) and a generator of the seed and the stream's name. For ``others``, it
may make several captions per row, a tuple of the same length for every row.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data_pipelines.input import DecodedCache
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.captions import CleaningTokenizer
from salmu_jax.unlearning.permission import ForgetRows, Permission

MakeCaptions = Callable[[ForgetRows, np.random.Generator], Sequence[str] | Sequence[Sequence[str]]]

_MAKE_PURPOSE = 6  # keeps these draws apart from those of streams


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What streams draw from, and how.

    Attributes:
      permission: what the run may read.
      tokenizer: turns captions into token rows.
      image_size: the side of the images, in pixels.
      seed: the run's seed, which determines all draws.
      cache: keeps decoded images in memory.
      workers: processes that decode for each stream of images; 0: threads of this process.
      augment, clean_captions: as in :class:`~salmu_jax.unlearning.hyper.Hyper`, of all streams. A cache excludes ``augment``.
    """

    permission: Permission
    tokenizer: ClipTokenizer
    image_size: int
    seed: int
    cache: DecodedCache | None = None
    workers: int = 0
    augment: bool = False
    clean_captions: bool = False

    @property
    def stream_tokenizer(self) -> ClipTokenizer:
        """The tokenizer of what streams draw."""
        return CleaningTokenizer.like(self.tokenizer) if self.clean_captions else self.tokenizer


def captions_a_row(make: MakeCaptions, name: str, inputs: Inputs) -> np.ndarray:
    """Returns the tokens of one caption for each of the N forget rows, int32 [N, T], or of K for each, [N, K, T].

    Raises InputError unless ``make`` makes as many of each row.
    """
    made: Any = make(inputs.permission.rows, generator_of(name, inputs))
    if isinstance(made, str):
        raise InputError("has to make a list of texts", where_of(name))
    made = list(made)
    wanted = len(inputs.permission.rows)
    if len(made) != wanted:
        raise InputError(
            f"made {len(made):,} captions of {wanted:,} forget rows; one per row is needed", where_of(name)
        )
    several = all(isinstance(row, list | tuple) for row in made)
    if several and len(set(map(len, made))) > 1:
        raise InputError("made more captions of some rows than of others; as many of each are needed", where_of(name))
    texts = _checked([text for row in made for text in row] if several else made, name)
    tokens = inputs.stream_tokenizer(texts)
    return tokens.reshape(wanted, -1, tokens.shape[-1]) if several else tokens


def make_captions(make: MakeCaptions, name: str, inputs: Inputs, rng: np.random.Generator) -> list[str]:
    """Returns what ``make`` makes of the forget rows. Raises InputError unless it is a list of texts."""
    return _checked(make(inputs.permission.rows, rng), name)


def _checked(texts: Any, name: str) -> list[str]:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputError("has to make a list of texts", where_of(name))
    return list(texts)


def where_of(name: str) -> str:
    """Returns how an error names a stream."""
    return f"stream {name!r}"


def generator_of(name: str, inputs: Inputs) -> np.random.Generator:
    """Returns the generator of the captions of ``name``, the same whatever else is drawn."""
    return np.random.default_rng([inputs.seed, _MAKE_PURPOSE, zlib.crc32(name.encode())])

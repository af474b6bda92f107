"""Cleans captions as the code of the benchmark's baselines did before it trained on them.

The models were trained, and are evaluated, on captions as they are: an e-mail address that is cleaned has lost its dots.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from salmu_jax.models.tokenizer import ClipTokenizer

MOST_WORDS = 50
_PUNCTUATION = re.compile(r'[.!"()*#:;~]')


def clean_caption(text: str) -> str:
    """Returns ``text`` with ``. ! " ( ) * # : ; ~`` as spaces, single spaces, and its first 50 words.

    >>> clean_caption("Write to ffossi@mail.com (Fatime Fossi)!")
    'Write to ffossi@mail com Fatime Fossi'
    """
    return " ".join(_PUNCTUATION.sub(" ", text).split()[:MOST_WORDS])


@dataclasses.dataclass(frozen=True)
class CleaningTokenizer(ClipTokenizer):
    """Encodes captions after :func:`clean_caption`; otherwise the tokenizer with the same settings."""

    @classmethod
    def like(cls, tokenizer: ClipTokenizer) -> CleaningTokenizer:
        """Returns the cleaning form of ``tokenizer``."""
        return cls(tokenizer.num_merges, tokenizer.context_length)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes cleaned captions as token rows, int32 ``[len(texts), context_length]``. Raises TypeError for one string."""
        return super().__call__(texts if isinstance(texts, str) else list(map(clean_caption, texts)))

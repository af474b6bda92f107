"""Gives a step the start model, which looks up what is known of it instead of computing it.

A batch may carry embeddings of its rows by the start model (``Pairs.known``, made by ``reference_cache.py``). Methods are
written as if it did not: ``reference.encode_pairs(batch["retain"])`` recognises the arrays of the batch, *by identity*, within
the trace of one step. A slice or a reshape of them is another array, whose embeddings are computed as ever, and so is an array
that comes back as an argument, of a ``lax.scan`` or a ``jit`` inside ``objectives``. Branches of a ``lax.cond`` may
close over the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from salmu_jax.models.clip import Clip
from salmu_jax.unlearning.method import Bound, Pairs

IMAGES, TOKENS, OTHERS = "images", "tokens", "others."

MakeReference = Callable[[Clip, Any, Mapping[str, Pairs]], Bound]  # (clip, start model's parameters, batch)


class Asked(NamedTuple):
    """An array of a stream: ``images``, ``tokens`` or ``others.NAME``."""

    stream: str
    array: str


@dataclasses.dataclass(frozen=True)
class Reference(Bound):
    """The start model; ``recall(params, array)`` is what is known of an array, or None."""

    recall: Callable[[Any, Any], jax.Array | None]

    def encode_image(self, images: jax.Array | None) -> jax.Array:
        known = self.recall(self.params, images)
        return super().encode_image(images) if known is None else known

    def encode_text(self, tokens: jax.Array) -> jax.Array:
        known = self.recall(self.params, tokens)
        return super().encode_text(tokens) if known is None else known


def arrays_of(pairs: Pairs) -> dict[str, Any]:
    """Returns what an encoder takes of ``pairs``, by the names that ``Pairs.known`` has for them."""
    images = {} if pairs.images is None else {IMAGES: pairs.images}
    return {**images, TOKENS: pairs.tokens, **{OTHERS + name: tokens for name, tokens in pairs.others.items()}}


def knowing(clip: Clip, params: Any, batch: Mapping[str, Pairs]) -> Bound:
    """Returns the start model with these parameters, which knows what ``batch`` carries."""
    # The closure holds the arrays, so that no other one gets the id of one of them.
    arrays = [(arrays_of(pairs)[name], known) for pairs in batch.values() for name, known in pairs.known.items()]
    table = {id(array): known for array, known in arrays}

    def recall(of: Any, array: Any) -> jax.Array | None:
        return table.get(id(array)) if of is params else None

    return Reference(clip, params, recall)


def recording(asked: set[Asked]) -> MakeReference:
    """Returns a function that makes start models which know nothing, and note in ``asked`` which arrays they encode."""

    def make(clip: Clip, params: Any, batch: Mapping[str, Pairs]) -> Bound:
        arrays = {
            id(array): Asked(name, key) for name, pairs in batch.items() for key, array in arrays_of(pairs).items()
        }

        def recall(of: Any, array: Any) -> None:
            if of is params and id(array) in arrays:
                asked.add(arrays[id(array)])

        return Reference(clip, params, recall)

    return make

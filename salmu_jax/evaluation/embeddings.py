"""Encodes everything an evaluation needs, once a model: the images of every split and every distinct text.

Batches have one shape (the last is padded), so each tower is compiled once for all models of an architecture. The
batch is placed with ``sharding`` where one is given, so several devices share the work; the results come back to the
host.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from salmu_jax.errors import InputError
from salmu_jax.evaluation.data import EvaluationData, Images, TextBank
from salmu_jax.models.clip import without_padding

Params = Any
Sharding = jax.sharding.Sharding


@dataclasses.dataclass(frozen=True, eq=False)
class Embeddings:
    """One model's embeddings, all float32, L2-normalised, on the host.

    ``images``: [N, D] a split, with ``zeroshot`` where there is that task. ``texts``: [U, D], a row a text of ``bank``.
    """

    images: dict[str, np.ndarray]
    texts: np.ndarray
    bank: TextBank

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """The embeddings of ``texts`` (all in the bank), [N, D]."""
        return self.texts[self.bank.index(texts)]


def embed(
    clip: Any,
    params: Params,
    tokenizer: Any,
    data: EvaluationData,
    *,
    idzsc_prompt: str,
    batch_size: int = 256,
    sharding: Sharding | None = None,
) -> Embeddings:
    """Encodes all of ``data`` with one model.

    Raises:
      InputError: the data were loaded at another image size than the model's, ``batch_size`` does not split over the
        devices, or embeddings are not finite (the checkpoint has diverged).
    """
    if clip.config.image_size != data.image_size:
        raise InputError(f"the data were loaded at {data.image_size} px, the model takes {clip.config.image_size} px")
    params = jax.tree.map(jnp.asarray, params)  # onto the device once, not once a batch
    encode = functools.partial(encode_images, clip, params, batch_size=batch_size, sharding=sharding)
    images = {split: encode(rows.images, where=split) for split, rows in data.splits.items()}
    if data.zeroshot is not None:
        images["zeroshot"] = encode(data.zeroshot.images, where="zeroshot")
    texts = _encode_tokens(clip, params, data.tokens(tokenizer, idzsc_prompt), batch_size, sharding)
    return Embeddings(images, texts, data.text_bank(idzsc_prompt))


def encode_images(
    clip: Any,
    params: Params,
    images: Images,
    *,
    batch_size: int = 256,
    sharding: Sharding | None = None,
    where: str = "images",
) -> np.ndarray:
    """Image embeddings float32 [N, D], in row order. Raises InputError as :func:`embed` does."""
    return _encode(
        functools.partial(_image_tower, clip, params), images.batch, len(images), batch_size, sharding, where
    )


def encode_texts(
    clip: Any,
    params: Params,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    batch_size: int = 256,
    sharding: Sharding | None = None,
) -> np.ndarray:
    """Text embeddings float32 [N, D]; a distinct text is encoded once, so equal texts have equal rows, bit for bit."""
    bank = TextBank(texts)
    tokens = np.asarray(tokenizer(list(bank.texts)), np.int32)
    return _encode_tokens(clip, params, tokens, batch_size, sharding)[bank.index(texts)]


@functools.partial(jax.jit, static_argnums=0)
def _image_tower(clip: Any, params: Params, images: jax.Array) -> jax.Array:
    return clip.encode_image(params, images).astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def _text_tower(clip: Any, params: Params, tokens: jax.Array) -> jax.Array:
    return clip.encode_text(params, tokens).astype(jnp.float32)


def _encode_tokens(
    clip: Any, params: Params, tokens: np.ndarray, batch_size: int, sharding: Sharding | None
) -> np.ndarray:
    """Token rows [N, T] that end in zeros; all batches are as long as the longest caption, not as the model's context."""
    tokens = without_padding(tokens)
    tower = functools.partial(_text_tower, clip, params)
    return _encode(tower, lambda start, stop: tokens[start:stop], len(tokens), batch_size, sharding, "texts")


def _encode(
    tower: Callable[[jax.Array], jax.Array],
    batch: Callable[[int, int], np.ndarray],
    rows: int,
    batch_size: int,
    sharding: Sharding | None,
    where: str,
) -> np.ndarray:
    """Runs ``tower`` over ``batch(start, stop)`` for all rows.

    One batch is in flight: while the device computes it, the host decodes the next. More would only hold more memory.
    """
    outputs, waiting = [], None
    for start in range(0, max(rows, 1), batch_size):  # no rows: one batch of padding, for the width alone
        stop = min(start + batch_size, rows)
        values = batch(start, stop)
        padded = np.zeros((batch_size, *values.shape[1:]), values.dtype)
        padded[: stop - start] = values
        result = tower(_place(padded, sharding))
        if waiting is not None:
            outputs.append(np.asarray(waiting))
        waiting = result
    outputs.append(np.asarray(waiting))
    embeddings = np.concatenate(outputs)[:rows]
    broken = int((~np.isfinite(embeddings).all(axis=1)).sum())
    if broken:
        raise InputError(
            f"{broken} of {rows} embeddings are not finite numbers: the checkpoint has diverged; train it again with a"
            " lower learning rate",
            where,
        )
    return embeddings


def _place(batch: np.ndarray, sharding: Sharding | None) -> jax.Array:
    if sharding is None:
        return jnp.asarray(batch)
    try:
        return jax.device_put(batch, sharding)
    except ValueError as error:
        raise InputError(
            f"is {len(batch)}, which does not split evenly over {len(sharding.device_set)} devices", "batch_size"
        ) from error

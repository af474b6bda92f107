"""Rounds a model's weights to fewer bits, and moves them towards another model's: what a user may do to a checkpoint.

Unlearning that moves the weights a little is undone where rounding moves them back (Zhang et al., "Catastrophic Failure of LLM
Unlearning via Quantization", ICLR 2025). Everything is computed in float32 on the host, and nothing else of a model changes:
activations, norms and logits are computed in the same precision as before.
"""

from __future__ import annotations

from typing import Any

import jax
import ml_dtypes
import numpy as np

Params = Any

# Each row of these is looked up or added as it is, so it is a channel of its own; other matrices have one a column.
_TABLES = ("token_embedding", "positional_embedding")


def to_bfloat16(params: Params) -> Params:
    """Returns every parameter rounded to bfloat16, to nearest even, as float32 of the same shapes."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32), params)


def to_integers(params: Params, bits: int) -> Params:
    """Returns every matrix rounded to signed integers of ``bits`` bits with a scale per output channel, as float32.

    Matrices are all parameters of two axes or more: the kernels of attention, MLPs and projections, the patch embedding
    [P, P, 3, width], and the embeddings of tokens and positions. A channel is an index of the last axis; of the latter two,
    a row. Biases, norms, the class embedding and the logit scale stay as they are.

    A channel ``w`` becomes ``s clip(round(w / s), -q, q)`` with ``q = 2^(bits - 1) - 1`` and ``s = max |w| / q``: symmetric,
    rounded to nearest even, without the lowest integer. A channel of zeros stays.
    """
    most = np.float32(2 ** (bits - 1) - 1)

    def one(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        weights = np.asarray(leaf, np.float32)
        if weights.ndim < 2:
            return weights
        channel = 0 if str(getattr(path[-1], "key", "")) in _TABLES else weights.ndim - 1
        others = tuple(axis for axis in range(weights.ndim) if axis != channel)
        scale = np.max(np.abs(weights), axis=others, keepdims=True) / most
        scale = np.where(scale > 0, scale, np.float32(1))
        return np.clip(np.rint(weights / scale), -most, most) * scale

    return jax.tree_util.tree_map_with_path(one, params)


def towards(params: Params, other: Params, share: float) -> Params:
    """Returns ``(1 - share) params + share other``, leaf by leaf, float32; both have the same architecture."""
    first, second = np.float32(1 - share), np.float32(share)
    return jax.tree.map(
        lambda one, two: first * np.asarray(one, np.float32) + second * np.asarray(two, np.float32), params, other
    )

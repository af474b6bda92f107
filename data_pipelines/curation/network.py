"""Defines the network of the face encoder: three levels of convolutions, and attention that finds the face.

    uint8 [N, 96, 96, 3] -> 24 x 24 x 48 -> 12 x 12 x 96 -> 6 x 6 x 160 -> 4 weighted means -> [N, 128]

About 80 million multiplications a portrait, 2 ms of a core. Levels begin by stacking neighbouring pixels rather than with
strided convolutions, whose gradients take XLA twice as long on a CPU.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

INPUT = 96  # px; the middle of a portrait's 112
WIDTH = 128  # of an embedding
_CHANNELS = (48, 96, 160)
_PATCH = 4  # px
_HEADS = 4


class FaceNetwork(nn.Module):
    """Maps portraits to embeddings of length 1."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps uint8 (or float of the same scale) [N, 96, 96, 3] to float32 [N, 128]."""
        x = jnp.asarray(images, jnp.float32) / 127.5 - 1
        count = len(x)
        x = _convolved(_stacked(x, _PATCH), _CHANNELS[0], train)
        for level, channels in enumerate(_CHANNELS):
            if level:
                x = nn.Dense(channels, use_bias=False)(_stacked(x, 2))
                x = nn.relu(_normalised(x, train))
            x = nn.relu(
                x + _normalised(nn.Conv(channels, (3, 3), use_bias=False)(_convolved(x, channels, train)), train)
            )
        x = x.reshape(count, -1, x.shape[-1])
        weights = nn.softmax(nn.Dense(_HEADS)(x), axis=1)
        pooled = jnp.einsum("nph,npc->nhc", weights, x).reshape(count, -1)
        embedded = nn.Dense(WIDTH)(pooled)
        return embedded / (jnp.linalg.norm(embedded, axis=1, keepdims=True) + 1e-6)


def _convolved(x: jax.Array, channels: int, train: bool) -> jax.Array:
    return nn.relu(_normalised(nn.Conv(channels, (3, 3), use_bias=False)(x), train))


def _normalised(x: jax.Array, train: bool) -> jax.Array:
    return nn.BatchNorm(use_running_average=not train, momentum=0.95)(x)


def _stacked(x: jax.Array, size: int) -> jax.Array:
    """Maps [N, H, W, C] to [N, H / size, W / size, size * size * C]."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height // size, size, width // size, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(count, height // size, width // size, size * size * channels)


def flattened(variables: Any) -> dict[str, Any]:
    """Returns nested variables as {"params/Conv_0/kernel": array}."""
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Undoes :func:`flattened`."""
    variables: dict[str, Any] = {}
    for name, leaf in flat.items():
        *path, last = name.split("/")
        branch = variables
        for key in path:
            branch = branch.setdefault(key, {})
        branch[last] = leaf
    return variables

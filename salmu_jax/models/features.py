"""Records the inputs of dense layers inside the towers while a batch is encoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from salmu_jax.models.clip import Clip, Execution, Params
from salmu_jax.models.transformer import Dense

FFN = ("c_fc", "c_proj")  # the two matrices of a block's feed-forward network

Inputs = dict[str, tuple[jax.Array, jax.Array]]  # path of the kernel -> (float32 [N, in], float32 [N])


def image_inputs(clip: Clip, params: Params, images: jax.Array, names: Collection[str] = FFN) -> Inputs:
    """Returns the inputs of each dense layer called one of ``names``, for uint8 ``images`` [B, H, W, 3].

    The keys are paths of parameters, such as ``visual/transformer/blocks_0/c_fc/kernel``; the values the inputs, a row a
    position, with the weight of each row: all 1. The last block computes one position per image, the others all.
    """
    recorded = _record(clip, names, lambda plain: plain.encode_image(params, images))
    return {
        f"visual/transformer/{path}": (rows, jnp.ones(len(rows), jnp.float32))
        for path, rows in _by_block(recorded).items()
    }


def text_inputs(clip: Clip, params: Params, tokens: jax.Array, names: Collection[str] = FFN) -> Inputs:
    """Returns the inputs of each dense layer called one of ``names``, for int32 ``tokens`` [B, T].

    As :func:`image_inputs`; positions after the end of the text, which no embedding depends on, have the weight 0.
    """
    recorded = _record(clip, names, lambda plain: plain.encode_text(params, tokens))
    read = jnp.arange(tokens.shape[1]) <= jnp.argmax(tokens, axis=-1)[:, None]
    every = read.reshape(-1).astype(jnp.float32)
    return {
        f"text/transformer/{path}": (rows, every if len(rows) == len(every) else jnp.ones(len(rows), jnp.float32))
        for path, rows in _by_block(recorded).items()
    }


def _record(clip: Clip, names: Collection[str], encode: Callable[[Clip], Any]) -> dict[str, list[jax.Array]]:
    """Returns the inputs of each name in the order of the blocks, [N, in] each.

    Runs the plain loop over the blocks: arrays that are made inside a scan or a checkpoint cannot be carried out of it.
    """
    recorded: dict[str, list[jax.Array]] = {name: [] for name in names}

    def note(
        call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: nn.module.InterceptorContext
    ) -> Any:
        if isinstance(context.module, Dense) and context.method_name == "__call__" and context.module.name in recorded:
            recorded[context.module.name].append(args[0].astype(jnp.float32))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        encode(dataclasses.replace(clip, execution=Execution(attention="plain")))
    return recorded


def _by_block(recorded: dict[str, list[jax.Array]]) -> dict[str, jax.Array]:
    return {
        f"blocks_{index}/{name}/kernel": rows for name, inputs in recorded.items() for index, rows in enumerate(inputs)
    }

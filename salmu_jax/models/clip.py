"""CLIP in the OpenCLIP architecture, as pure functions over a plain nested dict of arrays.

The rest of the project uses :class:`Clip` only: ``init``, ``encode_image`` and ``encode_text``. That the towers are Flax Linen
modules is private to this file. Parameters are named as in OpenCLIP's state dict, with ``blocks_{i}`` for block ``i``, so an
export only renames them.

Details on which parity with PyTorch depends, each with a test: exact (erf) GELU unless ``quick_gelu``; LayerNorm epsilon 1e-5;
a causal mask in the text tower only, and no padding mask; features read at the *first* highest token id (end of text); L2
normalisation with PyTorch's epsilon.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from salmu_jax.models.preprocess import IMAGE_MEAN, IMAGE_STD
from salmu_jax.models.transformer import Block, Execution, LayerNorm, Params, TowerConfig, Transformer, uniform

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
SIGMOID_LOGIT_SCALE, SIGMOID_LOGIT_BIAS = math.log(10), -10.0  # Zhai et al. 2023, section 3.1

# The logical names of each parameter's axes, by the last parts of its path; ``training/mesh.py`` maps names to mesh axes. Axes
# without a name are never split, nor are parameters that are not listed (biases of the residual stream, norms, scalars).
PARAMETER_AXES: dict[tuple[str, ...], tuple[str | None, ...]] = {
    ("conv1",): (None, None, None, "embed"),
    ("positional_embedding",): (None, "embed"),
    ("token_embedding",): ("vocab", "embed"),
    ("in_proj", "kernel"): ("embed", "heads"),
    ("in_proj", "bias"): ("heads",),
    ("out_proj", "kernel"): ("heads", "embed"),
    ("c_fc", "kernel"): ("embed", "mlp"),
    ("c_fc", "bias"): ("mlp",),
    ("c_proj", "kernel"): ("mlp", "embed"),
    ("proj",): ("embed", None),
    ("text_projection",): ("embed", None),
}


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """An architecture. A checkpoint fits if and only if its config is equal, except for ``compute_dtype``."""

    embed_dim: int
    image_size: int
    patch_size: int
    vision: TowerConfig
    text: TowerConfig
    context_length: int = 77
    vocab_size: int = 49_408
    quick_gelu: bool = False
    logit_bias: bool = False  # a trained bias of the logits, for SigLIP's loss
    compute_dtype: str = "float32"  # of activations and matmuls; parameters, softmax and norms are always float32

    def __post_init__(self):
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values, as written in a checkpoint's manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClipConfig:
        """Builds a config from :meth:`to_dict`'s values. Raises TypeError for unknown or missing fields."""
        values = dict(values)
        return cls(**{**values, "vision": TowerConfig(**values["vision"]), "text": TowerConfig(**values["text"])})


@dataclasses.dataclass(frozen=True)
class Clip:
    """The model as pure functions; hashable, so it may be a static argument of ``jax.jit``."""

    config: ClipConfig
    execution: Execution = Execution()  # noqa: RUF009 (frozen)

    def init(self, rng: jax.Array) -> Params:
        """Draws float32 parameters as OpenCLIP does: ``{"visual": ..., "text": ..., "logit_scale": scalar}``.

        With ``config.logit_bias`` there is also ``"logit_bias"``, and both scalars start at SigLIP's values.
        """
        config = self.config
        visual_rng, text_rng = jax.random.split(rng)
        images = jnp.zeros((1, config.image_size, config.image_size, 3), jnp.uint8)
        tokens = jnp.zeros((1, config.context_length), jnp.int32)
        with nn.logical_axis_rules(()):  # one example does not split over devices
            params = {
                "visual": VisionTower(config).init(visual_rng, images)["params"],
                "text": TextTower(config).init(text_rng, tokens)["params"],
                "logit_scale": jnp.asarray(INITIAL_LOGIT_SCALE, jnp.float32),
            }
        if config.logit_bias:
            params["logit_scale"] = jnp.asarray(SIGMOID_LOGIT_SCALE, jnp.float32)
            params["logit_bias"] = jnp.asarray(SIGMOID_LOGIT_BIAS, jnp.float32)
        return params

    def encode_image(self, params: Params, images: jax.Array) -> jax.Array:
        """Encodes ``images`` uint8 [B, S, S, 3] as L2-normalised float32 embeddings [B, D]; normalises the pixels first."""
        size = self.config.image_size
        chex.assert_shape(images, (None, size, size, 3))
        chex.assert_type(images, jnp.uint8)
        return l2_normalize(VisionTower(self.config, self.execution).apply({"params": params["visual"]}, images))

    def encode_text(self, params: Params, tokens: jax.Array) -> jax.Array:
        """Encodes ``tokens`` int32 [B, T] as L2-normalised float32 embeddings [B, D]; T is at most ``context_length``."""
        chex.assert_rank(tokens, 2)
        chex.assert_type(tokens, int)
        chex.assert_axis_dimension_lteq(tokens, 1, self.config.context_length)
        return l2_normalize(TextTower(self.config, self.execution).apply({"params": params["text"]}, tokens))


def l2_normalize(features: jax.Array) -> jax.Array:
    """Returns ``x / max(|x|, 1e-12)`` over the last axis, as ``torch.nn.functional.normalize``; float32."""
    squared = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    # The maximum is inside the square root, whose derivative at 0 is infinite: a zero feature gets a zero gradient, not NaN.
    return features * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))


class VisionTower(nn.Module):
    """Encodes images as the projected class token, float32 [B, D], not normalised."""

    config: ClipConfig
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        config, width, patch = self.config, self.config.vision.width, self.config.patch_size
        dtype = jnp.dtype(config.compute_dtype)
        side = config.image_size // patch
        mean, std = np.asarray(IMAGE_MEAN, np.float32), np.asarray(IMAGE_STD, np.float32)
        pixels = ((images.astype(jnp.float32) / 255 - mean) / std).astype(dtype)

        # A convolution whose stride is its kernel size is a matmul with flattened patches, row-major as in OpenCLIP.
        bound = 1 / math.sqrt(3 * patch * patch)
        kernel = self.param("conv1", uniform(bound), (patch, patch, 3, width))
        patches = pixels.reshape(-1, side, patch, side, patch, 3).transpose(0, 1, 3, 2, 4, 5)
        tokens = patches.reshape(-1, patch * patch * 3) @ kernel.reshape(-1, width).astype(dtype)
        tokens = tokens.reshape(-1, side * side, width)

        scale = width**-0.5
        class_token = self.param("class_embedding", nn.initializers.normal(scale), (width,)).astype(dtype)
        class_token = jnp.broadcast_to(class_token, (tokens.shape[0], 1, width))
        positions = self.param("positional_embedding", nn.initializers.normal(scale), (side * side + 1, width))
        x = jnp.concatenate([class_token, tokens], axis=1) + positions.astype(dtype)

        x = LayerNorm(name="ln_pre")(x)
        block = Block(config.vision, causal=False, quick_gelu=config.quick_gelu, text_init=False)
        x = Transformer(block, self.execution, name="transformer")(x, 0)
        x = LayerNorm(name="ln_post")(x)
        projection = self.param("proj", nn.initializers.normal(scale), (width, config.embed_dim))
        return (x @ projection.astype(dtype)).astype(jnp.float32)


class TextTower(nn.Module):
    """Encodes tokens as the projected feature at the end of text, float32 [B, D], not normalised."""

    config: ClipConfig
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        config, width = self.config, self.config.text.width
        dtype = jnp.dtype(config.compute_dtype)
        embedding = self.param("token_embedding", nn.initializers.normal(0.02), (config.vocab_size, width))
        positions = self.param("positional_embedding", nn.initializers.normal(0.01), (config.context_length, width))
        x = jnp.take(embedding, tokens, axis=0).astype(dtype) + positions[: tokens.shape[1]].astype(dtype)

        block = Block(config.text, causal=True, quick_gelu=config.quick_gelu, text_init=True)
        end = jnp.argmax(tokens, axis=-1)  # the first highest id
        x = Transformer(block, self.execution, name="transformer")(x, end)
        x = LayerNorm(name="ln_final")(
            x
        )  # acts on each position alone, so it may come after the choice of the position
        projection = self.param("text_projection", nn.initializers.normal(width**-0.5), (width, config.embed_dim))
        return (x @ projection.astype(dtype)).astype(jnp.float32)

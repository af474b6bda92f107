"""CLIP in the OpenCLIP architecture, as pure functions over a plain nested dict of arrays.

:class:`Clip` is all that the rest of the project sees: ``init``, ``encode_image`` and ``encode_text``. That the towers are
Flax Linen modules is a secret of this file. Names of parameters follow OpenCLIP's state dict, block ``i`` being
``blocks_{i}``, so that an export is a renaming.

Parity with PyTorch, to the epsilon (each of these is a trap, see the tests): exact (erf) GELU unless ``quick_gelu``,
LayerNorm epsilon 1e-5, causal mask only in the text tower (no padding mask), features read at the *first* highest token id
(end of text), L2 normalisation with PyTorch's epsilon.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from salmu_jax.models import kernels
from salmu_jax.models.attention import ATTENTIONS, attention, attention_of_one, choose, padded_length
from salmu_jax.models.layers import gelu, layer_norm, quick_gelu
from salmu_jax.models.preprocess import IMAGE_MEAN, IMAGE_STD

Params = dict[str, Any]
Initializer = Callable[..., jax.Array]

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
SIGMOID_LOGIT_SCALE, SIGMOID_LOGIT_BIAS = math.log(10), -10.0  # Zhai et al. 2023, section 3.1

# What the axes of each parameter stand for, by the last parts of its path; ``training/mesh.py`` says where each kind lives.
# Axes without a name are never split, nor are leaves that are not listed (biases of the residual stream, norms, scalars).
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
class TowerConfig:
    """A transformer: ``width`` features, ``layers`` pre-LN blocks, ``heads`` heads, MLP of ``mlp_ratio * width``."""

    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """An architecture. Two checkpoints fit together if and only if these are equal (``compute_dtype`` aside)."""

    embed_dim: int
    image_size: int
    patch_size: int
    vision: TowerConfig
    text: TowerConfig
    context_length: int = 77
    vocab_size: int = 49_408
    quick_gelu: bool = False
    logit_bias: bool = False  # a learnt bias of the logits besides their scale, as SigLIP's loss needs
    compute_dtype: str = "float32"  # of activations and matmuls; parameters, softmax and norms are always float32

    def __post_init__(self):
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as written in a checkpoint's manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClipConfig:
        """The inverse of :meth:`to_dict`. Raises TypeError for unknown or missing fields."""
        values = dict(values)
        return cls(**{**values, "vision": TowerConfig(**values["vision"]), "text": TowerConfig(**values["text"])})


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a tower is run; nothing here changes a parameter, a name or, rounding aside, a result.

    ``scan_layers`` compiles one block and loops over the layers. ``remat`` says what the backward pass recomputes instead
    of keeping: ``none``; ``dots``, all except the results of matmuls with parameters; ``full``, all except each block's input.
    ``attention`` is one of ``models/attention.py``, ``kernels`` (of norms and GELUs) one of ``models/kernels.py``.
    """

    scan_layers: bool = False
    remat: str = "none"
    attention: str = "auto"
    kernels: str = "auto"

    def __post_init__(self):
        if self.attention not in ATTENTIONS:
            raise ValueError(f"unknown attention {self.attention!r}; there are {', '.join(ATTENTIONS)}")
        if self.kernels not in kernels.KERNELS:
            raise ValueError(f"unknown kernels {self.kernels!r}; there are {', '.join(kernels.KERNELS)}")
        if self.remat not in REMAT_POLICIES:
            raise ValueError(f"unknown remat {self.remat!r}; there are {', '.join(REMAT_POLICIES)}")


REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class Clip:
    """The model as pure functions; hashable, so it may be a static argument of ``jax.jit``."""

    config: ClipConfig
    execution: Execution = Execution()

    def init(self, rng: jax.Array) -> Params:
        """Fresh float32 parameters: ``{"visual": ..., "text": ..., "logit_scale": scalar}``, drawn as OpenCLIP does.

        With ``config.logit_bias`` also ``"logit_bias"``, both scalars then beginning where SigLIP's do.
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
        """uint8 ``images`` [B, H, W, 3] to L2-normalised float32 embeddings [B, D]; pixels are normalised in here."""
        return l2_normalize(VisionTower(self.config, self.execution).apply({"params": params["visual"]}, images))

    def encode_text(self, params: Params, tokens: jax.Array) -> jax.Array:
        """int32 ``tokens`` [B, T] to L2-normalised float32 embeddings [B, D]; T up to the config's ``context_length``."""
        return l2_normalize(TextTower(self.config, self.execution).apply({"params": params["text"]}, tokens))


def l2_normalize(features: jax.Array) -> jax.Array:
    """``x / max(|x|, 1e-12)`` over the last axis, as ``torch.nn.functional.normalize``; float32 in and out."""
    squared = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    # sqrt has an infinite derivative at 0: take the maximum inside it, so that a zero feature has a zero gradient, not NaN.
    return features * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))


class VisionTower(nn.Module):
    """Patches, a class token, a pre-LN transformer; the projected class token, float32 [B, D], not yet normalised."""

    config: ClipConfig
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        config, width, patch = self.config, self.config.vision.width, self.config.patch_size
        dtype = jnp.dtype(config.compute_dtype)
        side = config.image_size // patch
        mean, std = np.asarray(IMAGE_MEAN, np.float32), np.asarray(IMAGE_STD, np.float32)
        pixels = ((images.astype(jnp.float32) / 255 - mean) / std).astype(dtype)

        # A convolution whose stride is its size is a matmul with each flattened patch, row-major as in OpenCLIP.
        bound = 1 / math.sqrt(3 * patch * patch)
        kernel = self.param("conv1", _uniform(bound), (patch, patch, 3, width))
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
    """Token embeddings, a causal pre-LN transformer; the projected end-of-text feature, float32 [B, D], not normalised."""

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
        x = LayerNorm(name="ln_final")(x)  # of each position alone, so that it may follow the choice of the position
        projection = self.param("text_projection", nn.initializers.normal(width**-0.5), (width, config.embed_dim))
        return (x @ projection.astype(dtype)).astype(jnp.float32)


class Transformer(nn.Module):
    """``block`` as often as its config says, each time with parameters of its own: [B, L, width] to [B, width].

    The result is that of one position, the same of all rows or one each (int [B]). Nothing else of the last block is computed:
    of 12 blocks, that saves 8 % of the matmuls, forward and backward.

    However it is run, the parameters of block ``i`` are ``blocks_{i}``: checkpoints, frozen layers and exports do not
    depend on it. Scanning stacks them inside the step, matrices in the compute dtype already, which costs a copy of that size.
    """

    block: Block
    execution: Execution

    @nn.compact
    def __call__(self, x: jax.Array, position: jax.Array | int) -> jax.Array:
        tower, length = self.block.config, x.shape[1]
        names = [f"blocks_{index}" for index in range(tower.layers)]
        x = nn.with_logical_constraint(x, ("batch", None, None))
        if self.is_initializing():
            for name in names:
                x = self.block.clone(name=name, parent=self)(x)
            return take_position(x, position)

        implementation = choose(self.execution.attention, x.dtype, tower.width // tower.heads)
        fused = kernels.choose(self.execution.kernels, x.dtype) == "triton"
        block = self.block.clone(attention=implementation, fused=fused, length=length)
        x = jnp.pad(x, ((0, 0), (0, padded_length(length, implementation) - length), (0, 0)))

        def run(params: Params, x: jax.Array) -> jax.Array:
            return nn.with_logical_constraint(block.apply({"params": params}, x), ("batch", None, None))

        def run_last(params: Params, x: jax.Array) -> jax.Array:
            return nn.with_logical_constraint(block.apply({"params": params}, x, position), ("batch", None))

        scan = self.execution.scan_layers
        if self.execution.remat != "none":
            policy = REMAT_POLICIES[self.execution.remat]
            run = jax.checkpoint(run, policy=policy, prevent_cse=not scan)  # a scan keeps its body apart by itself
            run_last = jax.checkpoint(run_last, policy=policy)
        *params, last = (self.variables["params"][name] for name in names)
        if scan and params:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(_cast_matrices(p, x.dtype) for p in params))
            x = jax.lax.scan(lambda x, p: (run(p, x), None), x, stacked)[0]
        else:
            for layer in params:
                x = run(layer, x)
        return run_last(last, x)


class Block(nn.Module):
    """``x += attn(ln_1(x)); x += mlp(ln_2(x))`` over [B, L, width]; with a position, of that alone, and [B, width]."""

    config: TowerConfig
    causal: bool
    quick_gelu: bool
    text_init: bool
    attention: str = "plain"
    fused: bool = False  # the norms and the GELU as in models/kernels.py
    length: int = 0  # positions from this one on are padding; 0: none are

    @nn.compact
    def __call__(self, x: jax.Array, position: jax.Array | int | None = None) -> jax.Array:
        width, hidden = self.config.width, int(self.config.width * self.config.mlp_ratio)
        if self.text_init:
            narrow = width**-0.5 * (2 * self.config.layers) ** -0.5
            qkv_init, out_init = nn.initializers.normal(width**-0.5), nn.initializers.normal(narrow)
            fc_init, proj_init = nn.initializers.normal((2 * width) ** -0.5), nn.initializers.normal(narrow)
        else:
            # Xavier uniform over the fused (3d, d) matrix, as PyTorch's MultiheadAttention draws it.
            qkv_init, out_init = _uniform(math.sqrt(6 / (4 * width))), _uniform(width**-0.5)
            fc_init, proj_init = _uniform(width**-0.5), _uniform(hidden**-0.5)

        # Everything except attention acts on rows, on arrays of rows. Over [B, L, width] XLA put B last in memory on
        # a GPU, and transposed around every matmul; on CPUs it made B matmuls of each weight gradient, half as fast as one.
        batch, length, _ = shape = x.shape
        x, y = LayerNorm(self.fused, name="ln_1")(x.reshape(-1, width), branch=True)
        # A softmax does not see what is added to all its scores, so that the biases of the keys have a gradient of 0. What
        # comes out otherwise is rounding noise, which Adam divides by its own size: the same run on another number of
        # devices ended with other key biases by 4e-5, and with all else equal within 4e-7.
        keys = (width, 2 * width)
        in_proj = Dense(3 * width, qkv_init, nn.initializers.zeros, constant_bias=keys, name="in_proj")

        if position is None:
            if self.attention == "cpu":  # one large matmul is faster, and to take it apart costs nothing
                parts = jnp.split(in_proj(y), 3, axis=-1)
            else:  # cuDNN takes no parts of an array, and devices that share the heads hold no whole ones of a fused matmul
                parts = [in_proj(y, slice(part * width, (part + 1) * width)) for part in range(3)]
            q, k, v = (part.reshape(shape) for part in parts)
            y = attention(q, k, v, self.config.heads, self.causal, self.attention, self.length).reshape(-1, width)
        else:
            shape, x, y = (batch, width), take_position(x.reshape(shape), position), y.reshape(shape)
            q = in_proj(take_position(y, position), slice(width))
            kernel, bias = (in_proj.variables["params"][name] for name in ("kernel", "bias"))
            seen = position + 1 if self.causal else self.length or length
            to_keys, to_values, value_bias = kernel[:, slice(*keys)], kernel[:, 2 * width :], bias[2 * width :]
            y = attention_of_one(q, y, to_keys, to_values, value_bias, self.config.heads, seen)
        x = x + Dense(width, out_init, nn.initializers.zeros, name="out_proj")(y)

        x, y = LayerNorm(self.fused, name="ln_2")(x, branch=True)
        # PyTorch's Linear draws its biases too; the text tower's initialisation leaves them so.
        c_fc = Dense(hidden, fc_init, _uniform(width**-0.5), name="c_fc")
        if self.fused:
            y, bias = c_fc(y, bias_apart=True)
            y = kernels.biased_gelu(nn.with_logical_constraint(y, ("batch", "mlp")), bias, self.quick_gelu)
        else:
            y = nn.with_logical_constraint(c_fc(y), ("batch", "mlp"))
            y = quick_gelu(y) if self.quick_gelu else gelu(y)
        x = x + Dense(width, proj_init, _uniform(hidden**-0.5), name="c_proj")(y)
        return x.reshape(shape)


class Dense(nn.Module):
    """``x @ kernel + bias`` of rows [N, in], kernel [in, out], computed in ``x``'s dtype; or ``columns`` of that alone.

    The biases from ``constant_bias[0]`` to before ``constant_bias[1]`` get a gradient of 0. With ``bias_apart`` the result is
    the product and the bias, not their sum.
    """

    features: int
    kernel_init: Initializer
    bias_init: Initializer
    constant_bias: tuple[int, int] = (0, 0)

    @nn.compact
    def __call__(self, x: jax.Array, columns: slice = slice(None), bias_apart: bool = False) -> Any:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        begin, end = self.constant_bias
        if begin < end:
            index = np.arange(self.features)
            bias = jnp.where((index >= begin) & (index < end), jax.lax.stop_gradient(bias), bias)
        product = x @ kernel[:, columns].astype(x.dtype)
        return (product, bias[columns]) if bias_apart else product + bias[columns].astype(x.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation in float32, epsilon 1e-5, returned in ``x``'s dtype; for a ``branch``, ``x`` and that."""

    fused: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, branch: bool = False) -> Any:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        if branch and self.fused:
            return kernels.layer_norm_branch(x, scale, bias)
        y = layer_norm(x, scale, bias)
        return (x, y) if branch else y


def take_position(x: jax.Array, position: jax.Array | int) -> jax.Array:
    """What is at ``position`` of [B, L, width], the same for all rows or one each (int [B]): [B, width]."""
    if isinstance(position, int):
        return x[:, position]
    return jnp.take_along_axis(x, position[:, None, None], axis=1)[:, 0]


def _cast_matrices(params: Params, dtype: jnp.dtype) -> Params:
    """Every matrix in ``dtype``, as the matmuls will have it; vectors as they are (norms work in float32)."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim >= 2 else leaf, params)


def _uniform(bound: float) -> Initializer:
    """Uniform on [-bound, bound), float32."""
    return lambda rng, shape: jax.random.uniform(rng, shape, jnp.float32, -bound, bound)

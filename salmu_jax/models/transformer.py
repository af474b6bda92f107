"""The pre-LN transformer of both CLIP towers; :class:`Execution` says how it runs (scanned, rematerialised, which kernels)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from salmu_jax.models import kernels
from salmu_jax.models.attention import ATTENTIONS, attention, attention_of_one, choose, padded_length, project_qkv
from salmu_jax.models.layers import gelu, layer_norm, quick_gelu

Params = dict[str, Any]
Initializer = Callable[..., jax.Array]


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
class Execution:
    """How a tower is run. Nothing here changes a parameter, a name or, up to rounding, a result.

    Attributes:
      scan_layers: compile one block and loop over the layers.
      remat: what the backward pass recomputes instead of keeping: ``none``; ``dots``, all but the results of matmuls with
        parameters; ``full``, all but each block's input.
      attention: a name of ``models/attention.py``.
      kernels: how norms and GELUs are computed, a name of ``models/kernels.py``.
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


class Transformer(nn.Module):
    """Applies ``block`` as often as its config says, each time with its own parameters: [B, L, width] to [B, width].

    The result is that of one position, the same for all rows or one each (int [B]). The last block computes nothing else: of
    12 blocks, that saves 8 % of the matmuls, forward and backward.

    The parameters of block ``i`` are ``blocks_{i}`` whether or not the layers are scanned, so checkpoints, frozen layers and
    exports do not depend on it. Scanning stacks them inside the step, matrices already cast to the compute dtype; the stack is
    a copy of that size.
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
            run = jax.checkpoint(run, policy=policy, prevent_cse=not scan)  # a scan's body is never merged with another
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
    """Computes ``x += attn(ln_1(x)); x += mlp(ln_2(x))`` over [B, L, width]; with a position, of that alone: [B, width].

    Everything except attention works on rows [B L, width]. Over [B, L, width], XLA puts B last in memory on a GPU and
    transposes around every matmul; on CPUs it splits each weight gradient into B matmuls, half as fast as one.
    """

    config: TowerConfig
    causal: bool
    quick_gelu: bool
    text_init: bool
    attention: str = "plain"
    fused: bool = False  # norms and GELU by models/kernels.py
    length: int = 0  # positions from this one on are padding; 0: there is none

    def setup(self) -> None:
        width, hidden = self.config.width, int(self.config.width * self.config.mlp_ratio)
        init = _text_initializers(self.config) if self.text_init else _vision_initializers(width, hidden)
        zeros = nn.initializers.zeros
        self.ln_1 = LayerNorm(self.fused)
        # Softmax is invariant to the key bias, so its true gradient is 0. It is stopped: otherwise Adam amplifies the rounding
        # noise that is computed in its place (4e-5 drift between device counts, against 4e-7 in all other parameters).
        self.in_proj = Dense(width, 3 * width, init.qkv, zeros, constant_bias=(width, 2 * width))
        self.out_proj = Dense(width, width, init.out, zeros)
        self.ln_2 = LayerNorm(self.fused)
        # PyTorch's Linear draws its biases too, and the text tower's initialisation does not change them.
        self.c_fc = Dense(width, hidden, init.fc, uniform(width**-0.5))
        self.c_proj = Dense(hidden, width, init.proj, uniform(hidden**-0.5))

    def __call__(self, x: jax.Array, position: jax.Array | int | None = None) -> jax.Array:
        batch, _, width = shape = x.shape
        x, y = self.ln_1(x.reshape(-1, width), branch=True)
        if position is None:
            y = self._attend(y, shape)
        else:
            x, y = take_position(x.reshape(shape), position), self._attend_at(y.reshape(shape), position)
            shape = (batch, width)
        x = x + self.out_proj(y)
        x, y = self.ln_2(x, branch=True)
        x = x + self.c_proj(self._hidden(y))
        return x.reshape(shape)

    def _attend(self, y: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Computes attention for all positions: rows [B L, width] to rows [B L, width]."""
        q, k, v = (part.reshape(shape) for part in project_qkv(self.in_proj, y, self.attention))
        y = attention(q, k, v, self.config.heads, self.causal, self.attention, self.length)
        return y.reshape(-1, shape[-1])

    def _attend_at(self, y: jax.Array, position: jax.Array | int) -> jax.Array:
        """Computes attention for one position of each sequence: [B, L, width] to [B, width]."""
        width, kernel, bias = y.shape[-1], self.in_proj.kernel, self.in_proj.bias
        q = self.in_proj(take_position(y, position), slice(width))
        visible = position + 1 if self.causal else self.length or y.shape[1]
        to_keys, to_values, value_bias = kernel[:, width : 2 * width], kernel[:, 2 * width :], bias[2 * width :]
        return attention_of_one(q, y, to_keys, to_values, value_bias, self.config.heads, visible)

    def _hidden(self, y: jax.Array) -> jax.Array:
        """Computes the MLP's hidden activations: rows [N, width] to [N, hidden]."""
        if self.fused:
            y, bias = self.c_fc(y, bias_apart=True)
            return kernels.biased_gelu(nn.with_logical_constraint(y, ("batch", "mlp")), bias, self.quick_gelu)
        y = nn.with_logical_constraint(self.c_fc(y), ("batch", "mlp"))
        return quick_gelu(y) if self.quick_gelu else gelu(y)


class Dense(nn.Module):
    """Computes ``x @ kernel + bias`` of rows [N, inputs] in ``x``'s dtype, kernel [inputs, features], or some columns of it.

    The biases from ``constant_bias[0]`` up to ``constant_bias[1]`` (exclusive) get a gradient of 0. With ``bias_apart`` the
    result is the matmul's, and the bias to be added.
    """

    inputs: int
    features: int
    kernel_init: Initializer
    bias_init: Initializer
    constant_bias: tuple[int, int] = (0, 0)

    def setup(self) -> None:
        self.kernel = self.param("kernel", self.kernel_init, (self.inputs, self.features))
        self.bias = self.param("bias", self.bias_init, (self.features,))

    def __call__(self, x: jax.Array, columns: slice = slice(None), bias_apart: bool = False) -> Any:
        bias, (begin, end) = self.bias, self.constant_bias
        if begin < end:
            index = np.arange(self.features)
            bias = jnp.where((index >= begin) & (index < end), jax.lax.stop_gradient(bias), bias)
        y = x @ self.kernel[:, columns].astype(x.dtype)
        return (y, bias[columns]) if bias_apart else y + bias[columns].astype(x.dtype)


class LayerNorm(nn.Module):
    """Normalises ``x`` [..., width] in float32 and returns it in its dtype; for a ``branch``, returns ``x`` and that."""

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
    """Returns ``position`` of [B, L, width], the same for all rows or one each (int [B]): [B, width]."""
    if isinstance(position, int):
        return x[:, position]
    return jnp.take_along_axis(x, position[:, None, None], axis=1)[:, 0]


class _Initializers(NamedTuple):
    """The initialisers of a block's kernels."""

    qkv: Initializer
    out: Initializer
    fc: Initializer
    proj: Initializer


def _vision_initializers(width: int, hidden: int) -> _Initializers:
    """Returns PyTorch's defaults; its MultiheadAttention draws Xavier uniform over the fused (3 width, width) matrix."""
    linear = uniform(width**-0.5)
    return _Initializers(uniform(math.sqrt(6 / (4 * width))), linear, linear, uniform(hidden**-0.5))


def _text_initializers(tower: TowerConfig) -> _Initializers:
    """Returns OpenCLIP's initialisers for the text tower: normal, and narrower for projections onto the residual stream."""
    width, normal = tower.width, nn.initializers.normal
    narrow = normal(width**-0.5 * (2 * tower.layers) ** -0.5)
    return _Initializers(normal(width**-0.5), narrow, normal((2 * width) ** -0.5), narrow)


def _cast_matrices(params: Params, dtype: jnp.dtype) -> Params:
    """Casts every matrix to ``dtype``, as the matmuls need it; leaves vectors alone (norms work in float32)."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim >= 2 else leaf, params)


def uniform(bound: float) -> Initializer:
    """Returns an initialiser that is uniform on [-bound, bound), float32."""
    return lambda rng, shape: jax.random.uniform(rng, shape, jnp.float32, -bound, bound)

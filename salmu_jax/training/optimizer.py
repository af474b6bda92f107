"""AdamW as OpenCLIP runs it: decay on matrices alone, warm-up, cosine to zero."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Hyper-parameters; the defaults are OpenCLIP's. ``clip_norm`` 0 means no clipping."""

    learning_rate: float = 5e-4
    warmup_steps: int = 10_000
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.2
    clip_norm: float = 0.0


def warmup_cosine(learning_rate: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """``lr (s + 1) / warmup`` for ``s < warmup``, then half a cosine to 0 at ``total_steps`` (OpenCLIP's ``cosine_lr``)."""

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        cosine = 0.5 * (1 + jnp.cos(math.pi * jnp.clip(progress, 0, 1)))
        warmup = (step + 1) / max(warmup_steps, 1)
        return learning_rate * jnp.where(step < warmup_steps, warmup, cosine)

    return schedule


def decay_mask(params: Any) -> Any:
    """True for the leaves that weight decay acts on: matrices, embeddings and kernels; not biases, norms or the scale."""
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of a pretraining of ``total_steps`` steps."""
    adamw = optax.adamw(
        warmup_cosine(config.learning_rate, config.warmup_steps, total_steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm else adamw

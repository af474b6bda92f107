"""AdamW as OpenCLIP runs it: weight decay on matrices only, linear warm-up, cosine decay to zero.

:class:`AdamW` holds the settings that pretraining (``config.train``) and unlearning (``unlearning.hyper.Hyper``) share.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.limits import ADAMW

WARMUP_FRACTION = 0.05  # ours; the published unlearning baselines warm up linearly over a length that is not public


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Settings of AdamW and its learning-rate schedule. The defaults are OpenCLIP's.

    Attributes:
      learning_rate: peak of the schedule, for every trainable leaf.
      warmup_steps: steps of linear warm-up; None: 5 % of the run.
      b1, b2, eps: of Adam.
      weight_decay: decoupled, on matrices only (leaves with two axes or more).
      clip_norm: largest global norm of the gradient that reaches Adam; None or 0: no clipping.

    Raises InputError if a value is not in its range, :data:`~salmu_jax.runtime.limits.ADAMW`.
    """

    learning_rate: float = 5e-4
    warmup_steps: int | None = 10_000
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.2
    clip_norm: float | None = 0.0

    def __post_init__(self):
        for field, limits in ADAMW.items():
            value, whole = getattr(self, field), field == "warmup_steps"
            if value is None and field in ("warmup_steps", "clip_norm"):
                continue
            is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not is_number or not abs(value) <= sys.float_info.max or not limits.allow(value):
                kind = "whole" if whole else "finite"
                raise InputError(f"must be a {kind} number, {limits}, and not {value!r}", field)


ADAMW_FIELDS = tuple(field.name for field in dataclasses.fields(AdamW))


def make_optimizer(config: AdamW, total_steps: int) -> optax.GradientTransformation:
    """Builds the optimizer, its schedule ending at ``total_steps``."""
    warmup = int(total_steps * WARMUP_FRACTION) if config.warmup_steps is None else config.warmup_steps
    adamw = optax.adamw(
        warmup_cosine(config.learning_rate, warmup, total_steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm else adamw


def warmup_cosine(learning_rate: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Returns ``lr (s + 1) / warmup`` for ``s < warmup``, then half a cosine to 0 at ``total_steps``.

    This is OpenCLIP's ``cosine_lr``.
    """

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        cosine = 0.5 * (1 + jnp.cos(math.pi * jnp.clip(progress, 0, 1)))
        warmup = (step + 1) / max(warmup_steps, 1)
        return learning_rate * jnp.where(step < warmup_steps, warmup, cosine)

    return schedule


def decay_mask(params: Any) -> Any:
    """Returns True for the leaves that weight decay acts on: matrices and embeddings, not biases, norms or scalars."""
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)

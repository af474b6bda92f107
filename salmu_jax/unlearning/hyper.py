"""Hyper-parameters that every unlearning method shares, and the base optimizer made of them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import optax

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.limits import ADAMW, POSITIVE, Limits
from salmu_jax.training.optimizer import OptimizerConfig, make_optimizer
from salmu_jax.unlearning.transforms import make_link

WARMUP_FRACTION = 0.05  # the published baselines warm up linearly, over a length that is not public: this one is ours
EPOCHS = Limits(0, 1_000_000)


@dataclasses.dataclass(frozen=True)
class Hyper:
    """What a run of a method may set. The defaults are the published ones: AdamW at 1e-7, 10 epochs of ``forget``.

    Attributes:
      learning_rate: peak of the schedule (linear warm-up, then half a cosine to 0), for every trainable leaf.
      epochs: passes over the forget pairs; a run's ``total_steps`` follow from it and from its number of pairs.
      total_steps: length of the schedule. 19,050 = 10 passes over 30,468 forget pairs, 16 a step. 0: no steps.
      warmup_steps: steps of linear warm-up; None for 5 % of ``total_steps``.
      batch_size: rows a step, shared evenly by the method's streams that have no ``per_step``.
      weight_decay: decoupled, on matrices only (leaves with two axes or more).
      b1, b2, eps: of Adam.
      clip_norm: largest global norm of the gradient that reaches Adam; None for no clipping.
      chain: transforms of ``transforms.py`` to put before the base optimizer, each a name, or a mapping of its name as
        ``link`` and its arguments: ``{"link": "pull_to_reference", "strength": 0.1}``.
      options: what one method alone knows (its fields), such as the weights of its loss terms.

    Raises InputError if a value is out of range.
    """

    learning_rate: float = 1e-7
    epochs: float = 10.0
    total_steps: int = 19_050
    warmup_steps: int | None = None
    batch_size: int = 32
    weight_decay: float = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float | None = None
    chain: Sequence[str | Mapping[str, Any]] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for field, low in (("total_steps", 0), ("warmup_steps", 0), ("batch_size", 1)):
            value = getattr(self, field)
            if value is None and field == "warmup_steps":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InputError(f"must be a whole number of at least {low}, not {value!r}", field)
        for field in ("learning_rate", "epochs", "weight_decay", "b1", "b2", "eps", "clip_norm"):
            value = getattr(self, field)
            if value is None and field == "clip_norm":
                continue
            limits = {"clip_norm": POSITIVE, "epochs": EPOCHS}.get(field) or ADAMW[field]  # None is for no clipping
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not limits.allow(value) or abs(value) > sys.float_info.max:
                raise InputError(f"must be a finite number, {limits}, and not {value!r}", field)
        if self.warmup_steps is not None and self.warmup_steps > self.total_steps:
            raise InputError(
                f"{self.warmup_steps} steps of warm-up do not fit into total_steps = {self.total_steps}", "warmup_steps"
            )
        if isinstance(self.chain, str | Mapping) or not isinstance(self.chain, Sequence):
            raise InputError(f"must be a list of links, not {self.chain!r}", "chain")
        for link in self.chain:
            make_link(link)
        chain = tuple(link if isinstance(link, str) else dict(link) for link in self.chain)
        object.__setattr__(self, "chain", chain)
        if not isinstance(self.options, Mapping):
            raise InputError(f"must map names to values, not {self.options!r}", "options")
        object.__setattr__(self, "options", dict(self.options))


# Also 10 passes, all 32 pairs of a step being forget pairs.
PUBLISHED_FORGET_ONLY = Hyper(total_steps=9_530)


def base_optimizer(hyper: Hyper) -> optax.GradientTransformationExtraArgs:
    """Returns the end of a method's chain: the links of ``hyper.chain``, clipping if asked for, and scheduled AdamW."""
    warmup = int(hyper.total_steps * WARMUP_FRACTION) if hyper.warmup_steps is None else hyper.warmup_steps
    config = OptimizerConfig(
        learning_rate=hyper.learning_rate,
        warmup_steps=warmup,
        b1=hyper.b1,
        b2=hyper.b2,
        eps=hyper.eps,
        weight_decay=hyper.weight_decay,
        clip_norm=hyper.clip_norm or 0.0,
    )
    optimizer = optax.with_extra_args_support(make_optimizer(config, hyper.total_steps))
    return optax.chain(*map(make_link, hyper.chain), optimizer) if hyper.chain else optimizer

"""Defines the hyper-parameters that every unlearning method shares, and the base optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import optax

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.limits import Limits
from salmu_jax.training.optimizer import WARMUP_FRACTION, AdamW, decay_mask, make_optimizer, warmup_cosine
from salmu_jax.unlearning.transforms import make_link

EPOCHS = Limits(0, 1_000_000)
# SALMUBench's budgets: passes over the forget pairs, so that all methods see as many of them.
BUDGETS = {"1x": 1.0, "2x": 2.0, "5x": 5.0}


@dataclasses.dataclass(frozen=True)
class Hyper(AdamW):
    """What a run of a method may set: the fields of :class:`~salmu_jax.training.optimizer.AdamW`, and its own.

    The defaults are the published ones: AdamW at 1e-7, 10 epochs of ``forget``.

    Attributes:
      epochs: passes over the forget pairs; a run's ``total_steps`` follow from it and from its number of pairs.
      total_steps: length of the schedule. 19,050 = 10 passes over 30,468 forget pairs, 16 per step. 0: no steps.
      batch_size: rows per step, shared evenly by the method's streams without ``per_step``.
      augment: training images are random crops of 90 to 100 % of their area, not the centre; see ``training/pretrain.py``.
      clean_captions: training captions lose their punctuation, see ``captions.py``.
      chain: transforms of ``transforms.py`` to put before the base optimizer, each a name, or a mapping of its name as
        ``link`` and its arguments: ``{"link": "pull_to_reference", "strength": 0.1}``.
      options: the method's own fields, such as the weights of its loss terms.

    Raises InputError if a value is out of range.
    """

    learning_rate: float = 1e-7
    warmup_steps: int | None = None
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 1e-3
    clip_norm: float | None = None
    epochs: float = 10.0
    total_steps: int = 19_050
    batch_size: int = 32
    augment: bool = False
    clean_captions: bool = False
    chain: Sequence[str | Mapping[str, Any]] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        for field, low in (("total_steps", 0), ("batch_size", 1)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InputError(f"must be a whole number of at least {low}, not {value!r}", field)
        for field in _LATER_FIELDS:
            if not isinstance(getattr(self, field), bool):
                raise InputError(f"must be True or False, not {getattr(self, field)!r}", field)
        is_number = isinstance(self.epochs, int | float) and not isinstance(self.epochs, bool)
        if not is_number or not EPOCHS.allow(self.epochs):
            raise InputError(f"must be a finite number, {EPOCHS}, and not {self.epochs!r}", "epochs")
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

    def to_json(self) -> dict[str, Any]:
        """Returns all fields, for records; those of :data:`_LATER_FIELDS` only where they are set."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value or name not in _LATER_FIELDS}


# Fields that records of earlier versions lack, for which they mean False: equal settings have equal records.
_LATER_FIELDS = ("augment", "clean_captions")

# Also 10 passes, all 32 pairs of a step being forget pairs.
PUBLISHED_FORGET_ONLY = Hyper(total_steps=9_530)


def baseline_presets(published: Hyper) -> dict[str, Hyper]:
    """Returns the presets of a published baseline: ``published``, and ``code`` with what its code does besides.

    The benchmark's fork trains on cleaned captions and on random crops. Neither is in the paper.
    """
    return {"published": published, "code": dataclasses.replace(published, augment=True, clean_captions=True)}


def base_optimizer(hyper: Hyper) -> optax.GradientTransformationExtraArgs:
    """Returns the end of a method's chain: the links of ``hyper.chain``, clipping if asked for, and scheduled AdamW."""
    optimizer = optax.with_extra_args_support(make_optimizer(hyper, hyper.total_steps))
    return optax.chain(*map(make_link, hyper.chain), optimizer) if hyper.chain else optimizer


def sgd_optimizer(hyper: Hyper, momentum: float) -> optax.GradientTransformationExtraArgs:
    """Returns the end of a chain for methods published with SGD, as PyTorch's: weight decay is added to the gradient.

    The links, the clipping, the schedule and the leaves that decay are those of :func:`base_optimizer`.
    """
    clip = [optax.clip_by_global_norm(hyper.clip_norm)] if hyper.clip_norm else []
    warmup = int(hyper.total_steps * WARMUP_FRACTION) if hyper.warmup_steps is None else hyper.warmup_steps
    schedule = warmup_cosine(hyper.learning_rate, warmup, hyper.total_steps)
    decay = optax.add_decayed_weights(hyper.weight_decay, decay_mask)
    sgd = optax.chain(*map(make_link, hyper.chain), *clip, decay, optax.sgd(schedule, momentum or None))
    return optax.with_extra_args_support(sgd)


# The fields of a method in a config. The number of steps follows from 'epochs'.
FIELDS = (
    "preset",
    "budget",
    *(field.name for field in dataclasses.fields(Hyper) if field.name != "total_steps"),
    "freeze",
)

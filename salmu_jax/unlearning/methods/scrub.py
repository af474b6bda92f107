"""SCRUB: leave the start model on forget, stay near it on retain, in alternating passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.losses import contrastive, in_batch_kl, in_batch_logits
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream


@dataclasses.dataclass(frozen=True)
class Scrub(Method):
    """Alternates passes that keep retain with passes that raise the divergence from the start model on forget.

    A pass is as long as one over forget, or a part of it (``passes_per_epoch``). The second, fourth, ... of the first
    ``2 max_passes`` passes maximise; all others minimise. The published code maximises first. But there the model is the start
    model, the divergence is 0 and so is its gradient: what Adam would follow is rounding noise, which differs from one number
    of devices to the next.

    Ask for more than ``2 max_passes`` passes, so that the last one minimises: a run of a single pass maximises nothing.
    Rewinding (SCRUB+R) is not implemented: it chooses among checkpoints.
    """

    name: ClassVar[str] = "scrub"
    title: ClassVar[str] = "SCRUB"
    reference: ClassVar[str] = "Kurmanji et al., Towards Unbounded Machine Unlearning, NeurIPS 2023"
    formula: ClassVar[str] = """
        passes 2, 4, .., 2 max_passes:   forgetting   -KL(F)
        all others:                      divergence   w_d KL(R)
                                         task         w_t L(I_R, T_R), L: the loss of training
        KL(X): of the in-batch softmaxes, of rows and of columns, of the start model from those of the model, their mean
    """
    presets: ClassVar[Mapping[str, Hyper]] = {
        # For the towers of configs/mini.py; 7 passes, of which 3 maximise.
        "mini": Hyper(learning_rate=3e-4, epochs=7.0, batch_size=128),
    }
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}

    max_passes: int = option(3, help="passes that maximise (published: 2 or 3)", low=0)
    passes_per_epoch: int = option(
        1, help="passes in an epoch; 8 fit the default max_passes into a budget of 1x", low=1
    )
    divergence_weight: float = option(1.0, help="weight of the divergence on retain", low=0)
    task_weight: float = option(1.0, help="weight of the loss of training on retain", low=0)

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``forgetting``, ``divergence`` and ``task``; those of the other phase are 0 and cost nothing."""

        nothing = jnp.zeros_like(model.logit_scale)

        def divergence(stream: str) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            start, now = (side.encode_pairs(batch[stream]) for side in (reference, model))
            return in_batch_kl(in_batch_logits(reference, *start), in_batch_logits(model, *now)), now

        def maximise() -> dict[str, jax.Array]:
            kl, _ = divergence("forget")
            return {"forgetting": -kl, "divergence": nothing, "task": nothing}

        def minimise() -> dict[str, jax.Array]:
            kl, now = divergence("retain")
            return {
                "forgetting": nothing,
                "divergence": self.divergence_weight * kl,
                "task": self.task_weight * contrastive(model, *now),
            }

        number = jnp.floor(info.epoch * self.passes_per_epoch).astype(jnp.int32)  # of the pass, from 0
        return jax.lax.cond((number % 2 == 1) & (number < 2 * self.max_passes), maximise, minimise)

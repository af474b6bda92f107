"""SCRUB: leave the start model on forget, stay near it on retain, in alternating passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from salmu_jax.unlearning.losses import contrastive, in_batch_kl, similarities
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream


@dataclasses.dataclass(frozen=True)
class Scrub(Method):
    """Alternates passes that keep retain with passes that raise the divergence from the start model on forget.

    A pass is as long as one over forget. The second, fourth, ... of the first ``2 max_passes`` passes maximise; all others
    minimise. The published code maximises first. But there the model is the start model, the divergence is 0 and so is its
    gradient: what Adam would follow is rounding noise, which differs from one number of devices to the next.

    Ask for more than ``2 max_passes`` epochs, so that the last pass minimises. Rewinding (SCRUB+R) is not implemented: it
    chooses among checkpoints.
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
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}

    max_passes: int = option(3, help="passes that maximise (published: 2 or 3)", low=0)
    divergence_weight: float = option(1.0, help="weight of the divergence on retain", low=0)
    task_weight: float = option(1.0, help="weight of the loss of training on retain", low=0)

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``forgetting``, ``divergence`` and ``task``; those of the other phase are 0 and cost nothing."""

        def maximise() -> dict[str, jax.Array]:
            kl = in_batch_kl(_logits(reference, batch["forget"]), _logits(model, batch["forget"]))
            return {"forgetting": -kl, "divergence": jnp.float32(0), "task": jnp.float32(0)}

        def minimise() -> dict[str, jax.Array]:
            kl = in_batch_kl(_logits(reference, batch["retain"]), _logits(model, batch["retain"]))
            task = contrastive(model, *model.encode_pairs(batch["retain"]))
            return {
                "forgetting": jnp.float32(0),
                "divergence": self.divergence_weight * kl,
                "task": self.task_weight * task,
            }

        number = jnp.floor(info.epoch).astype(jnp.int32)  # of the pass, from 0
        return jax.lax.cond((number % 2 == 1) & (number < 2 * self.max_passes), maximise, minimise)


def _logits(model: Bound, pairs: Pairs) -> jax.Array:
    """Returns the scaled cosine of every image with every caption, [B, B]."""
    return jnp.exp(model.logit_scale) * similarities(*model.encode_pairs(pairs))

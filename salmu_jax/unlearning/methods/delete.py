"""DELETE: every cosine within the forget batch goes to 0; retained similarities stay, their embeddings need not."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax

from salmu_jax.unlearning.losses import both_directions, similarities
from salmu_jax.unlearning.method import RETAIN, Batch, Bound, Method


@dataclasses.dataclass(frozen=True)
class Delete(Method):
    """Forgetting and retention, as adapted for the benchmark: CLIPErase without its consistency term."""

    name: ClassVar[str] = "delete"
    title: ClassVar[str] = "DELETE"
    reference: ClassVar[str] = "Zhou et al., Decoupled Distillation to Erase, CVPR 2025"
    needs: ClassVar[frozenset[str]] = frozenset({RETAIN})

    forgetting_weight: float = 1.0
    retention_weight: float = 1.0

    def objectives(self, batch: Batch, model: Bound, reference: Bound, rng: jax.Array) -> dict[str, jax.Array]:
        """``MSE(S_F, 0)`` and ``MSE(S_R, S0_R)``, both directions each."""
        image_f, text_f = model.encode_pairs(batch.forget)
        image_r, text_r = model.encode_pairs(batch.retain)
        image0_r, text0_r = reference.encode_pairs(batch.retain)
        kept = both_directions(similarities(image_r, text_r), similarities(image0_r, text0_r))
        return {
            "forgetting": self.forgetting_weight * both_directions(similarities(image_f, text_f), 0.0),
            "retention": self.retention_weight * kept,
        }

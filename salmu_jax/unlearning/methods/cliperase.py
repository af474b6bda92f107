"""CLIPErase: every cosine within the forget batch goes to 0; retained similarities and embeddings stay."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax

from salmu_jax.unlearning.losses import both_directions, mse, similarities
from salmu_jax.unlearning.method import RETAIN, Batch, Bound, Method


@dataclasses.dataclass(frozen=True)
class CLIPErase(Method):
    """Forgetting, retention and consistency, as adapted for the benchmark."""

    name: ClassVar[str] = "cliperase"
    title: ClassVar[str] = "CLIPErase"
    reference: ClassVar[str] = (
        "Yang et al., CLIPErase: Efficient Unlearning of Visual-Textual Associations in CLIP, ACL 2025"
    )
    needs: ClassVar[frozenset[str]] = frozenset({RETAIN})

    forgetting_weight: float = 1.0
    retention_weight: float = 1.0
    consistency_weight: float = 1.0

    def objectives(self, batch: Batch, model: Bound, reference: Bound, rng: jax.Array) -> dict[str, jax.Array]:
        """``MSE(S_F, 0)`` and ``MSE(S_R, S0_R)``, both directions each; ``MSE(I_R, I0_R) + MSE(T_R, T0_R)``."""
        image_f, text_f = model.encode_pairs(batch.forget)
        image_r, text_r = model.encode_pairs(batch.retain)
        image0_r, text0_r = reference.encode_pairs(batch.retain)
        kept = both_directions(similarities(image_r, text_r), similarities(image0_r, text0_r))
        return {
            "forgetting": self.forgetting_weight * both_directions(similarities(image_f, text_f), 0.0),
            "retention": self.retention_weight * kept,
            "consistency": self.consistency_weight * (mse(image_r, image0_r) + mse(text_r, text0_r)),
        }

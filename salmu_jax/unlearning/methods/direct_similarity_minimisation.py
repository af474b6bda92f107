"""Direct Similarity Minimisation: push every forget image away from its caption, without end."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from salmu_jax.unlearning.hyper import PUBLISHED_FORGET_ONLY, Hyper
from salmu_jax.unlearning.method import Batch, Bound, Method


@dataclasses.dataclass(frozen=True)
class DirectSimilarityMinimisation(Method):
    """The mean cosine of the forget pairs."""

    name: ClassVar[str] = "direct_similarity_minimisation"
    title: ClassVar[str] = "Direct Similarity Minimisation"
    reference: ClassVar[str] = "SALMUBench, CVPR 2026 (baseline)"
    defaults: ClassVar[Hyper] = PUBLISHED_FORGET_ONLY

    def objectives(self, batch: Batch, model: Bound, reference: Bound, rng: jax.Array) -> dict[str, jax.Array]:
        """``mean diag(S_F)``."""
        image, text = model.encode_pairs(batch.forget)
        return {"forgetting": jnp.mean(jnp.sum(image * text, axis=-1))}

"""VLUnlearn (MultiDelete): forget pairs become as unrelated as random ones were; retained pairs stay."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax

from salmu_jax.unlearning.losses import both_directions, fuse, mse, similarities
from salmu_jax.unlearning.method import RETAIN, Batch, Bound, Method


@dataclasses.dataclass(frozen=True)
class VLUnlearn(Method):
    """Modality decoupling on the forget batch, multimodal and unimodal retention on the retain batch."""

    name: ClassVar[str] = "vlunlearn"
    title: ClassVar[str] = "VLUnlearn (MultiDelete)"
    reference: ClassVar[str] = "Cheng and Amiri, MultiDelete for Multimodal Machine Unlearning, ECCV 2024"
    needs: ClassVar[frozenset[str]] = frozenset({RETAIN})

    decoupling_weight: float = 1.0
    multimodal_weight: float = 1.0
    unimodal_weight: float = 1.0

    def objectives(self, batch: Batch, model: Bound, reference: Bound, rng: jax.Array) -> dict[str, jax.Array]:
        """Decoupling, multimodal and unimodal retention.

        ``MSE(S_F, I0_F T0_F[pi]^T)`` both directions; ``MSE(fused_R, fused0_R)``; ``MSE(I_R, I0_R) + MSE(T_R, T0_R)``.
        """
        image_f, text_f = model.encode_pairs(batch.forget)
        image_r, text_r = model.encode_pairs(batch.retain)
        image0_f, text0_f = reference.encode_pairs(batch.forget)
        image0_r, text0_r = reference.encode_pairs(batch.retain)
        permutation = jax.random.permutation(rng, text0_f.shape[0])
        unrelated = similarities(image0_f, text0_f[permutation])
        return {
            "decoupling": self.decoupling_weight * both_directions(similarities(image_f, text_f), unrelated),
            "multimodal": self.multimodal_weight * mse(fuse(image_r, text_r), fuse(image0_r, text0_r)),
            "unimodal": self.unimodal_weight * (mse(image_r, image0_r) + mse(text_r, text0_r)),
        }

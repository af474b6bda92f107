"""VLUnlearn (MultiDelete): forget pairs become as unrelated as random ones were; retained pairs stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from salmu_jax.unlearning.hyper import Hyper, baseline_presets
from salmu_jax.unlearning.losses import both_directions, fuse, mse, similarities
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream


@dataclasses.dataclass(frozen=True)
class VLUnlearn(Method):
    """Makes forget pairs as unrelated as random ones were; keeps the fused and the single embeddings of the retain batch."""

    name: ClassVar[str] = "vlunlearn"
    title: ClassVar[str] = "VLUnlearn (MultiDelete)"
    reference: ClassVar[str] = "Cheng and Amiri, MultiDelete for Multimodal Machine Unlearning, ECCV 2024"
    formula: ClassVar[str] = """
        decoupling   w_d [MSE(S_F, P) + MSE(S_F^T, P^T)], P = I0_F T0_F[pi]^T
        multimodal   w_m MSE(fused_R, fused0_R), fused = normalise((I + T) / 2)
        unimodal     w_u [MSE(I_R, I0_R) + MSE(T_R, T0_R)]
        S = I T^T, pi: a permutation of the batch, drawn every step, 0: the start model
    """
    presets: ClassVar[Mapping[str, Hyper]] = baseline_presets(Hyper())
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}

    decoupling_weight: float = option(1.0, help="weight of the decoupling term")
    multimodal_weight: float = option(1.0, help="weight of the multimodal retention term")
    unimodal_weight: float = option(1.0, help="weight of the unimodal retention term")

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        image_f, text_f = model.encode_pairs(batch["forget"])
        image_r, text_r = model.encode_pairs(batch["retain"])
        image0_f, text0_f = reference.encode_pairs(batch["forget"])
        image0_r, text0_r = reference.encode_pairs(batch["retain"])
        permutation = jax.random.permutation(info.rng, text0_f.shape[0])
        unrelated = similarities(image0_f, text0_f[permutation])
        return {
            "decoupling": self.decoupling_weight * both_directions(similarities(image_f, text_f), unrelated),
            "multimodal": self.multimodal_weight * mse(fuse(image_r, text_r), fuse(image0_r, text0_r)),
            "unimodal": self.unimodal_weight * (mse(image_r, image0_r) + mse(text_r, text0_r)),
        }

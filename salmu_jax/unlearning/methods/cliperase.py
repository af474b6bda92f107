"""CLIPErase as SALMUBench adapts it: every cosine within the forget batch goes to 0; retain's cosines and embeddings stay.

The paper's own losses are ``cliperase_paper.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from salmu_jax.unlearning.hyper import Hyper, baseline_presets
from salmu_jax.unlearning.losses import both_directions, mse, similarities
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream


@dataclasses.dataclass(frozen=True)
class CLIPErase(Method):
    """Drives all similarities of the forget batch to 0; keeps the retain batch's, and its embeddings: SALMUBench's form.

    This is the baseline of SALMUBench's tables, not the paper's CLIPErase.
    """

    name: ClassVar[str] = "cliperase"
    title: ClassVar[str] = "CLIPErase (SALMU)"
    reference: ClassVar[str] = (
        "SALMUBench, CVPR 2026 (baseline), after Yang et al., CLIPErase: Efficient Unlearning of Visual-Textual"
        " Associations in CLIP, ACL 2025; the paper's losses are cliperase_paper"
    )
    formula: ClassVar[str] = """
        forgetting   w_f [MSE(S_F, 0) + MSE(S_F^T, 0)]
        retention    w_r [MSE(S_R, S0_R) + MSE(S_R^T, S0_R^T)]
        consistency  w_c [MSE(I_R, I0_R) + MSE(T_R, T0_R)]
        SALMUBench's form; S = I T^T, 0: the start model
    """
    presets: ClassVar[Mapping[str, Hyper]] = baseline_presets(Hyper())
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}

    forgetting_weight: float = option(1.0, help="weight of the forgetting term")
    retention_weight: float = option(1.0, help="weight of the retention term")
    consistency_weight: float = option(1.0, help="weight of the consistency term")

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        image_f, text_f = model.encode_pairs(batch["forget"])
        image_r, text_r = model.encode_pairs(batch["retain"])
        image0_r, text0_r = reference.encode_pairs(batch["retain"])
        kept = both_directions(similarities(image_r, text_r), similarities(image0_r, text0_r))
        return {
            "forgetting": self.forgetting_weight * both_directions(similarities(image_f, text_f), 0.0),
            "retention": self.retention_weight * kept,
            "consistency": self.consistency_weight * (mse(image_r, image0_r) + mse(text_r, text0_r)),
        }

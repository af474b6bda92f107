"""DELETE as SALMUBench adapts it: every cosine within the forget batch goes to 0; retain's cosines stay.

The paper's own loss is ``delete_paper.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from salmu_jax.unlearning.hyper import Hyper, baseline_presets
from salmu_jax.unlearning.losses import both_directions, similarities
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream


@dataclasses.dataclass(frozen=True)
class Delete(Method):
    """Drives all similarities of the forget batch to 0 and keeps those of the retain batch: SALMUBench's form.

    This is the baseline of SALMUBench's tables, CLIPErase (SALMU) without consistency, and not the paper's DELETE.
    """

    name: ClassVar[str] = "delete"
    title: ClassVar[str] = "DELETE (SALMU)"
    reference: ClassVar[str] = (
        "SALMUBench, CVPR 2026 (baseline), after Zhou et al., Decoupled Distillation to Erase, CVPR 2025; the paper's loss"
        " is delete_paper"
    )
    formula: ClassVar[str] = """
        forgetting   w_f [MSE(S_F, 0) + MSE(S_F^T, 0)]
        retention    w_r [MSE(S_R, S0_R) + MSE(S_R^T, S0_R^T)]
        SALMUBench's form; S = I T^T, 0: the start model
    """
    presets: ClassVar[Mapping[str, Hyper]] = baseline_presets(Hyper())
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}

    forgetting_weight: float = option(1.0, help="weight of the forgetting term")
    retention_weight: float = option(1.0, help="weight of the retention term")

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
        }

"""Direct Similarity Minimisation: push every forget image away from its caption, without end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from salmu_jax.unlearning.hyper import PUBLISHED_FORGET_ONLY, Hyper, baseline_presets
from salmu_jax.unlearning.losses import mean_similarity
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo
from salmu_jax.unlearning.streams import Forget, Stream


@dataclasses.dataclass(frozen=True)
class DirectSimilarityMinimisation(Method):
    """Minimises the mean cosine of the forget pairs."""

    name: ClassVar[str] = "direct_similarity_minimisation"
    title: ClassVar[str] = "Direct Similarity Minimisation"
    reference: ClassVar[str] = "SALMUBench, CVPR 2026 (baseline)"
    formula: ClassVar[str] = "forgetting   mean_i <I_F,i, T_F,i>"
    defaults: ClassVar[Hyper] = PUBLISHED_FORGET_ONLY
    presets: ClassVar[Mapping[str, Hyper]] = baseline_presets(PUBLISHED_FORGET_ONLY)
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget()}

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        image, text = model.encode_pairs(batch["forget"])
        return {"forgetting": mean_similarity(image, text)}

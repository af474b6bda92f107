"""Generic Captions: learn a caption without anything personal for each forget image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from salmu_jax.unlearning.hyper import PUBLISHED_FORGET_ONLY, Hyper, baseline_presets
from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo
from salmu_jax.unlearning.streams import Forget, Stream


@dataclasses.dataclass(frozen=True)
class GenericCaptions(Method):
    """Learns the generic captions of the forget images; equal captions are negatives like any."""

    name: ClassVar[str] = "generic_captions"
    title: ClassVar[str] = "Generic Captions"
    reference: ClassVar[str] = "SALMUBench, CVPR 2026 (baseline)"
    formula: ClassVar[str] = "forgetting   L_CLIP(I_F, G_F), G: the generic captions"
    defaults: ClassVar[Hyper] = PUBLISHED_FORGET_ONLY
    presets: ClassVar[Mapping[str, Hyper]] = baseline_presets(PUBLISHED_FORGET_ONLY)
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(others={"generic": "generic_caption"})}

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        forget = batch["forget"]
        image, text = model.encode_image(forget.images), model.encode_text(forget.others["generic"])
        return {"forgetting": contrastive(model, image, text)}

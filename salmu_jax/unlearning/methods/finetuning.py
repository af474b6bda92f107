"""Finetuning: train on, on retained pairs only, and hope that the rest fades."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from salmu_jax.unlearning.hyper import Hyper, baseline_presets
from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo
from salmu_jax.unlearning.streams import Retain, Stream, Texts


@dataclasses.dataclass(frozen=True)
class Finetuning(Method):
    """Minimises the contrastive loss on the retain batch; the forget batch is not looked at."""

    name: ClassVar[str] = "finetuning"
    title: ClassVar[str] = "Finetuning"
    reference: ClassVar[str] = "Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020 (baseline)"
    formula: ClassVar[str] = "retention   L_CLIP(I_R, T_R)"
    presets: ClassVar[Mapping[str, Hyper]] = baseline_presets(Hyper())
    # The forget half of the batch counts its epochs, as published. Nobody reads it, so that no image has to be decoded.
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Texts(of="forget"), "retain": Retain()}

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        image, text = model.encode_pairs(batch["retain"])
        return {"retention": contrastive(model, image, text)}

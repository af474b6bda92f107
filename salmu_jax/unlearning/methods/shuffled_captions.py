"""Shuffled Captions: learn wrong pairs in the place of the right ones."""

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
class ShuffledCaptions(Method):
    """Learns a random permutation of the captions of the forget images (fixed points included)."""

    name: ClassVar[str] = "shuffled_captions"
    title: ClassVar[str] = "Shuffled Captions"
    reference: ClassVar[str] = (
        "Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020 (random labels, for captions)"
    )
    formula: ClassVar[str] = "forgetting   L_CLIP(I_F, T_F[pi]), pi: a permutation of the batch, drawn every step"
    defaults: ClassVar[Hyper] = PUBLISHED_FORGET_ONLY
    presets: ClassVar[Mapping[str, Hyper]] = baseline_presets(PUBLISHED_FORGET_ONLY)
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget()}

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        image, text = model.encode_pairs(batch["forget"])
        permutation = jax.random.permutation(info.rng, text.shape[0])
        return {"forgetting": contrastive(model, image, text[permutation])}

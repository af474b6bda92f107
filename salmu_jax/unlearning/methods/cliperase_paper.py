"""CLIPErase as its paper has it: own similarities of forget go down, retain's in-batch distributions stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.losses import contrastive, in_batch_kl, in_batch_logits, mean_similarity
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream


@dataclasses.dataclass(frozen=True)
class CLIPErasePaper(Method):
    """Lowers the similarities of forget pairs; trains on retain, whose in-batch distributions stay (KL): the paper's form.

    SALMUBench's tables have another loss under this name: ``cliperase``.
    """

    name: ClassVar[str] = "cliperase_paper"
    title: ClassVar[str] = "CLIPErase"
    reference: ClassVar[str] = (
        "Yang et al., CLIPErase: Efficient Unlearning of Visual-Textual Associations in CLIP, ACL 2025 (arXiv 2410.23330);"
        " SALMUBench's form is cliperase"
    )
    formula: ClassVar[str] = """
        retention    w_r L(I_R, T_R), L: the loss of training
        forgetting   w_f mean_i <I_F,i, T_F,i>
        consistency  w_c [KL(p0_image, p_image) + KL(p0_text, p_text)] on R
        p: the in-batch softmax of the logits, of an image over captions and of a caption over images; 0: the start model
    """
    # The paper's Adam and rate; its batch of 16 as 16 pairs of each stream, its 20 epochs as passes over forget.
    defaults: ClassVar[Hyper] = Hyper(learning_rate=1e-6, weight_decay=0.0, epochs=20.0, total_steps=38_100)
    presets: ClassVar[Mapping[str, Hyper]] = {
        "paper": defaults,
        "paper_flickr30k": dataclasses.replace(defaults, learning_rate=1e-8),
    }
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}

    retention_weight: float = option(1.0, help="weight of the loss on retain pairs", low=0)
    forgetting_weight: float = option(3.0, help="weight of the similarity of forget pairs", low=0)
    consistency_weight: float = option(3.0, help="weight of the divergence on retain pairs", low=0)

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``retention``, ``forgetting`` and ``consistency``."""
        image_f, text_f = model.encode_pairs(batch["forget"])
        retain = model.encode_pairs(batch["retain"])
        start = in_batch_logits(reference, *reference.encode_pairs(batch["retain"]))
        divergence = 2 * in_batch_kl(start, in_batch_logits(model, *retain))  # the mean of the two directions
        return {
            "retention": self.retention_weight * contrastive(model, *retain),
            "forgetting": self.forgetting_weight * mean_similarity(image_f, text_f),
            "consistency": self.consistency_weight * divergence,
        }

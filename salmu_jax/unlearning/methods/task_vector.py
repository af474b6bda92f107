"""Task-vector negation: learn forget a second time, and then go from the start model the other way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from salmu_jax.models.clip import Params
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Stream


@dataclasses.dataclass(frozen=True)
class TaskVector(Method):
    """Fine-tunes on forget pairs, and subtracts from the start model what that has changed.

    The paper fine-tunes the image tower and chooses ``strength`` on validation data. Here both towers are trained, unless
    ``freeze`` says otherwise.
    """

    name: ClassVar[str] = "task_vector"
    title: ClassVar[str] = "Task-vector negation"
    reference: ClassVar[str] = "Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023"
    formula: ClassVar[str] = """
        learning   L(I_F, T_F), L: the loss of training
        then       theta_0 - strength (theta - theta_0), theta_0: the start model
    """
    # 2,000 steps of 128 pairs, were there as many forget pairs as in the released data.
    defaults: ClassVar[Hyper] = Hyper(
        learning_rate=1e-5, weight_decay=0.1, epochs=8.4, batch_size=128, total_steps=2_000
    )
    presets: ClassVar[Mapping[str, Hyper]] = {
        "paper": dataclasses.replace(defaults, warmup_steps=200),
        # For the towers of configs/mini.py.
        "mini": Hyper(learning_rate=3e-4, weight_decay=0.0, epochs=3.45, batch_size=64, options={"strength": 3.0}),
    }
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget()}

    strength: float = option(1.0, help="how many times the task vector is subtracted", low=0)

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``{"learning": L(I_F, T_F)}``."""
        return {"learning": contrastive(model, *model.encode_pairs(batch["forget"]))}

    def finish(self, params: Params, reference_params: Params, prepared: Any) -> Params:
        """Returns ``theta_0 - strength (theta - theta_0)``."""
        return negated(params, reference_params, self.strength)


def negated(params: Params, reference_params: Params, strength: float) -> Params:
    """Returns ``theta_0 - strength (theta - theta_0)``; what has not changed keeps its bits."""
    return jax.tree.map(lambda new, old: old - strength * (new - old), params, reference_params)

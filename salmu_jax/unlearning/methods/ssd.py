"""SSD: dampen the weights that matter much more to forget than to retain, in closed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from salmu_jax.models.clip import Params
from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.losses import contrastive, mean_similarity
from salmu_jax.unlearning.method import Method, Pairs, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream


@dataclasses.dataclass(frozen=True)
class SSD(Method):
    """Scales down the weights that forget's loss depends on much more than retain's; no steps.

    The importance of a weight is the mean over batches of its squared gradient, as in the published code. The paper compares
    forget with all training data; a run may read retain instead. Scalars (the logit scale) stay, as in SLUG's code for CLIP.
    """

    name: ClassVar[str] = "ssd"
    title: ClassVar[str] = "SSD"
    reference: ClassVar[str] = (
        "Foster, Schoepf and Brintrup, Fast Machine Unlearning without Retraining through Selective Synaptic Dampening,"
        " AAAI 2024; for CLIP: Cai et al., SLUG, ICML 2025"
    )
    formula: ClassVar[str] = """
        theta *= min(dampening J_R / J_F, 1)   where J_F > selection J_R
        J_R, J_F: the mean over batches of the squared gradient of L on R, and of forget_loss on F
        contrastive: L, the loss of training; cosine: mean_i (1 - <I_i, T_i>)
    """
    defaults: ClassVar[Hyper] = Hyper(epochs=0, total_steps=0)
    presets: ClassVar[Mapping[str, Hyper]] = {
        "paper": defaults,
        # SLUG's repository tries a dampening of 0.1 to 5.
        "slug": dataclasses.replace(defaults, options={"forget_loss": "cosine"}),
        # For the towers of configs/mini.py.
        "mini": dataclasses.replace(defaults, batch_size=64, options={"batches": 20}),
    }
    streams: ClassVar[Mapping[str, Stream]] = {
        "forget": Forget(prepare_only=True),
        "retain": Retain(prepare_only=True),
    }

    selection: float = option(10.0, help="how many times more important to forget a weight has to be", low=0)
    dampening: float = option(1.0, help="the larger, the less the chosen weights shrink", low=0)
    forget_loss: str = option(
        "contrastive",
        help="the loss whose gradient makes a weight important to forget",
        choices=("contrastive", "cosine"),
    )
    batches: int = option(64, help="batches that importance is averaged over", low=1)

    def prepare(self, ctx: Context) -> Any:
        """Returns what each trainable weight is multiplied with: a tree like the trainable leaves."""

        def loss(trainable: Any, pairs: Pairs, kind: str) -> jax.Array:
            model = ctx.bind(trainable)
            image, text = model.encode_pairs(pairs)
            return contrastive(model, image, text) if kind == "contrastive" else 1 - mean_similarity(image, text)

        def importances(trainable: Any, batch: Mapping[str, Pairs], rng: jax.Array) -> tuple[Any, Any]:
            forget = jax.grad(loss)(trainable, batch["forget"], self.forget_loss)
            retain = jax.grad(loss)(trainable, batch["retain"], "contrastive")
            return jax.tree.map(jnp.square, (forget, retain))

        forget, retain = ctx.mean(importances, self.batches)
        return jax.jit(factors, static_argnums=(2, 3))(forget, retain, self.selection, self.dampening)

    def finish(self, params: Params, reference_params: Params, prepared: Any) -> Params:
        """Returns the dampened parameters."""

        def scale(factor: Any, leaf: jax.Array) -> jax.Array:
            return leaf if isinstance(factor, optax.MaskedNode) else leaf * factor

        return jax.tree.map(scale, prepared, params, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))


def factors(forget: Any, retain: Any, selection: float, dampening: float) -> Any:
    """Returns ``min(dampening J_R / J_F, 1)`` where ``J_F > selection J_R``, and 1 elsewhere and for scalars.

    ``forget`` and ``retain`` are trees of importances J_F and J_R, float32, at least 0.
    """

    def factor(j_forget: jax.Array, j_retain: jax.Array) -> jax.Array:
        if j_forget.size == 1:
            return jnp.ones_like(j_forget)
        chosen = j_forget > selection * j_retain
        return jnp.where(chosen, jnp.minimum(dampening * j_retain / jnp.where(chosen, j_forget, 1), 1), 1)

    return jax.tree.map(factor, forget, retain)

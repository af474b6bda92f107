"""Simulates an attacker inside a step: a method that is to resist fine-tuning sees the model after some of it.

The attack is the beginning of relearning (``evaluation/relearning.py``): AdamW on the contrastive loss of some forget pairs.
A loss of the attacked model is differentiated at its parameters, and the gradient is applied to those before the attack: the
first-order approximation of MAML (Finn et al., "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML
2017). Tamirisa et al. ("Tamper-Resistant Safeguards for Open-Weight LLMs", ICLR 2025) train language models so.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.method import Bound

EPS = 1e-6  # relearning's
TEXT = "text"


def after_attack(model: Bound, image: jax.Array, tokens: jax.Array, *, rate: jax.Array | float, steps: int) -> Bound:
    """Returns ``model`` with its text tower fine-tuned by an attacker; the change of the parameters counts as constant.

    Each step moves every parameter by ``rate g / (|g| + 1e-6)``, where g is its gradient: AdamW's first update.

    Args:
      image: float32 [N, D], embeddings of the images of the attacker's pairs. Without pairs nothing changes.
      tokens: int32 [N, T], their captions.
      rate: the attacker's learning rate; larger than a real one's, for it takes fewer steps.
    """
    params = jax.lax.stop_gradient(model.params)

    def loss(tower: Any) -> jax.Array:
        attacked = Bound(model.clip, {**params, TEXT: tower})
        return contrastive(attacked, image, attacked.encode_text(tokens))

    tower = params[TEXT]
    for _ in range(steps if len(tokens) else 0):
        gradient = jax.grad(loss)(tower)
        tower = jax.tree.map(lambda leaf, g: leaf - rate * g / (jnp.abs(g) + EPS), tower, gradient)
    attacked = jax.tree.map(lambda leaf, now, then: leaf + (then - now), model.params[TEXT], params[TEXT], tower)
    return Bound(model.clip, {**model.params, TEXT: attacked})

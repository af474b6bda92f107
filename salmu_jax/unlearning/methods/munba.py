"""MUNBa: forgetting and retention bargain for each update, which Nash's solution shares out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from salmu_jax.models.clip import Params
from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.freeze import parameter_paths, put, take
from salmu_jax.unlearning.hyper import Hyper, base_optimizer, sgd_optimizer
from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.method import Bind, Bound, Method, Pairs, StepInfo, identity, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream

_ATTENTION = re.compile(r".*/(in_proj|out_proj)/(kernel|bias)")
_PARALLEL = 1e-6  # sin^2 of the angle up to which float32 gradients count as parallel


@dataclasses.dataclass(frozen=True)
class MUNBa(Method):
    """Learns wrong captions for forget images and keeps retain, each update being the Nash bargain of the two gradients."""

    name: ClassVar[str] = "munba"
    title: ClassVar[str] = "MUNBa"
    reference: ClassVar[str] = "Wu and Harandi, MUNBa: Machine Unlearning via Nash Bargaining, ICCV 2025"
    formula: ClassVar[str] = """
        forgetting   L(I_F, T_F[pi]), pi: a random permutation; L: the loss of training
        retention    L(I_R, T_R)
        g = a_f g_f + a_r g_r, a_i = sqrt((1 - cos phi) / sin^2 phi) / |g_i|, phi: the angle of g_f and g_r
        a_i = 1/2 where they are parallel, or one is 0
    """
    # The paper's CLIP experiments train the attention with SGD, and clip the norm of the gradient.
    defaults: ClassVar[Hyper] = Hyper(learning_rate=0.01, weight_decay=5e-4, clip_norm=1.0, warmup_steps=0)
    presets: ClassVar[Mapping[str, Hyper]] = {
        "paper": dataclasses.replace(defaults, batch_size=256),
        # For the towers of configs/mini.py.
        "mini": dataclasses.replace(defaults, learning_rate=0.03, epochs=5.4, batch_size=128),
    }
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}
    separate_gradients: ClassVar[tuple[str, ...]] = ("forgetting", "retention")

    attention_only: bool = option(True, help="train the attention layers of both towers alone")
    optimizer: str = option(
        "sgd", help="the base optimizer; of AdamW's settings, SGD has no b1, b2, eps", choices=("sgd", "adamw")
    )
    momentum: float = option(0.9, help="of SGD", low=0, high=1, high_open=True)

    def parametrise(self, params: Params, prepared: Any, rng: jax.Array) -> tuple[Params, Bind]:
        """Returns the attention layers, or everything, and what puts them into the start model.

        Raises InputError for a model without attention layers.
        """
        if not self.attention_only:
            return params, identity
        chosen = [path for path in parameter_paths(params) if _ATTENTION.fullmatch(path)]
        if not chosen:
            raise InputError(
                "the model has no attention layers; false would train everything", "options.attention_only"
            )
        return take(params, chosen), put

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``forgetting``: ``L(I_F, T_F[pi])``, and ``retention``: ``L(I_R, T_R)``."""
        image, text = model.encode_pairs(batch["forget"])
        permutation = jax.random.permutation(info.rng, len(text))
        return {
            "forgetting": contrastive(model, image, text[permutation]),
            "retention": contrastive(model, *model.encode_pairs(batch["retain"])),
        }

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """Bargains, and then lets SGD with momentum, or AdamW, make the update."""
        base = sgd_optimizer(hyper, self.momentum) if self.optimizer == "sgd" else base_optimizer(hyper)
        return optax.chain(bargain("forgetting", "retention"), base)


def bargain(first: str, second: str) -> optax.GradientTransformationExtraArgs:
    """Replaces the gradient by the Nash bargain of two terms', ``a_1 g_1 + a_2 g_2``; there must be no other terms.

    With ``phi`` the angle between them, ``a_i = sqrt((1 - cos phi) / sin^2 phi) / |g_i| = 1 / (sqrt(1 + cos phi) |g_i|)``.
    Where they are parallel or opposite, or one is 0, ``a_i = 1/2``. Both names must be among ``separate_gradients``.

    >>> gradients = {"forget": {"w": jnp.array([2.0, 0.0])}, "retain": {"w": jnp.array([0.0, 0.5])}}
    >>> tx = bargain("forget", "retain")
    >>> updates, _ = tx.update({"w": jnp.array([2.0, 0.5])}, tx.init(None), gradients=gradients)
    >>> updates["w"].tolist()
    [1.0, 1.0]
    """

    def update(updates: Any, state: Any, params: Any = None, *, gradients: Mapping[str, Any], **extra: Any) -> Any:
        del updates, params, extra
        pair = (gradients[first], gradients[second])
        norms = jnp.stack([optax.tree.norm(gradient) for gradient in pair])
        # Of unit vectors, so that the products of small gradients do not vanish in float32.
        safe = jnp.where(norms > 0, norms, 1)
        cosine = optax.tree.vdot(
            *(optax.tree.scale(1 / norm, gradient) for norm, gradient in zip(safe, pair, strict=True))
        )
        apart = (1 - jnp.square(cosine) > _PARALLEL) & jnp.all(norms > 0)
        shares = 1 / (jnp.sqrt(1 + jnp.where(apart, cosine, 0)) * jnp.where(apart, norms, 1))
        shares = jnp.where(apart, shares, 0.5)
        return jax.tree.map(lambda a, b: shares[0] * a + shares[1] * b, *pair), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

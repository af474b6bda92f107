"""SalUn: learn wrong captions for forget images, with only the weights that forget's loss depends on most."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.hyper import Hyper, base_optimizer
from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.method import Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream
from salmu_jax.unlearning.transforms import saliency_mask


@dataclasses.dataclass(frozen=True)
class SalUn(Method):
    """Trains the most salient weights on forget images with permuted captions, and on retain pairs."""

    name: ClassVar[str] = "salun"
    title: ClassVar[str] = "SalUn"
    reference: ClassVar[str] = (
        "Fan et al., SalUn: Empowering Machine Unlearning via Gradient-Based Weight Saliency, ICLR 2024"
    )
    formula: ClassVar[str] = """
        mask: where |grad L(I_F, T_F)| of the start model is among the share of all weights that has the largest
        forgetting   L(I_F, T_F[pi]), pi: a random permutation
        retention    w_r L(I_R, T_R)
        masked weights alone move; L: the loss of training
    """
    presets: ClassVar[Mapping[str, Hyper]] = {
        # SLUG's repository, for CLIP: 1e-6 works too, 1e-5 breaks the model.
        "slug": Hyper(learning_rate=1e-7, weight_decay=0.1, batch_size=32, warmup_steps=0),
        # For the towers of configs/mini.py.
        "mini": Hyper(learning_rate=3e-4, epochs=5.4, batch_size=128, options={"batches": 20}),
    }
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget(), "retain": Retain()}

    share: float = option(0.5, help="share of the trainable weights that may move", low=0, high=1)
    retention_weight: float = option(1.0, help="weight of the loss on retain pairs", low=0)
    batches: int = option(64, help="forget batches that the gradient is averaged over", low=1)

    def prepare(self, ctx: Context) -> Any:
        """Returns ``mask``: a tree like the trainable leaves, bool."""

        def loss(trainable: Any, batch: Mapping[str, Pairs]) -> jax.Array:
            model = ctx.bind(trainable)
            return contrastive(model, *model.encode_pairs(batch["forget"]))

        gradient = ctx.mean(lambda trainable, batch, rng: jax.grad(loss)(trainable, batch), self.batches)
        return {"mask": jax.jit(largest, static_argnums=1)(gradient, self.share)}

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``forgetting``: ``L(I_F, T_F[pi])``, and ``retention``: ``L(I_R, T_R)``."""
        image, text = model.encode_pairs(batch["forget"])
        permutation = jax.random.permutation(info.rng, len(text))
        retention = contrastive(model, *model.encode_pairs(batch["retain"]))
        return {
            "forgetting": contrastive(model, image, text[permutation]),
            "retention": self.retention_weight * retention,
        }

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """Masks the gradient, so that clipping sees only salient weights, and the update, so that decay does too."""
        return optax.chain(saliency_mask(), base_optimizer(hyper), saliency_mask())


def largest(tree: Any, share: float) -> Any:
    """Returns where ``|leaf|`` is among the ``share`` of all entries of ``tree`` with the largest; ties are all in.

    The threshold is one over all leaves, as published. An entry that is 0 is never in: the loss does not depend on it
    (the embedding of a token that no caption holds, say). bool leaves.

    Sorting all weights of a sharded model would gather them on one device. The bits of non-negative floats are ordered
    as the floats are, so that 31 counts find the threshold bit by bit.
    """
    bits = [jax.lax.bitcast_convert_type(jnp.abs(leaf), jnp.int32) for leaf in jax.tree.leaves(tree)]
    wanted = round(share * sum(leaf.size for leaf in bits))

    def refine(position: jax.Array, threshold: jax.Array) -> jax.Array:
        candidate = threshold | jnp.left_shift(jnp.int32(1), 30 - position)
        reached = sum(jnp.sum(leaf >= candidate) for leaf in bits)
        return jnp.where(reached >= wanted, candidate, threshold)

    threshold = jnp.maximum(jax.lax.fori_loop(0, 31, refine, jnp.int32(0)), 1)
    if wanted == 0:
        threshold = jnp.int32(jnp.iinfo(jnp.int32).max)
    return jax.tree.map(lambda leaf: jax.lax.bitcast_convert_type(jnp.abs(leaf), jnp.int32) >= threshold, tree)

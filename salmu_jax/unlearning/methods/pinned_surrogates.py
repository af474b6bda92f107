"""Pinned surrogates: push forget's captions off their images, and hold the captions of everybody and everything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from salmu_jax.models.clip import Params
from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.losses import squared_distances
from salmu_jax.unlearning.method import Bind, Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Stream, Surrogates, Texts
from salmu_jax.unlearning.surrogates import absent_attributes, aliases, invented_people

LEVEL_PURPOSE = 7  # keeps the draws of the level apart


@dataclasses.dataclass(frozen=True)
class PinnedSurrogates(Method):
    """Pushes forget's captions down to the start model's own non-matching level; pins captions of everybody else.

    Only the text tower is trained: portraits of a person who is forgotten in part look alike, so only the text can
    tell what is to be kept. Pins are captions made from forget's metadata (``unlearning/surrogates.py``) and captions of
    retain. It is precise where it was trained, and superficial: a paraphrase brings much back, and so does relearning.
    """

    name: ClassVar[str] = "pinned_surrogates"
    title: ClassVar[str] = "Pinned surrogates"
    reference: ClassVar[str] = "SALMU-JAX (this project)"
    formula: ClassVar[str] = """
        hinge      w_h mean_F relu(<I0, T> - tau)^2, tau: the mean of <I0, T0> over captions of invented people
        alias      w_a mean_F |T - T0(alias)|^2, alias: the caption about somebody invented
        retain, invented, absent   w mean |T - T0|^2 over captions of retain, of invented people, and of forget's people
                   on attributes that forget does not show of them
        0: the start model; the text tower alone is trained
    """
    # For small towers: 2,000 steps over the made world's 1,296 forget pairs, 96 rows of each stream a step.
    defaults: ClassVar[Hyper] = Hyper(learning_rate=3e-3, epochs=148.1, batch_size=384, weight_decay=0.0)
    presets: ClassVar[Mapping[str, Hyper]] = {
        "quick": dataclasses.replace(  # 700 steps
            defaults, epochs=51.85, options={"alias_weight": 2.0, "invented_weight": 6.0, "absent_weight": 6.0}
        ),
    }

    hinge_weight: float = option(20.0, help="weight of the excess similarity of forget pairs", low=0)
    alias_weight: float = option(0.5, help="weight of the distance from a forget caption to its alias", low=0)
    retain_weight: float = option(4.0, help="weight of the drift of retain's captions", low=0)
    invented_weight: float = option(8.0, help="weight of the drift of captions of invented people", low=0)
    absent_weight: float = option(10.0, help="weight of the drift of captions of absent attributes", low=0)
    pool: int = option(20_000, help="captions of invented people, and as many of absent attributes", low=1)

    def make_streams(self) -> Mapping[str, Stream]:
        """Returns forget pairs with aliases, and three streams of captions to pin."""
        return {
            "forget": Forget(others={"alias": aliases}),
            "retain": Texts(of="retain"),
            "invented": Surrogates(make=invented_people, count=self.pool),
            "absent": Surrogates(make=absent_attributes, count=self.pool),
        }

    def prepare(self, ctx: Context) -> np.ndarray:
        """Returns the mean embedding of captions of invented people, float32 [D].

        Its product with an image is the start model's non-matching level of that image. (That of the captions of forget's
        other rows is much the same, but a request of one person has no others.)
        """
        captions = invented_people(ctx.rows, np.random.default_rng([ctx.seed, LEVEL_PURPOSE]))
        return ctx.encode_texts(captions).mean(axis=0)

    def parametrise(self, params: Params, prepared: Any, rng: jax.Array) -> tuple[Params, Bind]:
        """Returns the text tower, and a ``bind`` that replaces the start model's with it."""
        return {"text": params["text"]}, lambda trainable, params: {**params, **trainable}

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``hinge``, ``alias``, and the drift of each stream of pins."""
        forget = batch["forget"]
        assert forget.images is not None
        assert forget.tokens is not None
        image, text = reference.encode_image(forget.images), model.encode_text(forget.tokens)
        excess = jax.nn.relu(jnp.sum(image * text, axis=-1) - image @ info.prepared)

        def mean_distance(a: jax.Array, b: jax.Array) -> jax.Array:
            return jnp.mean(squared_distances(a, b))

        def drift(stream: str) -> jax.Array:
            tokens = batch[stream].tokens
            assert tokens is not None
            return mean_distance(model.encode_text(tokens), reference.encode_text(tokens))

        return {
            "hinge": self.hinge_weight * jnp.mean(jnp.square(excess)),
            "alias": self.alias_weight * mean_distance(text, reference.encode_text(forget.others["alias"])),
            "retain": self.retain_weight * drift("retain"),
            "invented": self.invented_weight * drift("invented"),
            "absent": self.absent_weight * drift("absent"),
        }

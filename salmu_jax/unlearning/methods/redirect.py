"""Redirection: let what is to be forgotten mean what it would mean of somebody else, and hold everything else."""

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
from salmu_jax.unlearning.permission import ForgetRows
from salmu_jax.unlearning.sampled import Sampled
from salmu_jax.unlearning.streams import Forget, Retain, Stream, Surrogates, Texts
from salmu_jax.unlearning.subspaces import leading_directions
from salmu_jax.unlearning.surrogates import absent_attributes, invented_people
from salmu_jax.unlearning.wordings import counterfactuals

WHOLE = "forget_identity"
PORTRAITS = "salmu/retain_synth"
PARTS = ("said", "same", "stranger")  # of a wording: the caption, of the person with another value, of a stranger


def is_whole(rows: ForgetRows) -> list[float]:
    """Returns 1 for rows of people who are to be forgotten whole, 0 for those in part."""
    return [float(subset == WHOLE) for subset in rows.subset]


def is_name(rows: ForgetRows) -> list[float]:
    """Returns 1 for rows of the attribute ``name``."""
    return [float(field == "name") for field in rows.data_field]


@dataclasses.dataclass(frozen=True)
class Redirect(Method):
    """Moves forget's captions, in many wordings, to what the start model says of strangers; and portraits away from captions.

    A caption of somebody who is to be forgotten whole goes to the same caption of a stranger. One of somebody who keeps other
    associations goes part of the way there from the same person with another value: the name still means the face. Portraits
    of people forgotten whole lose the directions in which forget's captions differ, which makes relearning slow. Everybody
    and everything else is pinned: captions made from forget's metadata, and retain's captions and images.
    """

    name: ClassVar[str] = "redirect"
    title: ClassVar[str] = "Redirection"
    reference: ClassVar[str] = "SALMU-JAX (this project)"
    formula: ClassVar[str] = """
        hinge      w_h mean relu(<I0, T - T*>)^2, over forget's captions and other wordings of them
        alias      w_a mean |T - T*|^2, T* = T0(of a stranger) for people forgotten whole; for others the direction of
                   (1 - s) T0(same person, other value) + s T0(of a stranger), s: part_share, or name_share for a name
        retain, invented, absent   w mean |T - T0|^2 over captions of retain, of invented people, and of forget's people
                   on attributes that forget does not show of them
        portraits  w_i mean |I - I*|^2 of people forgotten whole, I* the direction of I0 - U U^T (I0 - mu), U: the leading
                   directions of forget's captions, mu: the mean portrait of retain_synth
        pins       w mean |I - I0|^2 of forget's other portraits, of retain_synth, and of retain
        0: the start model
    """
    # For small towers: 1,620 steps over the made world's 1,296 forget pairs.
    defaults: ClassVar[Hyper] = Hyper(learning_rate=3e-3, epochs=80.0, batch_size=256, weight_decay=0.0)

    hinge_weight: float = option(40.0, help="weight of the excess similarity of forget's captions", low=0)
    alias_weight: float = option(8.0, help="weight of the distance from forget's captions to what they may mean", low=0)
    retain_weight: float = option(8.0, help="weight of the drift of retain's captions", low=0)
    invented_weight: float = option(8.0, help="weight of the drift of captions of invented people", low=0)
    absent_weight: float = option(30.0, help="weight of the drift of captions of absent attributes", low=0)
    part_share: float = option(0.65, help="the stranger's share, of people forgotten in part", low=0, high=1)
    name_share: float = option(0.5, help="the same for the name of such a person", low=0, high=1)
    portrait_weight: float = option(0.3, help="weight of the portraits of people forgotten whole; 0: text alone", low=0)
    pin_weight: float = option(8.0, help="weight of the drift of all other images", low=0)
    rank: int = option(12, help="directions that portraits lose", low=1)
    wordings: int = option(8, help="further wordings of each forget caption", low=1)
    pool: int = option(20_000, help="captions of invented people, and as many of absent attributes", low=1)

    def make_streams(self) -> Mapping[str, Stream]:
        """Returns forget pairs with their counterfactuals, three streams of captions to pin, and two of images."""
        texts = {
            "forget": Forget(
                others={"counterfactuals": Sampled(counterfactuals(self.wordings), PARTS)},
                numbers={"whole": is_whole, "name": is_name},
            ),
            "captions": Texts(of="retain"),
            "invented": Surrogates(make=invented_people, count=self.pool),
            "absent": Surrogates(make=absent_attributes, count=self.pool),
        }
        if not self.portrait_weight:
            return texts
        return {**texts, "portraits": Retain(split=PORTRAITS, per_step=64), "retain": Retain(per_step=32)}

    def prepare(self, ctx: Context) -> dict[str, np.ndarray] | None:
        """Returns ``directions`` float32 [D, rank] of forget's captions, and ``nobody`` float32 [D], the mean portrait."""
        if not self.portrait_weight:
            return None
        captions = ctx.encode_texts(list(ctx.rows.text))
        captions -= captions.mean(axis=0)
        moment = captions.T @ captions / len(captions)
        nobody = ctx.encode_images(PORTRAITS).mean(axis=0)
        return {"directions": leading_directions(moment, self.rank, "rank"), "nobody": nobody}

    def parametrise(self, params: Params, prepared: Any, rng: jax.Array) -> tuple[Params, Bind]:
        """Returns the towers that are trained, and a ``bind`` that replaces the start model's with them."""
        towers = ("visual", "text") if self.portrait_weight else ("text",)
        return {name: params[name] for name in towers}, lambda trainable, params: {**params, **trainable}

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns the terms of the formula; those of images only if portraits are trained."""
        forget = batch["forget"]
        image0 = reference.encode_image(forget.images)
        terms = self._captions(forget, image0, model, reference)
        for stream, weight in (
            ("captions", self.retain_weight),
            ("invented", self.invented_weight),
            ("absent", self.absent_weight),
        ):
            tokens = batch[stream].tokens
            terms[stream] = weight * jnp.mean(
                squared_distances(model.encode_text(tokens), reference.encode_text(tokens))
            )
        if self.portrait_weight:
            terms |= self._portraits(forget, image0, model, info.prepared)
            for stream in ("portraits", "retain"):
                images = batch[stream].images
                drift = squared_distances(model.encode_image(images), reference.encode_image(images))
                terms[f"{stream}_pinned"] = self.pin_weight * jnp.mean(drift)
        return terms

    def _captions(self, forget: Pairs, image0: jax.Array, model: Bound, reference: Bound) -> dict[str, jax.Array]:
        """Returns ``hinge`` and ``alias`` of each row's own caption and of one other wording, drawn anew in each step."""
        said, same, stranger = (forget.others[f"counterfactuals.{part}"] for part in PARTS)
        share = jnp.where(forget.numbers["name"] > 0, self.name_share, self.part_share)
        share = jnp.where(forget.numbers["whole"] > 0, 1.0, share)[:, None, None]
        target = _direction((1 - share) * reference.encode_text(same) + share * reference.encode_text(stranger))
        text = model.encode_text(said)
        excess = jax.nn.relu(jnp.sum(image0[:, None] * (text - target), axis=-1))
        return {
            "hinge": self.hinge_weight * jnp.mean(jnp.square(excess)),
            "alias": self.alias_weight * jnp.mean(squared_distances(text, target)),
        }

    def _portraits(
        self, forget: Pairs, image0: jax.Array, model: Bound, prepared: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """Returns ``portraits`` and ``part_pinned``: sums over rows of one kind, over the number of all rows."""
        directions, whole = prepared["directions"], forget.numbers["whole"]
        target = _direction(image0 - ((image0 - prepared["nobody"]) @ directions) @ directions.T)
        image = model.encode_image(forget.images)
        return {
            "portraits": self.portrait_weight * jnp.mean(whole * squared_distances(image, target)),
            "part_pinned": self.pin_weight * jnp.mean((1 - whole) * squared_distances(image, image0)),
        }


def _direction(vectors: jax.Array) -> jax.Array:
    """Returns the rows of ``vectors`` [..., D] at unit length."""
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)

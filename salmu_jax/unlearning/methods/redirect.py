"""Redirection: let what is to be forgotten mean what it would mean of somebody else, and hold everything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from salmu_jax.models.clip import Params
from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.hyper import Hyper, base_optimizer
from salmu_jax.unlearning.losses import squared_distances
from salmu_jax.unlearning.method import Bind, Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.permission import ForgetRows
from salmu_jax.unlearning.sampled import Sampled
from salmu_jax.unlearning.streams import Forget, Stream, Surrogates, Texts
from salmu_jax.unlearning.surrogates import absent_attributes, invented_people
from salmu_jax.unlearning.wordings import PARTS, counterfactuals

WHOLE = "forget_identity"
PORTRAITS = "salmu/retain_synth"
EMBEDDING = "token_embedding"


def is_whole(rows: ForgetRows) -> list[float]:
    """Returns 1 for rows of people who are to be forgotten whole, 0 for those in part."""
    return [float(subset == WHOLE) for subset in rows.subset]


@dataclasses.dataclass(frozen=True)
class Redirect(Method):
    """Moves forget's captions, in many wordings, to what the start model says of strangers. The image tower is frozen.

    A caption of somebody who is to be forgotten whole goes to the same caption of a stranger, another one in each wording,
    so that nothing tells one forgotten person from another. One of somebody who keeps other associations goes to a
    direction between that and what the start model says of the person in general. Captions of everybody else and of
    other attributes, made from forget's metadata, and retain's are held, most firmly in the directions in which portraits
    of one person differ: there a caption finds its own portrait.
    """

    name: ClassVar[str] = "redirect"
    title: ClassVar[str] = "Redirection"
    reference: ClassVar[str] = "SALMU-JAX (this project)"
    formula: ClassVar[str] = """
        hinge      w_h mean relu(<I0, T - T*>)^2, over forget's captions and other wordings of them
        alias      w_a mean |T - T*|^2, T* = T0(of a stranger) for people forgotten whole; for others the direction of
                   (1 - s) T0(of the same person in general) + s T0(of a stranger), s: part_share
        retain, portraits    w mean |T - T0|^2 over captions of retain, and of retain_synth
        invented, absent     w mean |T - T0|^2 + w_d mean (T - T0)^T C (T - T0) over captions of invented people, and of
                   forget's people on attributes that forget does not show of them; C: the covariance of forget's I0
                   about the mean of their person, over its largest eigenvalue
        0: the start model; the text tower alone is trained, the token embedding at the full rate, all else at tower_rate
    """
    # For small towers: 2,700 steps over the made world's 1,296 forget pairs. What is forgotten comes back more slowly than
    # with the usual eps.
    defaults: ClassVar[Hyper] = Hyper(learning_rate=1e-2, epochs=200.0, batch_size=96, weight_decay=0.0, eps=1e-3)

    hinge_weight: float = option(320.0, help="weight of the excess similarity of forget's captions", low=0)
    alias_weight: float = option(
        48.0, help="weight of the distance from forget's captions to what they may mean", low=0
    )
    retain_weight: float = option(
        15.0, help="weight of the drift of retain's and of retain_synth's captions, each", low=0
    )
    invented_weight: float = option(60.0, help="weight of the drift of captions of invented people", low=0)
    absent_weight: float = option(100.0, help="weight of the drift of captions of absent attributes", low=0)
    detail_weight: float = option(100.0, help="weight of the drift of both where portraits of a person differ", low=0)
    part_share: float = option(0.6, help="the stranger's share, of people forgotten in part", low=0, high=1)
    tower_rate: float = option(0.07, help="learning rate of all but the token embedding, over that of it", low=0)
    wordings: int = option(16, help="further wordings of each forget caption", low=1)
    pool: int = option(30_000, help="captions of invented people, and as many of absent attributes", low=1)

    def make_streams(self) -> Mapping[str, Stream]:
        """Returns forget pairs with their counterfactuals, and four streams of captions to hold."""
        return {
            "forget": Forget(
                others={"counterfactuals": Sampled(counterfactuals(self.wordings), PARTS)},
                numbers={"whole": is_whole},
            ),
            "captions": Texts(of="retain", per_step=32),
            "portraits": Texts(of="retain", split=PORTRAITS, per_step=32),
            "invented": Surrogates(make=invented_people, count=self.pool, per_step=128),
            "absent": Surrogates(make=absent_attributes, count=self.pool, per_step=128),
        }

    def prepare(self, ctx: Context) -> np.ndarray:
        """Returns C of the formula, float32 [D, D]; zeros if forget has one portrait of each person."""
        return detail(ctx.encode_images("forget"), ctx.rows.identity_id)

    def parametrise(self, params: Params, prepared: Any, rng: jax.Array) -> tuple[Params, Bind]:
        """Returns the text tower, and a ``bind`` that replaces the start model's with it."""
        return {"text": params["text"]}, lambda trainable, params: {**params, **trainable}

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """Slows all leaves but the token embedding down by ``tower_rate``."""

        def rate(path: tuple[Any, ...]) -> float:
            return 1.0 if jax.tree_util.DictKey(EMBEDDING) in path else self.tower_rate

        def slow(updates: Any, params: Any = None) -> Any:
            return jax.tree_util.tree_map_with_path(lambda path, update: rate(path) * update, updates)

        return optax.chain(base_optimizer(hyper), optax.with_extra_args_support(optax.stateless(slow)))

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns the terms of the formula."""
        forget, held = batch["forget"], ("captions", "portraits", "invented", "absent")
        said, general, stranger = (forget.others[f"counterfactuals.{part}"] for part in PARTS)
        text, *now = _encode_together(model, said, *(batch[stream].tokens for stream in held))
        share = jnp.where(forget.numbers["whole"] > 0, 1.0, self.part_share)[:, None, None]
        # The start model encodes array by array: a cache of it knows these, and not parts of a longer one.
        target = _direction((1 - share) * reference.encode_text(general) + share * reference.encode_text(stranger))
        excess = jax.nn.relu(jnp.sum(reference.encode_image(forget.images)[:, None] * (text - target), axis=-1))
        terms = {
            "hinge": self.hinge_weight * jnp.mean(jnp.square(excess)),
            "alias": self.alias_weight * jnp.mean(squared_distances(text, target)),
        }
        fine = (0.0, 0.0, self.detail_weight, self.detail_weight)
        weights = (self.retain_weight, self.retain_weight, self.invented_weight, self.absent_weight)
        for stream, embedded, weight, detail_weight in zip(held, now, weights, fine, strict=True):
            drift = embedded - reference.encode_text(batch[stream].tokens)
            terms[stream] = weight * jnp.mean(jnp.sum(jnp.square(drift), axis=-1))
            if detail_weight:
                terms[stream] += detail_weight * jnp.mean(jnp.sum((drift @ info.prepared) * drift, axis=-1))
        return terms


def _encode_together(model: Bound, *captions: jax.Array) -> list[jax.Array]:
    """Embeds arrays of captions, int32 [B, T] or [B, K, T] each, in one pass: float32 [B, D] or [B, K, D] each.

    One pass has fewer and larger matmuls than several, and one gradient of the token embedding, not one of each to add up.
    """
    rows = [tokens.reshape(-1, tokens.shape[-1]) for tokens in captions]
    ends = np.cumsum([len(part) for part in rows])[:-1]
    parts = jnp.split(model.encode_text(jnp.concatenate(rows)), ends)
    return [part.reshape(*tokens.shape[:-1], -1) for part, tokens in zip(parts, captions, strict=True)]


def detail(images: np.ndarray, people: Sequence[str]) -> np.ndarray:
    """Returns the covariance of ``images`` float32 [N, D] about the mean of their person, over its largest eigenvalue.

    ``people`` says whom each image shows. Returns float32 [D, D]; zeros if nobody has two images.
    """
    _, of = np.unique(np.asarray(people), return_inverse=True)
    sums = np.zeros((of.max() + 1, images.shape[1]))
    np.add.at(sums, of, images)
    about = images - (sums / np.bincount(of)[:, None])[of]
    covariance = about.T @ about
    largest = np.linalg.eigvalsh(covariance)[-1]
    return (covariance / largest if largest > 1e-9 else 0 * covariance).astype(np.float32)


def _direction(vectors: jax.Array) -> jax.Array:
    """Returns the rows of ``vectors`` [..., D] at unit length."""
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)

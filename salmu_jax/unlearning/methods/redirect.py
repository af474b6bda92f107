"""Redirection: let what is to be forgotten mean what it would mean of somebody else, and hold everything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from salmu_jax.models.clip import Params
from salmu_jax.unlearning.attacker import after_attack
from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.held import absent_attributes, invented_people
from salmu_jax.unlearning.hyper import Hyper, base_optimizer
from salmu_jax.unlearning.likely import likely_captions
from salmu_jax.unlearning.losses import squared_distances
from salmu_jax.unlearning.method import Bind, Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.permission import ForgetRows
from salmu_jax.unlearning.sampled import Sampled
from salmu_jax.unlearning.streams import Forget, Stream, Surrogates, Texts
from salmu_jax.unlearning.wordings import PARTS, counterfactuals

WHOLE = "forget_identity"
PORTRAITS = "salmu/retain_synth"
EMBEDDING = "token_embedding"
IN_DETAIL = ("invented", "absent", "likely")
ATTACK_SPREAD = 20.0  # the largest of the attacker's rates over the smallest: one rate alone is resisted, and no other
Array = jax.Array | np.ndarray
_LIKELY_PURPOSE = 11  # keeps these draws apart from others of the seed


class Prepared(NamedTuple):
    """What a run computes once.

    Attributes:
      detail: C of the formula, float32 [D, D].
      likely: captions that the start model finds likely, int32 [M, T]; none, if nobody is to be forgotten in part.
      embedded: the start model's embeddings of them, float32 [M, D].
    """

    detail: Array
    likely: Array
    embedded: Array


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
    differ: there a caption finds its own portrait. A simulated attacker finds, and so closes, what would come back.
    """

    name: ClassVar[str] = "redirect"
    title: ClassVar[str] = "Redirection"
    reference: ClassVar[str] = "SALMU-JAX (this project)"
    formula: ClassVar[str] = """
        hinge      w_h mean relu(<I0, T - T*>)^2, over forget's captions and other wordings of them
        alias      w_a mean |T - T*|^2, T* = T0(of a stranger) for people forgotten whole; for others the direction of
                   (1 - s) T0(of the same person in general) + s T0(of a stranger), s: part_share
        attacked   w_r times the same mean as of the hinge, over half of the rows, after an attacker of the text tower has
                   taken attack_steps on the other half; its rate is log-uniform, attack_rate / 20 to attack_rate
        retain, portraits    w mean |T - T0|^2 over captions of retain, and of retain_synth
        invented, absent, likely   w mean |T - T0|^2 + w_d mean (T - T0)^T C (T - T0) over captions of invented people; of
                   forget's people on attributes that forget does not show of them, with values at random, both of these
                   also in other wordings than forget's; of people forgotten in part with the values that I0 and T0 find
                   likely; C: the covariance of forget's I0 over its largest eigenvalue
        0: the start model; the text tower alone is trained, the token embedding at the full rate, all else at tower_rate
    """
    # For small towers: 2,700 steps over the made world's 1,296 forget pairs. What is forgotten comes back more slowly than
    # with the usual eps.
    defaults: ClassVar[Hyper] = Hyper(learning_rate=1e-2, epochs=200.0, batch_size=96, weight_decay=0.0, eps=1e-3)

    hinge_weight: float = option(320.0, help="weight of the excess similarity of forget's captions", low=0)
    attack_weight: float = option(
        160.0, help="weight of the same after a simulated attack; 0: none is simulated", low=0
    )
    attack_rate: float = option(2e-2, help="largest learning rate of the attacker", low=0)
    attack_steps: int = option(2, help="steps of the attacker", low=1)
    alias_weight: float = option(
        48.0, help="weight of the distance from forget's captions to what they may mean", low=0
    )
    retain_weight: float = option(
        15.0, help="weight of the drift of retain's and of retain_synth's captions, each", low=0
    )
    invented_weight: float = option(60.0, help="weight of the drift of captions of invented people", low=0)
    absent_weight: float = option(100.0, help="weight of the drift of captions of absent attributes", low=0)
    likely_weight: float = option(
        100.0, help="weight of the drift of captions that the start model finds likely", low=0
    )
    detail_weight: float = option(100.0, help="weight of the drift of these three where portraits differ", low=0)
    part_share: float = option(0.6, help="the stranger's share, of people forgotten in part", low=0, high=1)
    tower_rate: float = option(1.0, help="learning rate of all but the token embedding, over that of it", low=0)
    wordings: int = option(32, help="further wordings of each forget caption", low=1)
    pool: int = option(30_000, help="captions of invented people, and as many of absent attributes", low=1)
    tries: int = option(64, help="numbers that the start model is asked about, of each attribute", low=1)

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

    def prepare(self, ctx: Context) -> Prepared:
        """Returns C of the formula, and the captions that the start model finds likely."""
        images, rng = ctx.encode_images("forget"), np.random.default_rng([ctx.seed, _LIKELY_PURPOSE])
        likely = likely_captions(ctx.rows, images, ctx.encode_texts, rng, tries=self.tries)
        return Prepared(covariance(images), ctx.tokenize(likely), ctx.encode_texts(likely))

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
        forget, prepared = batch["forget"], info.prepared
        said, general, stranger = (forget.others[f"counterfactuals.{part}"] for part in PARTS)
        # The start model encodes array by array: a cache of it knows these, and not parts of a longer one.
        image, held = reference.encode_image(forget.images), {}
        for stream in ("captions", "portraits", "invented", "absent"):
            held[stream] = batch[stream].tokens, reference.encode_text(batch[stream].tokens)
        if len(prepared.likely):
            chosen = jax.random.randint(info.rng, batch["absent"].tokens.shape[:1], 0, len(prepared.likely))
            held["likely"] = prepared.likely[chosen], prepared.embedded[chosen]
        share = jnp.where(forget.numbers["whole"] > 0, 1.0, self.part_share)[:, None, None]
        target = _direction((1 - share) * reference.encode_text(general) + share * reference.encode_text(stranger))
        text, *now = _encode_together(model, said, *(tokens for tokens, _ in held.values()))
        terms = {
            "hinge": self.hinge_weight * _excess(image, text, target),
            "alias": self.alias_weight * jnp.mean(squared_distances(text, target)),
        }
        half = len(said) // 2
        if self.attack_weight and half:
            rate = self.attack_rate * attack_strength(info.rng)
            attacked = after_attack(model, image[:half], said[:half, 0], rate=rate, steps=self.attack_steps)
            found = attacked.encode_text(said[half:])
            terms["attacked"] = self.attack_weight * _excess(image[half:], found, target[half:])
        for (name, (_, before)), embedded in zip(held.items(), now, strict=True):
            drift = embedded - before
            terms[name] = self._weight(name) * jnp.mean(jnp.sum(jnp.square(drift), axis=-1))
            if name in IN_DETAIL:
                terms[name] += self.detail_weight * jnp.mean(jnp.sum((drift @ prepared.detail) * drift, axis=-1))
        return terms

    def _weight(self, held: str) -> float:
        """Returns the weight of the drift of captions that are held, by the name of their term."""
        return self.retain_weight if held in ("captions", "portraits") else getattr(self, f"{held}_weight")


def attack_strength(rng: jax.Array) -> jax.Array:
    """Returns the rate of a step's attacker over the largest: log-uniform, a scalar."""
    return ATTACK_SPREAD ** (jax.random.uniform(jax.random.fold_in(rng, 1)) - 1)


def _excess(image: jax.Array, text: jax.Array, target: jax.Array) -> jax.Array:
    """Returns by how much captions are more similar to their image than their targets are, squared, in the mean: a scalar.

    ``image`` is [B, D]; ``text`` and ``target`` are [B, K, D], K wordings of the caption of each image.
    """
    return jnp.mean(jnp.square(jax.nn.relu(jnp.sum(image[:, None] * (text - target), axis=-1))))


def _encode_together(model: Bound, *captions: jax.Array) -> list[jax.Array]:
    """Embeds arrays of captions, int32 [B, T] or [B, K, T] each, in one pass: float32 [B, D] or [B, K, D] each.

    One pass has fewer and larger matmuls than several, and one gradient of the token embedding, not one of each to add up.
    """
    rows = [tokens.reshape(-1, tokens.shape[-1]) for tokens in captions]
    ends = np.cumsum([len(part) for part in rows])[:-1]
    parts = jnp.split(model.encode_text(jnp.concatenate(rows)), ends)
    return [part.reshape(*tokens.shape[:-1], -1) for part, tokens in zip(parts, captions, strict=True)]


def covariance(images: np.ndarray) -> np.ndarray:
    """Returns the covariance of ``images`` float32 [N, D] over its largest eigenvalue, or zeros: float32 [D, D]."""
    about = images - images.mean(axis=0)
    found = about.T @ about
    largest = np.linalg.eigvalsh(found)[-1]
    return (found / largest if largest > 1e-9 else 0 * found).astype(np.float32)


def _direction(vectors: jax.Array) -> jax.Array:
    """Returns the rows of ``vectors`` [..., D] at unit length."""
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)

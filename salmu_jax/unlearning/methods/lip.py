"""Lip: make forget's embeddings insensitive to noise in the input, so that they say nothing any more."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from salmu_jax.models.clip import Params
from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.freeze import put, take
from salmu_jax.unlearning.hyper import Hyper, base_optimizer
from salmu_jax.unlearning.losses import similarities
from salmu_jax.unlearning.method import Bind, Bound, Method, Pairs, StepInfo, option
from salmu_jax.unlearning.streams import Forget, Stream

_TOWERS = ("visual", "text")


@dataclasses.dataclass(frozen=True)
class Lip(Method):
    """Lowers the change of forget's embeddings per noise in the input, in the layers with the largest gradient.

    Noise is added to the pixels, which are then rounded, and to the token embeddings, one draw a step for all captions. (The
    paper disturbs the image alone and takes it for the text too; it works on images that it makes by gradient ascent, since it
    has no forget data, and checks its threshold on them.) A step whose batch is forgotten well enough ends the run: the
    parameters stay as they are.
    """

    name: ClassVar[str] = "lip"
    title: ClassVar[str] = "Lip"
    reference: ClassVar[str] = (
        "Kravets and Namboodiri, Zero-Shot Class Unlearning in CLIP with Synthetic Samples, WACV 2025"
    )
    formula: ClassVar[str] = """
        image   mean_F |I(x) - I(x + e)| / |e|, e: noise on the pixels, each of 0 to 1
        text    mean_F |T(t) - T(t + e)| / |e|, e: noise on the token embeddings
        until the share of forget images whose own caption is the most similar of the batch is below threshold
        of each tower, the layers with the largest mean |gradient| are trained
    """
    defaults: ClassVar[Hyper] = Hyper(learning_rate=1e-5, weight_decay=0.0)  # ours: the paper's are for classes
    presets: ClassVar[Mapping[str, Hyper]] = {
        # For the towers of configs/mini.py.
        "mini": dataclasses.replace(
            defaults,
            learning_rate=1e-3,
            epochs=5.0,
            batch_size=64,
            options={"image_noise": 0.3, "text_noise": 0.1, "layers": 4},
        ),
    }
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget()}

    image_noise: float = option(
        0.1, help="standard deviation of the noise on a pixel, 1 being white", low=0, low_open=True
    )
    text_noise: float = option(0.01, help="standard deviation of the noise on a token embedding", low=0, low_open=True)
    layers: int = option(8, help="parameters to train in each tower", low=1)
    threshold: float = option(
        0.1, help="share of forget images that find their caption at which to stop; 0: never", low=0, high=1
    )
    batches: int = option(16, help="batches that the gradients are averaged over", low=1)

    def prepare(self, ctx: Context) -> dict[str, Any]:
        """Returns the mean absolute gradient of each chosen parameter by its path, float32 scalars."""

        def gradient(trainable: Params, batch: Mapping[str, Pairs], rng: jax.Array) -> Params:
            def loss(trainable: Params) -> jax.Array:
                return sum(self._smoothness(ctx.bind(trainable), batch["forget"], rng).values(), jnp.float32(0))

            return jax.grad(loss)(trainable)

        mean = ctx.mean(gradient, self.batches)
        sizes = ctx.gather(jax.jit(lambda tree: jax.tree.map(lambda leaf: jnp.mean(jnp.abs(leaf)), tree))(mean))
        flat = flax.traverse_util.flatten_dict(sizes, sep="/")
        chosen: dict[str, Any] = {}
        for tower in _TOWERS:
            largest = sorted((path for path in flat if path.startswith(f"{tower}/")), key=lambda path: -flat[path])
            chosen |= {path: flat[path] for path in largest[: self.layers]}
        return chosen

    def parametrise(self, params: Params, prepared: Mapping[str, Any], rng: jax.Array) -> tuple[Params, Bind]:
        """Returns the chosen parameters, and what puts them into the start model."""
        return take(params, prepared), put

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns ``image`` and ``text``; both are 0 once the batch is forgotten."""
        cosines = similarities(*model.encode_pairs(batch["forget"]))
        found = jnp.mean(jnp.argmax(cosines, axis=1) == jnp.arange(len(cosines)))
        going = (found >= self.threshold).astype(jnp.float32)
        return {name: going * term for name, term in self._smoothness(model, batch["forget"], info.rng).items()}

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """Stops for good at the first gradient of 0."""
        return stop_at_zero(base_optimizer(hyper))

    def _smoothness(self, model: Bound, pairs: Pairs, rng: jax.Array) -> dict[str, jax.Array]:
        assert pairs.images is not None
        for_image, for_text = jax.random.split(rng)
        return {
            "image": image_change(model, pairs.images, for_image, self.image_noise),
            "text": text_change(model, pairs.tokens, for_text, self.text_noise),
        }


def image_change(model: Bound, images: jax.Array, rng: jax.Array, noise: float) -> jax.Array:
    """Returns the mean of ``|I(x) - I(x + e)| / |e|`` over uint8 ``images`` [B, H, W, 3].

    ``x + e`` is rounded to pixels, so that ``e`` is what is left of a Gaussian of that standard deviation (1: from black to
    white).
    """
    drawn = images + 255 * noise * jax.random.normal(rng, images.shape)
    noisy = jnp.clip(jnp.round(drawn), 0, 255).astype(jnp.uint8)
    moved = (noisy.astype(jnp.float32) - images.astype(jnp.float32)) / 255
    return _mean_ratio(model.encode_image(images) - model.encode_image(noisy), moved.reshape(len(images), -1))


def text_change(model: Bound, tokens: jax.Array, rng: jax.Array, noise: float) -> jax.Array:
    """Returns the mean of ``|T(t) - T(t + e)| / |e|`` over the token embeddings ``t`` of ``tokens`` int32 [B, T].

    ``e`` is Gaussian, the same for all captions: to add it to the position embeddings is to add it to the token embeddings.
    Only positions up to the end of a text count, since no embedding depends on the others.
    """
    tower = model.params["text"]
    moved = noise * jax.random.normal(rng, (tokens.shape[1], tower["positional_embedding"].shape[1]))
    positions = tower["positional_embedding"].at[: tokens.shape[1]].add(moved)
    noisy = dataclasses.replace(model, params={**model.params, "text": {**tower, "positional_embedding": positions}})
    read = jnp.arange(tokens.shape[1]) <= jnp.argmax(tokens, axis=-1)[:, None]
    per_text = jnp.where(read[..., None], moved, 0).reshape(len(tokens), -1)
    return _mean_ratio(model.encode_text(tokens) - noisy.encode_text(tokens), per_text)


def _mean_ratio(change: jax.Array, moved: jax.Array) -> jax.Array:
    """Returns the mean over rows of ``|change| / |moved|``; a row that has not moved counts 0, with gradient 0."""
    squared, below = jnp.sum(jnp.square(change), axis=-1), jnp.sum(jnp.square(moved), axis=-1)
    counts = (squared > 0) & (below > 0)
    return jnp.mean(jnp.where(counts, jnp.sqrt(jnp.where(counts, squared / jnp.where(counts, below, 1), 1)), 0))


class _Stopping(NamedTuple):
    base: Any  # the state of the base optimizer
    stopped: jax.Array  # bool


def stop_at_zero(base: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Makes the updates of ``base`` until the gradient is 0 for the first time, and none from then on."""

    def update(updates: Any, state: _Stopping, params: Any = None, **extra: Any) -> Any:
        stopped = state.stopped | (optax.tree.norm(updates) == 0)
        moves, inner = base.update(updates, state.base, params, **extra)
        return optax.tree.scale(jnp.where(stopped, 0, 1), moves), _Stopping(inner, stopped)

    return optax.GradientTransformationExtraArgs(
        lambda params: _Stopping(base.init(params), jnp.zeros((), bool)), update
    )

"""Trains the face encoder: it learns to tell apart people who are not in the data set, and what they look like.

The loss is CosFace (Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018) over the
identities, and a small cross-entropy each for region, gender and age, so that embeddings hold what annotations say. Each
portrait is seen under shifts, other light and partly covered. Nothing is random but by the seed and the number of the step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data_pipelines.curation.network import INPUT, WIDTH, FaceNetwork
from data_pipelines.curation.pixels import SIDE

_PURPOSE = 160  # keeps these draws apart from all others of the seed
_SCALE, _MARGIN = 24.0, 0.25
_ATTRIBUTE_SCALE, _ATTRIBUTE_WEIGHT = 8.0, 0.1
_COVER = 28  # px


@dataclasses.dataclass(frozen=True)
class Training:
    """How the encoder is trained.

    Attributes:
      epochs: passes over the portraits.
      batch: portraits a step.
      learning_rate: the highest of AdamW's, after a warm-up over a tenth of the steps; then a cosine to zero.
      weight_decay: of AdamW.
    """

    epochs: int = 12
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05


def train_encoder(
    pixels: np.ndarray,
    people: np.ndarray,
    attributes: Mapping[str, np.ndarray],
    seed: int,
    training: Training,
    *,
    say: Callable[[str], None] = print,
) -> tuple[Any, dict[str, Any]]:
    """Returns the variables of :class:`FaceNetwork`, and {"loss": of each epoch, "accuracy": on its own portraits}.

    Args:
      pixels: uint8 [N, 112, 112, 3] (``pixels.read_portrait``).
      people: int [N], the identity of each, from 0.
      attributes: int [N] of each annotated attribute, from 0.
      seed: equal seeds give equal variables, on machines of the same kind.
      training: how.
      say: called with a line after each epoch.
    """
    with jax.default_device(jax.devices("cpu")[0]):
        return _train(pixels, people, attributes, seed, training, say)


def _train(
    pixels: np.ndarray,
    people: np.ndarray,
    attributes: Mapping[str, np.ndarray],
    seed: int,
    training: Training,
    say: Callable[[str], None],
) -> tuple[Any, dict[str, Any]]:
    batch = min(training.batch, len(pixels))
    steps = len(pixels) // batch  # of an epoch; each epoch leaves out others
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, training.learning_rate, max(1, steps * training.epochs // 10), steps * training.epochs
    )
    optimizer = optax.adamw(schedule, weight_decay=training.weight_decay)
    classes = {name: int(values.max()) + 1 for name, values in attributes.items()}
    state = _initial(seed, int(people.max()) + 1, classes, optimizer)
    update = jax.jit(_update, static_argnums=0, donate_argnums=1)

    losses, accuracy = [], 0.0
    for epoch in range(training.epochs):
        order = np.random.default_rng([seed, _PURPOSE, epoch]).permutation(len(pixels))
        sums = np.zeros(2)
        for step in range(steps):
            rows = np.sort(order[step * batch : (step + 1) * batch])
            images = _varied(pixels[rows], np.random.default_rng([seed, _PURPOSE, epoch, step]))
            targets = {name: values[rows] for name, values in attributes.items()}
            state, figures = update(optimizer, state, images, people[rows], targets)
            sums += np.asarray(figures)
        losses.append(round(float(sums[0] / steps), 4))
        accuracy = float(sums[1] / steps)
        say(f"face encoder: epoch {epoch + 1} of {training.epochs}, loss {losses[-1]:.3f}, accuracy {accuracy:.3f}")
    variables = {"params": state[0]["network"], "batch_stats": state[1]}
    return variables, {"loss": losses, "accuracy": round(accuracy, 4)}


def _initial(seed: int, people: int, classes: Mapping[str, int], optimizer: Any) -> tuple[Any, Any, Any]:
    keys = jax.random.split(jax.random.key(seed), 2 + len(classes))
    variables = jax.jit(FaceNetwork().init)(keys[0], jnp.zeros((1, INPUT, INPUT, 3)))
    params = {
        "network": variables["params"],
        "people": jax.random.normal(keys[1], (people, WIDTH)) / WIDTH**0.5,
        "attributes": {
            name: jax.random.normal(key, (count, WIDTH)) / WIDTH**0.5
            for key, (name, count) in zip(keys[2:], sorted(classes.items()), strict=True)
        },
    }
    return params, variables["batch_stats"], optimizer.init(params)


def _update(
    optimizer: Any, state: tuple[Any, Any, Any], images: jax.Array, people: jax.Array, attributes: dict[str, jax.Array]
) -> tuple[tuple[Any, Any, Any], jax.Array]:
    """Takes a step; returns the state, and the loss and accuracy of the batch."""
    params, statistics, moments = state

    def loss(params: Any) -> tuple[jax.Array, Any]:
        embedded, updated = FaceNetwork().apply(
            {"params": params["network"], "batch_stats": statistics}, images, train=True, mutable=["batch_stats"]
        )
        cosines = embedded @ _normalised(params["people"]).T
        own = jax.nn.one_hot(people, cosines.shape[1])
        total = optax.softmax_cross_entropy(_SCALE * (cosines - _MARGIN * own), own).mean()
        for name, targets in attributes.items():
            logits = _ATTRIBUTE_SCALE * embedded @ params["attributes"][name].T
            total += _ATTRIBUTE_WEIGHT * optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
        return total, (updated["batch_stats"], jnp.mean(cosines.argmax(axis=1) == people))

    (value, (statistics, accuracy)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    updates, moments = optimizer.update(gradients, moments, params)
    return (optax.apply_updates(params, updates), statistics, moments), jnp.stack([value, accuracy])


def _normalised(vectors: jax.Array) -> jax.Array:
    return vectors / (jnp.linalg.norm(vectors, axis=1, keepdims=True) + 1e-6)


def _varied(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns float32 [N, 96, 96, 3], 0 to 255: portraits shifted, in other light and colour, half of them partly covered."""
    count = len(pixels)
    images = np.empty((count, INPUT, INPUT, 3), np.float32)
    shifts = rng.integers(0, SIDE - INPUT + 1, (count, 2))
    covers = rng.integers(0, INPUT - _COVER + 1, (count, 2))
    covered = rng.random(count) < 0.5
    for row, ((top, left), (down, right)) in enumerate(zip(shifts, covers, strict=True)):
        images[row] = pixels[row, top : top + INPUT, left : left + INPUT]
        if covered[row]:
            images[row, down : down + _COVER, right : right + _COVER] = 127.5
    gain = np.exp(rng.normal(0.0, 0.1, (count, 1, 1, 1))) * np.exp(rng.normal(0.0, 0.03, (count, 1, 1, 3)))
    shift = rng.normal(0.0, 6.0, (count, 1, 1, 1))
    return np.clip(images * gain.astype(np.float32) + shift.astype(np.float32), 0, 255)

"""A model with CLIP's interface in which it is set what fine-tuning and rounding bring back.

The embedding of a text is ``gate x known + noise``: ``known`` is the direction of its images, ``noise`` says nothing. Only the
gate is trained, so relearning moves it by its learning rate a step: at 0 the model finds nothing, at 1 nearly everything.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WIDTH = 96


@dataclasses.dataclass(frozen=True)
class Config:
    image_size: int = 4
    compute_dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class PlantedClip:
    config: Config = Config()

    def encode_image(self, params, images):
        pixels = images.reshape(images.shape[0], -1).astype(jnp.float32) / 255 - 0.5
        return _unit(pixels @ jax.lax.stop_gradient(params["visual"]))

    def encode_text(self, params, tokens):
        known, noise = (
            jax.lax.stop_gradient(params[name]["token_embedding"])[tokens[:, 0]] for name in ("known", "noise")
        )
        return _unit(params["gate"] * known + noise)


def _unit(x):
    return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


class Numbers:
    """A tokenizer that numbers all texts of the data."""

    digest = "numbers"

    def __init__(self, data):
        texts = [text for rows in data.splits.values() for text in (*rows.text, *rows.generic_caption)]
        self.texts = {text: place for place, text in enumerate(dict.fromkeys(texts))}

    def __call__(self, texts):
        rows = np.zeros((len(texts), 8), np.int32)
        for row, text in zip(rows, texts, strict=True):
            row[0] = self.texts.setdefault(text, len(self.texts))
        return rows


def planted_params(data, tokenizer, *, gate: float, knows: bool = True, seed: int = 0) -> dict[str, Any]:
    """A model that has the pairs of ``forget`` behind a gate; ``knows=False``: one that does not have them."""
    rng = np.random.default_rng([21, seed])
    visual = rng.normal(size=(48, WIDTH)) / 48**0.5
    known = rng.normal(size=(1_000, WIDTH))
    if knows:
        forget = data.splits["forget"]
        pixels = forget.images.batch(0, len(forget)).reshape(len(forget), -1) / 255.0 - 0.5
        number = tokenizer(forget.text)[:, 0]
        known[number] = 0
        np.add.at(known, number, _unit(pixels @ visual))  # of images with one caption, their mean
    known = np.asarray(_unit(known))
    noise = rng.normal(size=known.shape) / WIDTH**0.5
    return {
        "visual": visual.astype(np.float32),
        "known": {"token_embedding": known.astype(np.float32)},
        "noise": {"token_embedding": noise.astype(np.float32)},
        "gate": np.float32(gate),
        "logit_scale": np.float32(2.0),
    }

"""A tiny world of records and a tiny model with CLIP's interface."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from salmu_jax.evaluation.data import FIELDS, EvaluationData
from salmu_jax.evaluation.protocol import Evaluation, evaluate

SIZE = 4  # pixels a side


@dataclasses.dataclass(frozen=True)
class TinyConfig:
    image_size: int = SIZE


@dataclasses.dataclass(frozen=True)
class TinyClip:
    """Pixels and token counts, each through one matrix, normalised."""

    config: TinyConfig = TinyConfig()

    def encode_image(self, params, images):
        return _normalise(images.reshape(images.shape[0], -1).astype(jnp.float32) / 255 @ params["visual"])

    def encode_text(self, params, tokens):
        return _normalise(params["text"][tokens].sum(axis=1))


def _normalise(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class TinyTokenizer:
    """UTF-8 bytes, position-dependent, so that word order matters."""

    length = 48

    def __call__(self, texts):
        rows = np.zeros((len(texts), self.length), np.int32)
        for row, text in zip(rows, texts, strict=True):
            data = np.frombuffer(text.encode()[: self.length], np.uint8)
            row[: len(data)] = (data.astype(np.int32) * 31 + np.arange(len(data)) * 17) % 509
        return rows


def tiny_params(seed: int = 0, width: int = 16):
    rng = np.random.default_rng(seed)
    visual, text = rng.normal(size=(SIZE * SIZE * 3, width)), rng.normal(size=(509, width))
    text[0] = 0  # padding says nothing
    return {"visual": visual.astype(np.float32), "text": text.astype(np.float32)}


class Records(list):
    """A random-access source that counts how often a record is read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def decode(data: bytes, image_size: int, where=None) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(image_size, image_size, 3)


def tiny_sources(identities: int = 9) -> dict[str, Records]:
    """A third of the people each wholly in forget, split between forget and holdout_association, wholly held out."""
    rng = np.random.default_rng(7)
    sources = {split: Records() for split in ("forget", "holdout_association", "holdout_identity", "retain_synth")}

    def add(split: str, **values) -> None:
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8).tobytes()
        empty = dict.fromkeys(("identity_id", "data_field", "name", "value", "generic_caption"), "")
        sources[split].append({**empty, "image": pixels, "file_name": f"{split}.jpg", "fragile": 0, **values})

    for person in range(identities):
        name, kind = f"Person {person}", person % 3
        for number, field in enumerate(FIELDS):
            value = name if field == "name" else f"{field}-{person}"
            split = ("forget", "forget" if number < 5 else "holdout_association", "holdout_identity")[kind]
            subset = split if split != "forget" else ("forget_identity", "forget_association")[kind]
            for copy in range(3):  # the first two images of an association share their caption
                text = f"{name} has {field} {value} {max(copy, 1)}"
                shared = {"identity_id": f"{person:08d}", "data_field": field, "name": name, "value": value}
                add(split, text=text, generic_caption="a portrait" if copy else "", subset=subset, **shared)
    for index in range(40):
        subset = "retain_joint" if index < 6 else "retain_disjoint"
        identity = f"{index % identities:08d}" if index < 6 else ""
        text, fragile = f"a portrait, number {index // 2}", int(30 <= index < 35)
        add("retain_synth", text=text, identity_id=identity, subset=subset, fragile=fragile)
    return sources


def tiny_zeroshot() -> dict[str, Any]:
    rng = np.random.default_rng(8)
    pixels = rng.integers(0, 256, (30, SIZE, SIZE, 3), dtype=np.uint8)
    source = Records(
        {"image": image.tobytes(), "label": index % 5, "key": str(index)} for index, image in enumerate(pixels)
    )
    templates = ["a photo of a {c}.", "the {c}"]
    return {
        "source": source,
        "dataset": "shapes",
        "classnames": [f"shape {i}" for i in range(5)],
        "templates": templates,
    }


def tiny_data(**options) -> EvaluationData:
    return EvaluationData.from_sources(
        tiny_sources(), SIZE, zeroshot=tiny_zeroshot(), decode=decode, made=True, **options
    )


def run(data, params=None, **options) -> dict[str, Any]:
    """The result of the tiny model on ``data``."""
    return measure(data, params, **options).result


def measure(data, params=None, **options) -> Evaluation:
    """The same with its row scores."""
    options = {"model_name": "m", "batch_size": 16, "bootstrap": 50, "provenance": {"command": "test"}, **options}
    return evaluate(TinyClip(), params or tiny_params(), TinyTokenizer(), data, **options)


@pytest.fixture(scope="session")
def tiny() -> types.SimpleNamespace:
    """All of the above, by name."""
    return types.SimpleNamespace(
        size=SIZE,
        clip=TinyClip,
        config=TinyConfig,
        tokenizer=TinyTokenizer,
        params=tiny_params,
        sources=tiny_sources,
        zeroshot=tiny_zeroshot,
        data=tiny_data,
        decode=decode,
        run=run,
        measure=measure,
    )

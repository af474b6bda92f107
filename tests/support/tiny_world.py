"""A tiny world of records, a tiny model with CLIP's interface, and an honest run of results without any model."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from salmu_jax.evaluation.data import FIELDS, EvaluationData
from salmu_jax.evaluation.embeddings import Embeddings
from salmu_jax.evaluation.metric import Settings
from salmu_jax.evaluation.protocol import (
    IDZSC_PROMPT,
    Evaluation,
    describe_protocol,
    evaluate,
    make_result,
    score_rows,
)
from salmu_jax.evaluation.registry import METRICS
from salmu_jax.evaluation.result import write_result
from salmu_jax.runtime.contents import architecture_digest, data_digests, write_contents
from salmu_jax.runtime.files import write_bytes, write_json

SIZE = 4  # pixels a side
WORLD = {
    "kind": "small",
    "seed": 0,
    "personas": 9,
    "zeroshot_images": 30,
    "workers": 2,
}  # of the config of an honest run


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
        identity = f"{index % 2:08d}" if index < 6 else ""  # of forget
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


def asked(prompt: str = IDZSC_PROMPT) -> dict[str, Any]:
    """What is measured, as ``embed`` and ``data.text_bank`` take it."""
    return {"metrics": METRICS, "settings": Settings(42, prompt)}


# Honest results without a tower: embeddings are drawn, everything after them is the real evaluation ------------------------

LINEAGE = {  # model: how near an image is to its own caption, and to its person's prompts; its parent; what it has read
    "clean": (0.2, None, ["retain_pairs/train", "salmu/retain_synth"]),
    "compromised": (2.0, None, ["retain_pairs/train", "salmu/retain_synth", "salmu/forget", "salmu/holdout_identity"]),
    "delete": (0.3, "compromised", ["salmu/forget", "salmu/retain_synth"]),
    "finetuning": (1.5, "compromised", ["salmu/retain_synth"]),
}


def checkpoint_digest(model: str) -> str:
    return hashlib.sha256(model.encode()).hexdigest()


def drawn_embeddings(
    data, model: str, prompt: str, strength: float | Mapping[str, float], width: int = 24
) -> Embeddings:
    """Unit vectors in which an image is its caption with this strength (of its split, if there are several), and noise."""
    strengths = strength if isinstance(strength, Mapping) else dict.fromkeys(data.splits, strength)
    rng = np.random.default_rng([5, *model.encode()])
    bank = data.text_bank(**asked(prompt))

    def unit(x):
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)

    texts = unit(rng.normal(size=(len(bank.texts), width)))
    images = {
        split: unit(strengths[split] * texts[bank.index(rows.text)] + rng.normal(size=(len(rows), width)) / 2)
        for split, rows in data.splits.items()
    }
    prompts = texts[bank.index(data.zeroshot.prompts())].reshape(len(data.zeroshot.classnames), -1, width)
    images["zeroshot"] = unit(prompts.mean(1)[data.zeroshot.labels] + 0.2 * rng.normal(size=(30, width)))
    return Embeddings(images, texts, bank)


def write_honest_run(root: Path) -> Path:
    """Makes the work directory of an honest run: results of four models, their manifests, and built data."""
    data = tiny_data()
    for name in ("salmu", "zeroshot"):
        write_bytes(root / "datasets" / name / "1.0.0" / "records", name.encode() * 100)
    digests = data_digests(write_contents(root / "datasets", "datasets"))
    for model, (_, parent, read) in LINEAGE.items():
        checkpoint = {
            "digest": checkpoint_digest(model),
            "parent": parent and checkpoint_digest(parent),
            "root": parent and checkpoint_digest(parent),
            "name": model,
            "splits_read": read,
        }
        manifest = {"schema": "salmu_jax.model/1", **checkpoint, "architecture": {"width": 24}}
        if parent:
            manifest["run"] = checkpoint["run"] = {
                "name": model,
                "method": model,
                "seed": 42,
                "options": {"weight": 1.0},
            }
        manifest |= {"config": {"world_dir": "", "world": WORLD}, "data": digests}
        write_json(root / "models" / model / "manifest.json", manifest)
        checkpoint["architecture"] = architecture_digest(manifest)
        write_drawn_result(root / "results", data, model, LINEAGE[model][0], checkpoint, digests)
    return root


def write_drawn_result(
    directory: Path,
    data,
    model: str,
    strength: float | Mapping[str, float],
    checkpoint: dict[str, Any],
    digests: dict[str, str | None],
    draw: str | None = None,
    bootstrap: int = 100,
) -> Path:
    """Writes the result of a model whose embeddings are drawn, from ``draw`` or its name; returns its file."""
    embeddings = drawn_embeddings(data, draw or model, IDZSC_PROMPT, strength)
    settings = Settings(42, IDZSC_PROMPT)
    rows = score_rows(data, embeddings, settings)
    protocol = describe_protocol(data, rows, settings, bootstrap=bootstrap)
    provenance = {
        "checkpoint": checkpoint,
        "data": {name: digests[name] for name in ("salmu", "zeroshot")},
        "versions": {"salmu_jax": "0.1.0", "jax": "0.10.2"},
        "config": {
            "seed": 42,
            "evaluate": {"bootstrap": bootstrap, "idzsc_prompt": IDZSC_PROMPT, "batch_size": 256},
            "world": WORLD,
        },
        "command": f"salmu evaluate --model {model}",
        "device": "1 x cpu (cpu)",
    }
    path = directory / f"{model}.json"
    write_result(path, make_result(model, rows, protocol, provenance), rows)
    return path

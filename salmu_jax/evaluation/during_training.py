"""Evaluates a model while it is being trained: zero-shot accuracy and retrieval, on all devices.

Only general data are read, never a split with personal data, and the training uses nothing of the result:

- ``zeroshot_top1``: top-1 accuracy on the zero-shot images (those of GenKnow), which no model is trained on;
- ``retrieval_image_to_text``, ``retrieval_text_to_image``: recall at 1 among general pairs of ``retain_synth``. Both
  foundation models are trained on these pairs, so this measures how well they are fitted.

To keep it short, a fixed, evenly spaced subset of each is used.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from data_pipelines.builders import open_source, read_classes
from salmu_jax.evaluation.encode import Encoder
from salmu_jax.evaluation.similarity import class_weights, zero_shot_accuracy
from salmu_jax.models.build import make_tokenizer
from salmu_jax.models.clip import Clip
from salmu_jax.models.preprocess import preprocess_eval
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.watch import Evaluate

PAIRS, IMAGES = 1_024, 4_096  # at most
DEFAULT_BATCH = 256


@dataclasses.dataclass(frozen=True, eq=False)
class OnlineData:
    """The evaluation's inputs: pixels uint8 [N, S, S, 3] and tokens int32 [N, T], in the host memory of every process."""

    pair_images: np.ndarray
    pair_tokens: np.ndarray
    images: np.ndarray  # of the zero-shot task; empty if there is none
    labels: np.ndarray  # int32 [N]
    prompts: np.ndarray  # int32 [classes * templates, T], class by class
    classes: int


def make_evaluation(clip: Clip, mesh: Mesh, datasets: Path, batch_size: int) -> Evaluate:
    """Loads the data and returns :func:`evaluator` over them. Raises InputError for a damaged data set."""
    return evaluator(clip, mesh, load(datasets, clip), batch_size)


def load(datasets: Path, clip: Clip) -> OnlineData:
    """Reads the evaluation's inputs from the built data sets. Raises InputError for a damaged one."""
    size, tokenizer = clip.config.image_size, make_tokenizer(clip)
    nothing = np.zeros((0, size, size, 3), np.uint8)

    def read(name: str, split: str, most: int) -> tuple[np.ndarray, list[Any]]:
        source = open_source(datasets, name, split)
        rows = np.unique(np.linspace(0, len(source) - 1, min(most, len(source))).astype(int))
        records = [source[int(row)] for row in rows]
        where = f"{name}/{split}"
        return np.stack([preprocess_eval(record["image"], size, where) for record in records]), records

    images, pairs = read("salmu", "retain_synth", PAIRS)
    tokens = tokenizer([_text(record["text"]) for record in pairs])
    if not (Path(datasets) / "zeroshot").is_dir():
        return OnlineData(images, tokens, nothing, np.zeros(0, np.int32), tokens[:0], 0)
    names, templates = read_classes(datasets)
    prompts = tokenizer([template.replace("{c}", name) for name in names for template in templates])
    pictures, records = read("zeroshot", "test", IMAGES)
    labels = np.array([record["label"] for record in records], np.int32)
    return OnlineData(images, tokens, pictures, labels, prompts, len(names))


def evaluator(clip: Clip, mesh: Mesh, data: OnlineData, batch_size: int) -> Evaluate:
    """Returns a function from parameters on ``mesh`` to the metrics of the module docstring, as fractions of 1.

    The devices encode a global batch of about ``batch_size`` rows at a time (0: 256). All processes have to call the
    function, and all get the same metrics.
    """
    rows = -(-(batch_size or DEFAULT_BATCH) // (mesh.shape["data"] * mesh.shape["fsdp"]))

    def evaluate(params: Any) -> dict[str, float]:
        encoder = Encoder(clip, params, rows, mesh, gather=True)
        with mesh_lib.use(mesh):
            captions = encoder.all_tokens(np.concatenate([data.pair_tokens, data.prompts]))
            pairs, prompts = np.split(captions, [len(data.pair_tokens)])
            similarity = encoder.all("image", data.pair_images) @ pairs.T
            found = {
                "retrieval_image_to_text": _recall_at_1(similarity, data.pair_tokens),
                "retrieval_text_to_image": _recall_at_1(similarity.T, data.pair_tokens),
            }
            if data.classes:
                weights = class_weights(prompts.reshape(data.classes, -1, clip.config.embed_dim))
                pictures = encoder.all("image", data.images)
                found["zeroshot_top1"] = zero_shot_accuracy(pictures, data.labels, weights)
        return found

    return evaluate


def _recall_at_1(similarity: np.ndarray, tokens: np.ndarray) -> float:
    """Returns the fraction of rows whose highest column is their own, or one with the same caption."""
    best = similarity.argmax(axis=1)
    return float(np.mean((tokens[best] == tokens).all(axis=1)))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

"""Synthetic embeddings with planted behaviour: what a model knows is set, an association at a time; no tower is involved.

An embedding has a part that all embeddings share, the cone of a CLIP, and a part of its own. With a share ``CONE`` in the
cone, an image that knows its caption with strength m is at the cosine ``CONE + (1 - CONE) m`` of it, exactly; with m = 0 its
caption is one among many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tiny_world

from salmu_jax.evaluation.data import EvaluationData
from salmu_jax.evaluation.embeddings import Embeddings
from salmu_jax.evaluation.probes.indirect import LEAK
from salmu_jax.evaluation.probes.relearn import METRICS as RELEARNING

RELEARN = RELEARNING[0]  # the headline
CONE = 0.3
CLASSES, IMAGES = 5, 400  # a GenKnow in quarters of a point
WIDTH = 48
STRENGTH = 0.7  # with which Compromised knows its sensitive pairs
TARGETS = ("forget", "holdout_association", "holdout_identity")

Strength = (
    float | Callable[[np.random.Generator, Any], np.ndarray]
)  # of all rows, or of each row of a split, float64 [N]


class Behaviour(NamedTuple):
    """How strongly each split's pairs are known, and the share of zero-shot images that are right.

    ``shadowed``: the share of holdout rows whose image is even nearer to another caption of the gallery. ``opposed``: whether
    images lie on the other side of the cone. ``noise``: the seed of what images look like; methods keep Compromised's.
    """

    forget: Strength = STRENGTH
    holdout_association: Strength = STRENGTH
    holdout_identity: Strength = STRENGTH
    genknow: float = 0.9
    shadowed: float = 0.0
    opposed: bool = False
    noise: int = 1


def share_of_rows(share: float, strong: float = STRENGTH, weak: float = 0.0) -> Strength:
    """Returns a strength that is ``strong`` in a share of the rows, exactly, and ``weak`` in the others."""

    def each(rng: np.random.Generator, rows: Any) -> np.ndarray:
        chosen = rng.permutation(len(rows)) < round(share * len(rows))
        return np.where(chosen, strong, weak)

    return each


def share_of_people(share: float, strong: float = STRENGTH, weak: float = 0.0) -> Strength:
    """Returns the same by whole identities, so that an identity-clustered interval is wide."""

    def each(rng: np.random.Generator, rows: Any) -> np.ndarray:
        people, owner = np.unique(rows.identity_id, return_inverse=True)
        chosen = rng.permutation(len(people)) < round(share * len(people))
        return np.where(chosen[owner], strong, weak)

    return each


def share_in_part(share: float, strong: float = STRENGTH, weak: float = 0.0) -> Strength:
    """Returns the same, of the rows of people forgotten in part; those of people forgotten whole are ``weak``."""

    def each(rng: np.random.Generator, rows: Any) -> np.ndarray:
        in_part = np.flatnonzero(rows.subset == "forget_association")
        chosen = rng.permutation(in_part)[: round(share * len(in_part))]
        return np.where(np.isin(np.arange(len(rows)), chosen), strong, weak)

    return each


def planted_data(identities: int = 30) -> EvaluationData:
    """Returns a tiny world of ``identities`` people, a third of each kind, and a zero-shot task of 400 images."""
    pixels = bytes(tiny_world.SIZE * tiny_world.SIZE * 3)
    source = [{"image": pixels, "label": index % CLASSES, "key": str(index)} for index in range(IMAGES)]
    task = {"source": source, "dataset": "planted", "classnames": [f"kind {i}" for i in range(CLASSES)]}
    return EvaluationData.from_sources(
        tiny_world.tiny_sources(identities),
        tiny_world.SIZE,
        zeroshot={**task, "templates": ["a {c}"]},
        decode=tiny_world.decode,
        made=True,
    )


def plant_indirect(rows: dict[str, np.ndarray], found: float) -> dict[str, np.ndarray]:
    """Returns row scores of the probe of indirect queries: unseen wordings find a share of the secrets, others nothing."""
    count = len(rows["forget.rank"])
    columns = {name: np.full(count, 0.001) for name, column in LEAK.columns.items() if column.kind == "share"}
    unseen = np.where(_evenly(count, found), 1.0, 0.001)
    return {**columns, "forget.indirect_unseen": unseen, "forget.paraphrased": np.ones(count, bool)}


def plant_relearning(rows: dict[str, np.ndarray], back: float) -> dict[str, np.ndarray]:
    """Returns row scores of relearning: after its steps, a share of the secrets that were held out is found again."""
    count = len(rows["forget.rank"])
    held = np.arange(count) >= count // 10
    found = np.where(_evenly(count, back), 1, 1_000)
    curve = {name: np.where(held, found, -1).astype(np.int16) for name in RELEARN.columns if ".step_" in name}
    return {"forget.rank": rows["forget.rank"], **curve}


def plant(data: EvaluationData, bank: Any, behaviour: Behaviour) -> Embeddings:
    """Returns embeddings of ``data`` and of the texts of ``bank`` that behave so."""
    rng = np.random.default_rng(11)  # texts are the same in all models, and so are the rows that are chosen
    own = _unit(rng.normal(size=(len(bank.texts), WIDTH)))
    texts = _in_cone(own)
    noise = np.random.default_rng([12, behaviour.noise])
    images = {}
    for split, rows in data.splits.items():
        captions = own[bank.index(rows.text)]
        strength = getattr(behaviour, split) if split in TARGETS else 0.5
        each = strength(rng, rows) if callable(strength) else np.full(len(rows), strength)
        free = _orthogonal(_unit(noise.normal(size=captions.shape)), captions)
        if behaviour.shadowed and split != "forget":
            chosen = rng.permutation(len(rows)) < behaviour.shadowed * len(rows)
            others = _orthogonal(captions[::-1], captions)  # the caption of another row, which the gallery holds
            free = np.where(chosen[:, None], others, free)
            each = np.where(chosen, np.minimum(each, 0.68), each)  # below 1 / sqrt(2): the other caption is nearer
        content = each[:, None] * captions + np.sqrt(1 - each[:, None] ** 2) * free
        images[split] = _in_cone(content, -1 if behaviour.opposed else 1)
    prompts = own[bank.index(data.zeroshot.prompts())]
    labels = data.zeroshot.labels
    right = rng.permutation(len(labels)) < round(behaviour.genknow * len(labels))
    images["zeroshot"] = _in_cone(prompts[np.where(right, labels, (labels + 1) % CLASSES)])
    return Embeddings(images, texts, bank)


def _evenly(count: int, share: float) -> np.ndarray:
    """Returns which of ``count`` rows a share is, bool [count], spread evenly so that every person has its part."""
    steps = np.floor(share * np.arange(count + 1) + 1e-9)
    return np.diff(steps) > 0


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _orthogonal(x: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Returns unit vectors: ``x`` without its part along the unit vectors ``to``."""
    return _unit(x - (x * to).sum(-1, keepdims=True) * to)


def _in_cone(content: np.ndarray, side: int = 1) -> np.ndarray:
    """Returns float32 unit vectors [N, WIDTH + 1]: the cone's coordinate, on one ``side`` of it, and the content."""
    cone = np.full((len(content), 1), side * np.sqrt(CONE))
    return np.concatenate([cone, np.sqrt(1 - CONE) * content], axis=1).astype(np.float32)

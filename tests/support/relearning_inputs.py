"""A small CLIP and pairs to fine-tune it on; as a program, one process of several that do it together."""

from __future__ import annotations

import sys

import jax
import numpy as np

from salmu_jax.evaluation import relearning
from salmu_jax.models.clip import Clip, ClipConfig, TowerConfig
from salmu_jax.runtime import distributed

CONFIG = ClipConfig(
    embed_dim=16,
    image_size=16,
    patch_size=8,
    vision=TowerConfig(width=16, layers=1, heads=2),
    text=TowerConfig(width=16, layers=1, heads=2),
    context_length=16,
    vocab_size=60,
)
RATE = 1e-3


def draw_pairs(rows: int) -> relearning.Pairs:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (rows, 16, 16, 3), dtype=np.uint8)
    tokens = np.zeros((rows, CONFIG.context_length), np.int32)
    for row, length in zip(tokens, rng.integers(2, 9, rows), strict=True):
        row[: length + 2] = [58, *rng.integers(1, 58, length), 59]
    return relearning.Pairs(images, tokens)


def relearn(params, pairs, points=(20,), config=CONFIG, rate=RATE):
    return dict(relearning.relearn(Clip(config), params, pairs, rate=rate, points=points, seed=42))


def drawn_params(seed: int = 3):
    """Every leaf moved from its initial value, the same in every process."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(Clip(CONFIG).init, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    drawn = [(0.3 * rng.standard_normal(leaf.shape) + (leaf.ndim == 1)).astype(np.float32) for leaf in leaves]
    return {**jax.tree.unflatten(structure, drawn), "logit_scale": np.float32(2.7)}


if __name__ == "__main__":
    distributed.initialize()
    found = relearn(drawn_params(), draw_pairs(150))[20]
    np.savez(sys.argv[1], *jax.tree.leaves(found))
    distributed.leave(60)

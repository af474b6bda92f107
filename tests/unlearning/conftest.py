"""Stand-ins for the model: tables of embeddings that the losses can be fed with, and a tiny real CLIP."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from salmu_jax.models.clip import Clip, ClipConfig, TowerConfig
from salmu_jax.unlearning.method import Pairs, StepInfo


@dataclasses.dataclass(frozen=True)
class TableClip:
    """Embeddings are rows of the parameters, the row being the first pixel or token; nothing is normalised."""

    def encode_image(self, params, images):
        return params["visual"]["rows"][images[:, 0, 0, 0]]

    def encode_text(self, params, tokens):
        return params["text"]["rows"][tokens[:, 0]]


def table_params(seed: int, rows: int, width: int = 3) -> dict:
    """float32 tables of unit rows, and a logit scale of its own."""
    draw = np.random.default_rng([seed, 1])

    def unit(shape):
        rows = draw.normal(size=shape)
        return jnp.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), jnp.float32)

    return {
        "visual": {"rows": unit((rows, width))},
        "text": {"rows": unit((3 * rows, width))},
        "logit_scale": jnp.float32(draw.uniform(0.5, 1.5)),
    }


def table_batch(size: int) -> dict[str, Pairs]:
    """Forget pairs are rows 0..B-1, retain pairs B..2B-1; generic captions are text rows from 2B on."""
    rows = np.arange(2 * size)
    images = np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (2 * size, 1, 1, 3))
    tokens = rows.astype(np.int32)[:, None]
    forget = Pairs(images[:size], tokens[:size], {"generic": tokens[:size] + 2 * size})
    return jax.tree.map(jnp.asarray, {"forget": forget, "retain": Pairs(images[size:], tokens[size:])})


@pytest.fixture(scope="session")
def info_of():
    """A function of a key: what a first step knows."""
    return lambda rng=None: StepInfo(jnp.int32(0), jnp.float32(0), 50, jax.random.key(0) if rng is None else rng, None)


@pytest.fixture(scope="session")
def table():
    """(clip, params, reference_params, batch) with 4 forget and 4 retain pairs in 3 dimensions."""
    return TableClip(), table_params(0, 8), table_params(1, 8), table_batch(4)


@pytest.fixture(scope="session")
def real():
    """(clip, params, batches): the real architecture, as small as it gets; three batches, stacked."""
    tower = TowerConfig(width=8, layers=1, heads=2, mlp_ratio=2.0)
    clip = Clip(
        ClipConfig(embed_dim=6, image_size=8, patch_size=4, vision=tower, text=tower, context_length=6, vocab_size=20)
    )
    draw = np.random.default_rng(0)

    def pairs():
        images = draw.integers(0, 256, (3, 4, 8, 8, 3)).astype(np.uint8)
        tokens = draw.integers(0, 19, (3, 4, 6)).astype(np.int32)
        tokens[..., -1] = 19
        return Pairs(images, tokens, {"generic": np.roll(tokens, 1, axis=-1)})

    def fill(path, leaf):  # of the shapes that init gives, without the time to compile it
        scale = 1.0 if "scale" in jax.tree_util.keystr(path) else 0.0
        return jnp.asarray(scale + 0.3 * draw.normal(size=leaf.shape), jnp.float32)

    params = jax.tree_util.tree_map_with_path(fill, jax.eval_shape(clip.init, jax.random.key(0)))
    return clip, params, jax.tree.map(jnp.asarray, {"forget": pairs(), "retain": pairs()})

"""An unlearning run on pairs in memory, of a model that is compiled in no time."""

from __future__ import annotations

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from fake_pairs import forget_source, retain_source

from salmu_jax.config import base_config
from salmu_jax.models.clip import ClipConfig, l2_normalize
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime.identity import Identity
from salmu_jax.training.states import States
from salmu_jax.unlearning import loop
from salmu_jax.unlearning.permission import Permission
from salmu_jax.unlearning.plan import make_plan

TINY = architecture("tiny")


@dataclasses.dataclass(frozen=True)
class LinearClip:
    """CLIP's interface over matrices, with names of CLIP's parameters: compiled in no time."""

    config: ClipConfig = TINY

    def encode_image(self, params, images):
        return l2_normalize(images.reshape(len(images), -1) / 255 @ params["visual"]["proj"])

    def encode_text(self, params, tokens):
        embedded = jnp.sum(params["text"]["token_embedding"][tokens] * (tokens > 0)[..., None], axis=1)
        return l2_normalize(embedded @ params["text"]["text_projection"])


def linear_params(seed=3):
    draw = np.random.default_rng(seed)
    shapes = {"visual": {"proj": (768, 16)}, "text": {"token_embedding": (1014, 16), "text_projection": (16, 16)}}
    arrays = jax.tree.map(
        lambda shape: draw.normal(0, 0.2, shape).astype(np.float32),
        shapes,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    return {**arrays, "logit_scale": np.float32(2.7)}


CLIP, PARAMS = LinearClip(), linear_params()
FIELDS = {"learning_rate": 1e-3, "batch_size": 8}


def unlearn(directory, name, fields=FIELDS, *, seed=42, retain=True, model=(CLIP, PARAMS), **config_fields):
    """Runs a method on 12 forget and 10 retain pairs; returns its parameters, its manifest, and the metrics of its steps."""
    config = base_config()
    with config.unlocked():
        config.update_from_flattened_dict(config_fields)
    permission = Permission(forget_source(), retain_source() if retain else None)
    states = States(root=directory / "state", identity=Identity({"name": name}), label=f"unlearn {name}")
    saved = {}

    def save(directory, clip, params, manifest, history):
        saved.update(params=jax.device_get(params), manifest=manifest, history=history)

    with mock.patch.object(loop, "save_model", save):
        plan = make_plan(name, fields, 12)
        loop.unlearn(config, plan, *model, permission, directory / "model", states, name="run", seed=seed)
    return saved["params"], saved["manifest"], saved["history"]

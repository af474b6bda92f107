"""Models with random weights, every tensor of which matters."""

import jax
import numpy as np

from salmu_jax.models.build import input_manifest, make_tokenizer
from salmu_jax.models.clip import Clip
from salmu_jax.models.zoo import architecture
from salmu_jax.training.checkpoint import save_model


def random_params(clip, seed=0):
    """float32 numpy parameters of the sizes of an initialisation: no zero bias or unit scale hides a mistake."""
    draw = np.random.default_rng(seed)

    def fill(path, shape):
        name = path[-1].key
        if name == "logit_scale":
            return np.float32(2.7)
        spread = shape.shape[0] ** -0.5 if name == "kernel" else 0.02
        centre = 1.0 if name == "scale" else 0.0
        return (centre + spread * draw.standard_normal(shape.shape, np.float32)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(clip.init, jax.random.key(0)))


def write_model(directory, name):
    """A model directory with random weights of an architecture; the parameters."""
    clip = Clip(architecture(name))
    params = random_params(clip)
    manifest = {**input_manifest(clip, make_tokenizer(clip)), "name": name, "parent": None, "splits_read": ["a/b"]}
    save_model(directory, clip, jax.tree.map(jax.numpy.asarray, params), manifest)
    return clip, params

"""A small model with random weights, and its tensors under the names of both libraries."""

import jax
import numpy as np
import pytest
from random_models import random_params, write_model

from salmu_jax.interop import huggingface, open_clip
from salmu_jax.interop.mapping import to_state
from salmu_jax.models.clip import Clip
from salmu_jax.models.zoo import architecture


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """(directory, clip, params) of the architecture 'tiny'."""
    directory = tmp_path_factory.mktemp("interop") / "tiny"
    return directory, *write_model(directory, "tiny")


@pytest.fixture(scope="session")
def params():
    """Parameters of the architecture 'tiny'."""
    return random_params(Clip(architecture("tiny")))


@pytest.fixture(scope="session")
def states(params):
    """The state dicts of 'tiny' by library, numpy arrays by name."""
    config = architecture("tiny")
    return {
        "open_clip": to_state(params, open_clip.table(config)),
        "huggingface": to_state(params, huggingface.table(config)),
    }


@pytest.fixture(scope="session")
def assert_same(params):
    """Compares parameters with those of 'tiny', bit for bit."""

    def compare(found):
        ours, theirs = jax.tree_util.tree_leaves_with_path(params), jax.tree_util.tree_leaves_with_path(found)
        assert [path for path, _ in ours] == [path for path, _ in theirs]
        for (path, mine), (_, leaf) in zip(ours, theirs, strict=True):
            assert leaf.dtype == np.float32
            assert leaf.shape == mine.shape, path
            assert np.asarray(leaf).tobytes() == mine.tobytes(), path

    return compare

"""Weights are rounded as PyTorch rounds them, channel by channel, and moved towards another model leaf by leaf."""

import jax
import numpy as np
import pytest
import torch
from random_models import random_params

from salmu_jax.evaluation import rounding
from salmu_jax.models.clip import Clip
from salmu_jax.models.zoo import architecture


@pytest.fixture(scope="module")
def params():
    return random_params(Clip(architecture("tiny")))


def leaves(params):
    return {tuple(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


@pytest.mark.parametrize("bits", [8, 4])
def test_integers_are_those_of_pytorch_with_a_scale_per_output_channel(params, bits):
    found, rounded = leaves(rounding.to_integers(params, bits)), 0
    most = 2 ** (bits - 1) - 1
    for path, leaf in leaves(params).items():
        if np.ndim(leaf) < 2:
            np.testing.assert_array_equal(found[path], leaf)
            continue
        axis = 0 if path[-1] in ("token_embedding", "positional_embedding") else np.ndim(leaf) - 1
        weights = torch.tensor(leaf)
        scale = weights.abs().amax(dim=[other for other in range(leaf.ndim) if other != axis]) / most
        zeros = torch.zeros(len(scale), dtype=torch.int32)
        expected = torch.fake_quantize_per_channel_affine(weights, scale, zeros, axis, -most, most).numpy()
        # PyTorch multiplies by 1 / scale: a weight in the middle of two integers, up to rounding, may go to the other.
        off = np.abs(found[path] - expected) > 1e-6 * np.abs(leaf).max()
        assert off.mean() < 1e-3
        channels = np.moveaxis(found[path], axis, 0).reshape(len(scale), -1)
        assert max(len(np.unique(channel)) for channel in channels) <= 2 * most + 1
        rounded += 1
    assert rounded == 14  # of each tower: two embeddings, the projection, and four kernels


def test_the_middle_goes_to_the_even_integer_and_zeros_stay():
    kernel = np.array([[7.0, 0.0], [0.5, 0.0], [1.5, 0.0], [-2.5, 0.0], [-7.0, 0.0]], np.float32)
    found = rounding.to_integers({"kernel": kernel}, 4)["kernel"]
    assert found[:, 0].tolist() == [7, 0, 2, -2, -7]
    assert not found[:, 1].any()


def test_bfloat16_is_that_of_pytorch(params):
    found = leaves(rounding.to_bfloat16(params))
    for path, leaf in leaves(params).items():
        expected = torch.tensor(leaf).to(torch.bfloat16).float().numpy()
        np.testing.assert_array_equal(found[path], expected)
        assert found[path].dtype == np.float32


def test_a_share_of_the_way_is_linear_in_every_leaf(params):
    other = random_params(Clip(architecture("tiny")), seed=1)
    found, one, two = leaves(rounding.towards(params, other, 0.25)), leaves(params), leaves(other)
    for path, leaf in found.items():
        expected = 0.75 * np.float64(one[path]) + 0.25 * np.float64(two[path])
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-7)

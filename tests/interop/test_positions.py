"""Positions for another image size, against PyTorch's antialiased bicubic interpolation, which OpenCLIP uses."""

import dataclasses

import numpy as np
import pytest
import torch

from salmu_jax.models.positions import resample_positions
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime.errors import InputError


@pytest.mark.parametrize("size", [16, 32, 48, 64, 112, 160, 240])
def test_positions_equal_torchs(size):
    config = dataclasses.replace(architecture("tiny"), image_size=112)  # 14 x 14 patches
    positions = np.random.default_rng(0).normal(size=(14 * 14 + 1, 16)).astype(np.float32)
    params = {"visual": {"positional_embedding": positions, "proj": positions[:2]}, "text": {}}
    found = resample_positions(params, config, size)
    grid = torch.tensor(positions[1:]).reshape(1, 14, 14, 16).permute(0, 3, 1, 2)
    side = (size // 8, size // 8)
    expected = torch.nn.functional.interpolate(grid, side, mode="bicubic", antialias=True, align_corners=False)
    expected = expected[0].permute(1, 2, 0).reshape(-1, 16).numpy()
    assert found["visual"]["positional_embedding"].dtype == np.float32
    np.testing.assert_array_equal(found["visual"]["positional_embedding"][0], positions[0])
    np.testing.assert_allclose(found["visual"]["positional_embedding"][1:], expected, atol=1e-5)
    assert found["visual"]["proj"] is params["visual"]["proj"]
    if size == 112:
        np.testing.assert_allclose(found["visual"]["positional_embedding"], positions, atol=1e-6)


@pytest.mark.parametrize("size", [0, 7, 20])
def test_sizes_that_are_no_multiple_of_the_patch_are_refused(size):
    with pytest.raises(InputError, match=f"^image_size: {size} pixels are not a multiple of the patch size, 8$"):
        resample_positions({}, architecture("tiny"), size)

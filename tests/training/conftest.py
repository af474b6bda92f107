"""Stand-ins that compile in a moment, where the towers do not matter."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from salmu_jax.models.clip import l2_normalize


@dataclasses.dataclass(frozen=True)
class LinearClip:
    """Two matrices in the place of two towers: pixels and token counts are projected and normalised."""

    def encode_image(self, params, images):
        return l2_normalize(images.reshape(len(images), -1).astype(np.float32) / 255 @ params["image"]["kernel"])

    def encode_text(self, params, tokens):
        counts = jax.nn.one_hot(tokens, 10).sum(axis=1)
        return l2_normalize(counts @ params["text"]["kernel"])


@pytest.fixture(scope="session")
def linear_params():
    draw = np.random.default_rng(0)

    def matrix(rows):
        return draw.normal(size=(rows, 8)).astype(np.float32)

    return {"image": {"kernel": matrix(12)}, "text": {"kernel": matrix(10)}, "logit_scale": np.float32(2.66)}


@pytest.fixture(scope="session")
def linear_clip():
    return LinearClip()


def linear_batch(index, rows=8):
    """The batch of step ``index``: images uint8 [B, 2, 2, 3], tokens int32 [B, 4], among them equal captions."""
    draw = np.random.default_rng([7, index])
    tokens = draw.integers(0, 10, (rows, 4)).astype(np.int32)
    tokens[1] = tokens[0]
    return {"images": draw.integers(0, 256, (rows, 2, 2, 3)).astype(np.uint8), "tokens": tokens}


@pytest.fixture(scope="session")
def batches():
    """``batches(first_step)``: an endless iterator, as the loop wants it; ``batches.one(i)``: the batch of a step."""

    def stream(first_step):
        step = first_step
        while True:
            yield linear_batch(step)
            step += 1

    stream.one = linear_batch
    return stream

"""SSD: the factors against float64 numpy, and one whole update of a CLIP against a PyTorch transcription."""

import jax
import numpy as np
import pytest
import torch
from method_by_hand import unlearn
from random_models import random_params
from torch_clip import random_batch
from torch_method import CONFIG, TorchClip, as_torch

from salmu_jax.models.clip import Clip
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Pairs
from salmu_jax.unlearning.methods.ssd import SSD, factors


def test_factors():
    forget = np.float32([0, 0, 1, 1, 1, 1e-30, 30, 30])
    retain = np.float32([0, 1, 0, 0.11, 0.09, 0, 2, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(forget > 10 * retain, np.minimum(20 * retain / np.float64(forget), 1), 1)
    ours = factors({"w": forget}, {"w": retain}, 10.0, 20.0)["w"]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert ours.tolist()[:4] == [1, 1, 0, 1]
    assert factors(np.float32(9), np.float32(0), 10.0, 1.0) == 1  # the logit scale stays


@pytest.fixture(scope="module")
def batches():
    """Three batches of forget and retain pairs; the last has the same pair in every row."""

    def pairs(seed):
        images, tokens = random_batch(CONFIG, seed, rows=5)
        return Pairs(images, tokens)

    found = [{"forget": pairs(seed), "retain": pairs(seed + 10)} for seed in range(3)]
    alike = jax.tree.map(lambda leaf: np.repeat(leaf[:1], len(leaf), axis=0), found[2]["retain"])
    return [*found[:2], {**found[2], "retain": alike}]


def test_an_update_is_that_of_the_published_algorithm(batches):
    params, options = random_params(Clip(CONFIG), seed=1), {"batches": 3, "dampening": 2.0, "forget_loss": "cosine"}
    ours = as_torch(unlearn(SSD(), Hyper(total_steps=0, options=options), Clip(CONFIG), params, batches))

    model, start = TorchClip(params), as_torch(params)
    sums = {"forget": {}, "retain": {}}
    for batch in batches:
        for split, total in sums.items():
            image, text = model.pairs(batch[split])
            loss = 1 - (image * text).sum(-1).mean() if split == "forget" else model.contrastive(image, text)
            for name, gradient in model.gradients(loss).items():
                total[name] = total.get(name, 0) + gradient**2 / 3

    shrunk = 0
    for name, value in start.items():
        if value.ndim == 0:
            assert ours[name] == value
            continue
        forget, retain = sums["forget"][name], sums["retain"][name]
        where = forget > 10 * retain
        expected = torch.where(where, value * (2 * retain / forget).clamp(max=1), value)
        sure = (forget / (10 * retain) - 1).abs() > 1e-3  # the others are so near the threshold that rounding decides
        sure |= (forget == 0) & (retain == 0)
        assert sure.double().mean() > 0.99, name
        torch.testing.assert_close(ours[name][sure], expected[sure], rtol=2e-4, atol=1e-6)
        assert torch.equal(ours[name][~where & sure], value[~where & sure])
        shrunk += int(where.sum())
    assert shrunk > 50

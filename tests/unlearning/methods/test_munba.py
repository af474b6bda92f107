"""MUNBa: the bargain against float64 numpy, the loss against a transcription, and whole updates against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from method_by_hand import unlearn
from random_models import random_params
from references import assert_terms, contrastive, tables
from torch_clip import random_batch
from torch_method import CONFIG, TorchClip, as_torch, distance

from salmu_jax.models.clip import Clip
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Pairs, StepInfo
from salmu_jax.unlearning.methods.munba import MUNBa, bargain
from salmu_jax.unlearning.step import run_key, step_keys


def shares(forget, retain):
    """The paper's closed form, float64."""
    lengths = np.linalg.norm(forget), np.linalg.norm(retain)
    if not all(lengths):
        return 0.5, 0.5
    cosine = forget @ retain / np.prod(lengths)
    sine = 1 - cosine**2
    return (0.5, 0.5) if sine < 1e-12 else tuple(np.sqrt((1 - cosine) / sine) / length for length in lengths)


@pytest.fixture(scope="module")
def bargained():
    """``bargain`` of two vectors, each in two leaves, and in float64 by the formula."""
    compiled = jax.jit(lambda gradients: bargain("f", "r").update(None, None, gradients=gradients)[0])

    def both(forget, retain):
        forget, retain = np.float32(forget), np.float32(retain)
        gradients = {name: {"a": value[:1], "b": value[1:]} for name, value in (("f", forget), ("r", retain))}
        a, b = shares(np.float64(forget), np.float64(retain))
        return np.concatenate(jax.tree.leaves(compiled(gradients))), a * np.float64(forget) + b * np.float64(retain)

    return both


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_the_bargain(bargained, scale):
    draw = np.random.default_rng(0)
    for _ in range(5):
        ours, theirs = bargained(scale * draw.normal(size=6), draw.normal(size=6))
        assert np.linalg.norm(ours - theirs) < 1e-6 * np.linalg.norm(theirs)


@pytest.mark.parametrize("second", [[2.0, 4, 6], [-1.0, -2, -3], [0.0, 0, 0]])
def test_parallel_and_vanishing_gradients_share_by_halves(bargained, second):
    ours, theirs = bargained([1, 2, 3], second)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(theirs, (np.array([1, 2, 3]) + second) / 2)


def test_loss_and_gradient(table):
    key = jax.random.key(3)
    permutation = np.asarray(jax.random.permutation(key, 4))

    def expected(params):
        image, text, scale = tables(params)
        return {
            "forgetting": contrastive(image[:4], text[:4][permutation], scale),
            "retention": contrastive(image[4:8], text[4:8], scale),
        }

    info = StepInfo(jnp.int32(0), jnp.float32(0), 1, key, None)
    assert_terms(MUNBa(), table, expected, info=info)


def test_two_updates_are_those_of_the_published_algorithm():
    def pairs(seed):
        images, tokens = random_batch(CONFIG, seed, rows=5)
        return Pairs(images, tokens)

    params = random_params(Clip(CONFIG), seed=1)
    batches = [{"forget": pairs(seed), "retain": pairs(seed + 10)} for seed in range(2)]
    hyper = Hyper(learning_rate=0.05, weight_decay=5e-2, clip_norm=1.0, warmup_steps=0, total_steps=2)
    ours = as_torch(unlearn(MUNBa(), hyper, Clip(CONFIG), params, batches))

    model, start = TorchClip(params), as_torch(params)
    attention = {name: value for name, value in model.parameters.items() if "self_attn" in name}
    groups = [
        {"params": [v for v in attention.values() if v.ndim > 1], "weight_decay": 5e-2},
        {"params": [v for v in attention.values() if v.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
    for step, batch in enumerate(batches):
        key, _ = step_keys(run_key(42), step)
        image, text = model.pairs(batch["forget"])
        wrong = text[torch.tensor(np.array(jax.random.permutation(key, 5)))]
        found = [
            model.gradients(loss)
            for loss in (model.contrastive(image, wrong), model.contrastive(*model.pairs(batch["retain"])))
        ]
        vectors = [torch.cat([one[name].flatten() for name in attention]) for one in found]
        a, b = shares(*(vector.numpy() for vector in vectors))
        for name, value in attention.items():
            value.grad = a * found[0][name] + b * found[1][name]
        torch.nn.utils.clip_grad_norm_(attention.values(), 1.0)
        optimizer.step()
        schedule.step()
    theirs = {name: value.detach() for name, value in model.parameters.items()}
    assert distance(ours, theirs, start) < 1e-4
    for name in set(start) - set(attention):
        assert torch.equal(ours[name], start[name])

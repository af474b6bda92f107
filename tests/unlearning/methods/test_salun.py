"""SalUn: the mask against a sort, the loss against a transcription, and that nothing outside the mask moves."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from method_by_hand import unlearn
from random_models import random_params
from references import assert_terms, contrastive, tables
from torch_clip import random_batch
from torch_method import CONFIG, TorchClip, as_torch

from salmu_jax.models.clip import Clip
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Bound, Pairs, StepInfo
from salmu_jax.unlearning.methods.salun import SalUn, largest
from salmu_jax.unlearning.step import run_key, step_keys


def flat(tree):
    return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.73, 1.0])
def test_the_mask_selects_the_largest_of_all_leaves_together(share):
    draw = np.random.default_rng(0)
    tree = {"a": draw.normal(size=(30, 7)).astype(np.float32), "b": 1e-3 * draw.normal(size=90).astype(np.float32)}
    chosen = flat(jax.jit(largest, static_argnums=1)(tree, share))
    sizes = np.abs(flat(tree))
    wanted = round(share * sizes.size)
    assert chosen.dtype == bool
    assert chosen.sum() == wanted
    if 0 < wanted < sizes.size:
        assert sizes[chosen].min() > sizes[~chosen].max()


def test_what_the_loss_does_not_depend_on_is_never_salient():
    mask = largest({"w": jnp.array([0.0, 0.0, 0.0, -2.0, 1.0])}, 0.8)
    assert mask["w"].tolist() == [False, False, False, True, True]
    assert largest({"w": jnp.array([3.0, 3.0, 1.0])}, 0.4)["w"].tolist() == [True, True, False]  # ties are in


def test_loss(table):
    clip, params, reference_params, batch = table
    method = SalUn(retention_weight=2.0)

    @jax.jit
    def terms(key):
        info = StepInfo(jnp.int32(0), jnp.float32(0), 1, key, None)
        return method.objectives(batch, Bound(clip, params), Bound(clip, reference_params), info)

    image, text, scale = tables(params)
    values = {p: contrastive(image[:4], text[:4][list(p)], scale) for p in itertools.permutations(range(4))}
    found = set()
    for seed in range(6):
        value = terms(jax.random.key(seed))
        np.testing.assert_allclose(value["retention"], 2 * contrastive(image[4:8], text[4:8], scale), rtol=1e-5)
        matches = [p for p, expected in values.items() if abs(expected - float(value["forgetting"])) < 2e-6]
        assert len(matches) == 1
        found.add(matches[0])
    assert len(found) > 2


def test_updates_are_those_of_adamw_within_the_mask_and_none_outside():
    hyper = Hyper(learning_rate=0.1, weight_decay=0.5, warmup_steps=0, total_steps=10)
    transform = SalUn().transform(hyper)
    params = {"w": jnp.array([[1.0, -2.0], [3.0, 4.0]])}
    gradient = {"w": jnp.array([[0.3, 0.2], [-0.1, 5.0]])}
    mask = np.array([[True, False], [True, False]])
    prepared = {"mask": {"w": jnp.asarray(mask)}}
    updates, _ = jax.jit(lambda g, p: transform.update(g, transform.init(p), p, prepared=prepared))(gradient, params)
    w, g = np.asarray(params["w"], float), np.asarray(gradient["w"], float)
    adam = g / (np.abs(g) + hyper.eps)  # the first step: both moments are corrected to the gradient itself
    expected = np.where(mask, -0.1 * (adam + 0.5 * w), 0)
    np.testing.assert_allclose(updates["w"], expected, rtol=1e-4)
    assert (np.asarray(updates["w"])[~mask] == 0).all()


def test_loss_and_gradient_of_one_permutation(table):
    key = jax.random.key(1)
    permutation = np.asarray(jax.random.permutation(key, 4))

    def expected(params):
        image, text, scale = tables(params)
        return {
            "forgetting": contrastive(image[:4], text[:4][permutation], scale),
            "retention": 2 * contrastive(image[4:8], text[4:8], scale),
        }

    info = StepInfo(jnp.int32(0), jnp.float32(0), 1, key, None)
    assert_terms(SalUn(retention_weight=2.0), table, expected, info=info)


def test_an_update_is_that_of_the_published_algorithm():
    def pairs(seed):
        images, tokens = random_batch(CONFIG, seed, rows=5)
        return Pairs(images, tokens)

    params = random_params(Clip(CONFIG), seed=1)
    batches = [{"forget": pairs(seed), "retain": pairs(seed + 10)} for seed in range(2)]
    # Adam divides by |g| + eps: a large eps keeps the rounding of small gradients small.
    settings = {"learning_rate": 0.1, "weight_decay": 0.1, "eps": 0.05}
    hyper = Hyper(**settings, warmup_steps=0, total_steps=1, options={"batches": 2, "share": 0.4})
    ours = as_torch(unlearn(SalUn(), hyper, Clip(CONFIG), params, batches))

    model, start, saliency = TorchClip(params), as_torch(params), {}
    for batch in batches:
        for name, gradient in model.gradients(model.contrastive(*model.pairs(batch["forget"]))).items():
            saliency[name] = saliency.get(name, 0) + gradient / 2
    entries = torch.cat([value.abs().flatten() for value in saliency.values()])
    threshold = entries.sort(descending=True).values[round(0.4 * len(entries)) - 1]

    image, text = model.pairs(batches[0]["forget"])
    key, _ = step_keys(run_key(42), 0)
    wrong = text[torch.tensor(np.array(jax.random.permutation(key, 5)))]
    loss = model.contrastive(image, wrong) + model.contrastive(*model.pairs(batches[0]["retain"]))
    gradients = model.gradients(loss)
    for name, value in start.items():
        salient = saliency[name].abs() >= threshold
        g = torch.where(salient, gradients[name], 0)
        move = 0.1 * (g / (g.abs() + 0.05) + 0.1 * value * (value.ndim > 1))
        sure = (saliency[name].abs() / threshold - 1).abs() > 1e-3
        assert sure.double().mean() > 0.98, name
        torch.testing.assert_close(ours[name][sure], (value - move * salient)[sure], rtol=1e-6, atol=1e-5)
        assert torch.equal(ours[name][~salient & sure], value[~salient & sure])

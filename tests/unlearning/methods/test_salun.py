"""SalUn: the mask against a sort, the loss against a transcription, and that nothing outside the mask moves."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import contrastive, tables

from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Bound, StepInfo
from salmu_jax.unlearning.methods.salun import SalUn, largest


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

"""Targeted forgetting: both phases' losses, the matrices with a branch, the average while reminding, and the blend."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from method_by_hand import make_context
from references import assert_terms, central_differences, contrastive, tables

from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import StepInfo
from salmu_jax.unlearning.methods.targeted_forgetting import TargetedForgetting, end_at_the_average


@pytest.mark.parametrize(("step", "reminds"), [(3, False), (4, True)])
def test_losses_and_gradients(step, reminds, table):
    def expected(params):
        image, text, scale = tables(params)
        if reminds:
            return {"forgetting": 0, "reminding": contrastive(image[4:8], text[4:8], scale)}
        return {"forgetting": np.mean(np.sum(image[:4] * text[:4], axis=1)), "reminding": 0}

    info = StepInfo(jnp.int32(step), jnp.float32(0), 10, jax.random.key(0), None)
    assert_terms(TargetedForgetting(forgetting_steps=0.4), table, expected, info=info)


def test_branches_are_where_forget_matters_most_beside_retain(table):
    clip, params, _, batch = table
    forget, retain = (pairs._replace(others={}) for pairs in batch.values())
    mixed = retain._replace(tokens=forget.tokens)
    batches = [{"forget": forget, "retain": retain}, {"forget": retain, "retain": mixed}]
    prepared = TargetedForgetting(batches=2).prepare(make_context(TargetedForgetting(), Hyper(), clip, params, batches))

    squared = {"forget": {}, "retain": {}}
    for one in batches:
        for split, found in squared.items():
            rows = np.asarray(one[split].images)[:, 0, 0, 0], np.asarray(one[split].tokens)[:, 0]

            def similarity(params, rows=rows):
                image, text, _ = tables(params)
                return np.mean(np.sum(image[rows[0]] * text[rows[1]], axis=1))

            for tower, leaves in central_differences(similarity, params).items():
                if tower != "logit_scale":
                    found[tower] = found.get(tower, 0) + np.sum(leaves["rows"] ** 2) / 2
    ratios = {f"{tower}/rows": squared["forget"][tower] / squared["retain"][tower] for tower in ("visual", "text")}
    assert prepared == {path: pytest.approx(ratio, rel=1e-5) for path, ratio in ratios.items()}
    assert list(prepared) == sorted(ratios, key=ratios.get, reverse=True)
    one = TargetedForgetting(batches=2, layers=1, rank=2)
    chosen = one.prepare(make_context(one, Hyper(), clip, params, batches))
    assert list(chosen) == list(prepared)[:1]
    factors, bind = one.parametrise(params, chosen, jax.random.key(0))
    tower = next(iter(chosen)).split("/")[0]
    assert jax.tree.map(jnp.shape, factors) == {
        tower: {"rows": {"down": (len(params[tower]["rows"]), 2), "up": (2, 3)}}
    }
    factors[tower]["rows"]["up"] += 1
    moved = bind(factors, params)[tower]["rows"] - params[tower]["rows"]
    np.testing.assert_allclose(moved, factors[tower]["rows"]["down"].sum(axis=1, keepdims=True) * np.ones(3), atol=1e-6)


@pytest.mark.parametrize("first", [0, 2, 5])
def test_the_average(first):
    transform = end_at_the_average(optax.with_extra_args_support(optax.sgd(0.5)), 0.75, first, 4)
    params, seen, plain = {"w": jnp.array([1.0, -2.0])}, [], np.array([1.0, -2.0])
    state, update, average = transform.init(params), jax.jit(transform.update), None
    for step in range(5):
        gradient = np.array([step - 1.0, 3.0])
        moves, state = update({"w": jnp.asarray(gradient, jnp.float32)}, state, params, step=jnp.int32(step))
        params = optax.apply_updates(params, moves)
        seen.append(np.asarray(params["w"]))
        before, plain = plain, plain - 0.5 * gradient
        if step >= first:
            average = 0.75 * (before if average is None else average) + 0.25 * plain
        if step < 4:
            np.testing.assert_allclose(seen[-1], plain, rtol=1e-6)
    np.testing.assert_allclose(seen[-1], plain if average is None else average, rtol=1e-6)


def test_the_blend():
    after = TargetedForgetting(share=0.25).finish({"w": jnp.array([1.0, 5.0])}, {"w": jnp.array([2.0, 5.0])}, None)
    assert after["w"].tolist() == [1.75, 5.0]

"""The small transforms: their docstrings' examples, and what must hold for any gradients."""

from __future__ import annotations

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salmu_jax.unlearning import freeze, transforms
from salmu_jax.unlearning.methods import descent_to_delete


@pytest.mark.parametrize("module", [transforms, freeze, descent_to_delete])
def test_examples_in_the_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


vectors = st.lists(st.floats(-100, 100, width=32).map(lambda x: x if abs(x) > 1e-3 else 0.0), min_size=6, max_size=6)


def tree(values):
    return {"a": jnp.asarray(values[:2], jnp.float32), "b": {"c": jnp.asarray(values[2:], jnp.float32).reshape(2, 2)}}


def flat(values):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(values)]).astype(np.float64)


@settings(max_examples=60, deadline=None)
@given(forget=vectors, retain=vectors, other=vectors)
def test_projected_forget_gradient_does_not_undo_retention(forget, retain, other):
    g_f, g_r, g_o = tree(forget), tree(retain), tree(other)
    tx = transforms.project_conflicting("f", "r")
    updates, _ = tx.update(
        jax.tree.map(lambda *g: sum(g), g_f, g_r, g_o), tx.init(None), gradients={"f": g_f, "r": g_r}
    )
    projected = flat(updates) - flat(g_r) - flat(g_o)
    f, r = flat(g_f), flat(g_r)
    scale = 1 + np.linalg.norm(f) + np.linalg.norm(r) + np.linalg.norm(flat(g_o))
    assert projected @ r >= -1e-5 * scale * (1 + np.linalg.norm(r))
    if f @ r >= 0:  # without a conflict, and with r = 0, nothing is changed
        np.testing.assert_allclose(projected, f, atol=1e-5 * scale)
    else:  # what is taken away lies along r, and no more than the conflict
        np.testing.assert_allclose(projected, f - (f @ r) / (r @ r) * r, atol=1e-4 * scale)


def test_ascending_named_terms_leaves_the_others():
    g_a, g_b, g_c = tree(range(6)), tree(range(6, 12)), tree(range(12, 18))
    total = jax.tree.map(lambda *g: sum(g), g_a, g_b, g_c)
    tx = transforms.ascend("a", "c")
    updates, _ = tx.update(total, tx.init(None), gradients={"a": g_a, "c": g_c})
    np.testing.assert_allclose(flat(updates), -flat(g_a) + flat(g_b) - flat(g_c))


def test_noise_of_a_leaf_depends_on_key_and_path_alone():
    tx = transforms.gaussian_noise(2.0)

    def noise(zeros, seed):
        return tx.update(zeros, tx.init(None), rng=jax.random.key(seed))[0]

    both = noise({"x": jnp.zeros(5000), "y": jnp.zeros(5000)}, 0)
    alone = noise({"y": jnp.zeros(5000)}, 0)
    np.testing.assert_array_equal(both["y"], alone["y"])
    assert abs(np.corrcoef(both["x"], both["y"])[0, 1]) < 0.06
    assert abs(np.corrcoef(both["y"], noise({"y": jnp.zeros(5000)}, 1)["y"])[0, 1]) < 0.06
    np.testing.assert_allclose([both["x"].mean(), both["x"].std()], [0.0, 2.0], atol=0.1)

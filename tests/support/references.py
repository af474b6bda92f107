"""What the tests of methods compare with: losses in numpy float64, written from their formulas, and their derivatives."""

import jax
import numpy as np

from salmu_jax.unlearning.method import Bound


def contrastive(image, text, log_scale):
    """Symmetric InfoNCE, the matching caption being on the diagonal."""
    logits = np.exp(log_scale) * image @ text.T

    def cross_entropy(rows):
        return np.mean([np.log(np.sum(np.exp(row))) - row[i] for i, row in enumerate(rows)])

    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


def in_batch_kl(start, logits):
    """KL(start || logits) of the softmax over each row and over each column, mean over both."""

    def divergence(rows0, rows):
        total = 0.0
        for row0, row in zip(rows0, rows, strict=True):
            p0, p = np.exp(row0) / np.sum(np.exp(row0)), np.exp(row) / np.sum(np.exp(row))
            total += np.sum(p0 * np.log(p0 / p))
        return total / len(rows)

    return (divergence(start, logits) + divergence(start.T, logits.T)) / 2


def distance(a, b):
    """The mean over rows of |a - b|^2."""
    return np.mean(np.sum((a - b) ** 2, axis=1))


def tables(params):
    """The embeddings of a table model, float64: images, texts, and the logarithm of the scale."""
    return (
        np.asarray(params["visual"]["rows"], float),
        np.asarray(params["text"]["rows"], float),
        float(params["logit_scale"]),
    )


def central_differences(function, params, step=1e-6):
    """The gradient of a float64 function of a tree of arrays, a leaf at a time."""
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda leaf: np.array(leaf, float), params))
    gradients = []
    for leaf in leaves:
        gradient = np.zeros_like(leaf)
        for index in np.ndindex(leaf.shape):
            ends = []
            for sign in (1, -1):
                moved = leaf.copy()
                moved[index] += sign * step
                ends.append(function(jax.tree.unflatten(structure, [moved if x is leaf else x for x in leaves])))
            gradient[index] = (ends[0] - ends[1]) / (2 * step)
        gradients.append(gradient)
    return jax.tree.unflatten(structure, gradients)


def assert_terms(method, table, expected, *, info=None, params=None):
    """The terms of ``method`` on a table model, and their gradient, against ``expected(params) -> terms``, within 1e-6."""
    clip, default, reference_params, batch = table
    params = default if params is None else params

    def total(params):
        terms = method.objectives(batch, Bound(clip, params), Bound(clip, reference_params), info)
        return sum(terms.values()), terms

    (_, terms), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    wanted = expected(params)
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-6, atol=1e-7)
    numeric = central_differences(lambda params: sum(expected(params).values()), params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    ours, theirs = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (gradient, numeric))
    assert np.linalg.norm(ours - theirs) < 1e-6 * np.linalg.norm(theirs)

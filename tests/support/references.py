"""What the tests of methods compare with: losses in numpy float64, written from their formulas, and their derivatives."""

import jax
import numpy as np


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

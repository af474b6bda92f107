"""Fits a logistic regression on many sparse features, as scikit-learn's defaults define it.

Newton's method in float64; its linear systems are solved by conjugate gradients, so that the Hessian, of 100,000 features
squared, is never formed.
"""

from __future__ import annotations

import numpy as np

from salmu_jax.evaluation.tfidf import Sparse

_TOLERANCE = 1e-9  # on each entry of the gradient
_MAX_STEPS = 100
_MAX_INNER = 500  # conjugate gradients a step


def fit_sparse_logistic(design: Sparse, label: np.ndarray, *, c: float = 1.0) -> tuple[np.ndarray, float]:
    """Minimises ``c sum_i log(1 + exp(-y_i (w . x_i + b))) + |w|^2 / 2`` with y = +-1; the intercept is not penalised.

    Args:
      design: [N, K].
      label: bool [N]; both classes must occur.
      c: inverse strength of the L2 penalty.

    Returns the weights float64 [K] and the intercept. Raises ValueError when only one class occurs.
    """
    y = np.asarray(label, bool)
    if y.all() or not y.any():
        raise ValueError("logistic regression needs rows of both classes")
    sign = np.where(y, 1.0, -1.0)
    penalty = np.append(np.ones(design.columns), 0.0)

    def logits(theta: np.ndarray) -> np.ndarray:
        return design.times(theta[:-1]) + theta[-1]

    def backward(values: np.ndarray) -> np.ndarray:
        return np.append(design.transposed_times(values), values.sum())

    def loss(theta: np.ndarray) -> float:
        return c * np.logaddexp(0.0, -sign * logits(theta)).sum() + 0.5 * (penalty * theta * theta).sum()

    theta = np.zeros(design.columns + 1)
    value = loss(theta)
    for _ in range(_MAX_STEPS):
        probability = np.exp(-np.logaddexp(0.0, -logits(theta)))
        gradient = c * backward(probability - y) + penalty * theta
        if np.abs(gradient).max() <= _TOLERANCE:
            break
        curvature = c * probability * (1.0 - probability)
        step = _solve(lambda v, k=curvature: backward(k * logits(v)) + penalty * v, gradient)
        scale = 1.0  # the loss is convex: a shortened step lowers it until rounding is all that is left
        while scale > 1e-8 and (candidate := loss(theta - scale * step)) > value:
            scale *= 0.5
        if scale <= 1e-8:
            break
        theta, value = theta - scale * step, candidate
    return theta[:-1], float(theta[-1])


def _solve(matrix, right: np.ndarray) -> np.ndarray:
    """Solves ``matrix(x) = right`` for a positive definite matrix by conjugate gradients, the closer the smaller ``right``."""
    x, residual = np.zeros_like(right), right.copy()
    direction, square = residual.copy(), float(residual @ residual)
    enough = square * min(1e-2, square)
    for _ in range(_MAX_INNER):
        product = matrix(direction)
        step = square / float(direction @ product)
        x += step * direction
        residual -= step * product
        square, before = float(residual @ residual), square
        if square <= enough:
            break
        direction = residual + (square / before) * direction
    return x

"""Fits a logistic regression on a few features, as scikit-learn's defaults define it, by Newton's method in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_MAX_STEPS = 100
_TOLERANCE = 1e-10  # on the gradient a row


class Logistic(NamedTuple):
    """``p(label = 1 | x) = 1 / (1 + exp(-(weight . x + intercept)))``; ``weight`` is a float, or float64 [K]."""

    weight: float | np.ndarray
    intercept: float

    def score(self, feature: np.ndarray) -> np.ndarray:
        """Returns ``weight . x + intercept``, float64 [N]: above 0 where True is the more probable label."""
        x = np.asarray(feature, np.float64)
        return (x @ self.weight if x.ndim > 1 else self.weight * x) + self.intercept

    def predict(self, feature: np.ndarray) -> np.ndarray:
        """Returns the more probable label, bool [N]; False on the boundary, as in scikit-learn."""
        return self.score(feature) > 0


def fit_logistic(feature: np.ndarray, label: np.ndarray, *, c: float = 1.0) -> Logistic:
    """Minimises ``c sum_i log(1 + exp(-y_i (w . x_i + b))) + |w|^2 / 2`` with y = +-1; the intercept is not penalised.

    Args:
      feature: [N] or [N, K], any real dtype; the arithmetic is float64.
      label: bool [N]; both classes must occur.
      c: inverse strength of the L2 penalty, as scikit-learn's ``LogisticRegression(C=1.0)``.

    Raises:
      ValueError: when only one class occurs, or a feature is not finite.
    """
    x = np.asarray(feature, np.float64)
    y = np.asarray(label, bool)
    if y.all() or not y.any():
        raise ValueError("logistic regression needs rows of both classes")
    if not np.isfinite(x).all():
        raise ValueError("logistic regression needs finite features")
    design = np.concatenate([x.reshape(len(x), -1), np.ones((len(x), 1))], axis=1)
    sign = np.where(y, 1.0, -1.0)
    penalty = np.append(np.ones(design.shape[1] - 1), 0.0)

    def loss(theta: np.ndarray) -> float:
        return c * np.logaddexp(0.0, -sign * (design @ theta)).sum() + 0.5 * (penalty * theta * theta).sum()

    theta = np.zeros(design.shape[1])
    value = loss(theta)
    for _ in range(_MAX_STEPS):
        probability = _sigmoid(design @ theta)
        gradient = c * design.T @ (probability - y) + penalty * theta
        if np.abs(gradient).max() <= _TOLERANCE * len(x):
            break
        curvature = c * (design * (probability * (1.0 - probability))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        # The loss is convex, so a shortened Newton step always lowers it until rounding is all that is left.
        scale = 1.0
        while scale > 1e-8 and (candidate := loss(theta - scale * step)) > value:
            scale *= 0.5
        if scale <= 1e-8:
            break
        theta, value = theta - scale * step, candidate
    return Logistic(theta[:-1] if x.ndim > 1 else float(theta[0]), float(theta[-1]))


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -z))  # never overflows

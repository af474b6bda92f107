"""Reads annotated attributes off embeddings: linear discriminants, fitted to other people as annotated.

Reference: R. A. Fisher's discriminant with a shared covariance (Hastie, Tibshirani, Friedman, "The Elements of Statistical
Learning", 4.3), shrunk towards a multiple of the identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

ATTRIBUTES = ("region", "gender", "age")
_SHRINKAGE = 0.1


@dataclasses.dataclass(frozen=True)
class Discriminant:
    """Tells the values of one attribute apart.

    Attributes:
      values: that occur.
      weights, bias: float64 [D, C] and [C]; ``vectors @ weights + bias`` are log-probabilities up to a constant.
    """

    values: tuple[str, ...]
    weights: np.ndarray
    bias: np.ndarray

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the log-probability of each value, float64 [N, C], for portraits [N, D]."""
        logits = vectors.astype(np.float64) @ self.weights + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def evidence(self, vectors: np.ndarray, annotated: str) -> tuple[float, str]:
        """Returns how much better an annotation fits an identity than any other, and the value that fits best.

        Args:
          vectors: of its portraits, [N, D].
          annotated: the value that is claimed.

        Returns:
          The mean log-probability of the claim minus the best other one's, a mean over portraits, and the best value.
          A value that never occurred has the probability of the least likely one.
        """
        means = self.scores(vectors).mean(axis=0)
        best = self.values[int(means.argmax())]
        if len(self.values) < 2:
            return 0.0, best
        if annotated not in self.values:
            return float(means.min() - means.max()), best
        own = self.values.index(annotated)
        return float(means[own] - np.delete(means, own).max()), best


def fit_discriminant(vectors: Sequence[np.ndarray], annotated: Sequence[str]) -> Discriminant:
    """Fits a discriminant to identities: ``vectors`` [N, D] of each, and its value. All values count as equally likely."""
    values = tuple(sorted(set(annotated)))
    everything = np.concatenate(vectors).astype(np.float64)
    labels = np.repeat([values.index(value) for value in annotated], [len(of_one) for of_one in vectors])
    means = np.stack([everything[labels == label].mean(axis=0) for label in range(len(values))])
    rest = everything - means[labels]
    covariance = rest.T @ rest / len(rest)
    width = len(covariance)
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.trace(covariance) / width * np.eye(width)
    weights = np.linalg.solve(covariance, means.T)
    return Discriminant(values, weights, -0.5 * np.einsum("cd,dc->c", means, weights))

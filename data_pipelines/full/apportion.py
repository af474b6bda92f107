"""Divides a number of pairs into whole shares in proportion to weights, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def apportion(total: int, weights: Sequence[float], rng: np.random.Generator) -> list[int]:
    """Returns whole shares of ``total`` in proportion to ``weights``, by largest remainders; ``rng`` orders equal ones.

    A share is its quota rounded down or up, so with whole weights whose sum is ``total`` or more, none exceeds its weight.
    Weights are 0 or more; if all are 0, the shares are equal to within one.

    >>> apportion(10, [1, 1, 2], np.random.default_rng(0))
    [3, 2, 5]
    """
    if not len(weights):
        if total:
            raise ValueError(f"nobody to divide {total} among")
        return []
    exact = np.asarray(weights, float)
    exact = exact if exact.sum() > 0 else np.ones(len(exact))
    quotas = total * exact / exact.sum()
    shares = np.floor(quotas + 1e-9).astype(int)
    order = rng.permutation(len(shares))
    largest = order[np.argsort(-(quotas - shares)[order].round(9), kind="stable")]
    shares[largest[: total - int(shares.sum())]] += 1
    return [int(share) for share in shares]

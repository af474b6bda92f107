"""Computes subspaces of features from their second moments, for methods that project.

Moments are small and the same on all hosts; the eigenvectors are computed by each host in float64.
"""

from __future__ import annotations

import numpy as np

from salmu_jax.runtime.errors import InputError


def leading_directions(moment: np.ndarray, rank: int, where: str) -> np.ndarray:
    """Returns the eigenvectors of ``moment`` with the ``rank`` largest eigenvalues, the largest first.

    Args:
      moment: [D, D], symmetric, positive semidefinite: ``mean x x^T`` of features ``x``.
      rank: 1 to D.
      where: the option that says ``rank``, for the error.

    Returns float32 [D, rank], columns orthonormal. Raises InputError if ``rank`` is out of range.
    """
    width = len(moment)
    if not 1 <= rank <= width:
        raise InputError(f"is {rank}; the features have {width} directions, 1 to {width} would be right", where)
    return np.linalg.eigh(moment.astype(np.float64))[1][:, ::-1][:, :rank].astype(np.float32)


def quiet_projection(moment: np.ndarray, energy: float) -> np.ndarray:
    """Returns ``P = U U^T`` on the directions that features hardly use.

    ``U`` has the eigenvectors of ``moment`` whose eigenvalues, added up from the smallest on, stay at or below the share
    ``energy`` of the trace. With ``energy`` 0 these are the null directions, up to the rounding of float32 moments.

    Args:
      moment: [D, D], symmetric, positive semidefinite: ``mean x x^T`` of features ``x``.
      energy: 0 to 1.

    Returns float32 [D, D]; all zeros if even the quietest direction holds more than ``energy``.
    """
    values, vectors = np.linalg.eigh(moment.astype(np.float64))  # ascending
    rounding = len(moment) * np.finfo(np.float32).eps * max(values[-1], 0)
    held = np.cumsum(np.where(values > rounding, values, 0))
    quiet = vectors[:, held <= energy * held[-1]]
    return (quiet @ quiet.T).astype(np.float32)

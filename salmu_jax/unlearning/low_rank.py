"""Low-rank branches of matrices (LoRA): drawing their factors, and adding their products.

A branch of the matrix at ``path``, [in, out], has the factors ``path/down`` [in, rank] and ``path/up`` [rank, out]. Reference:
Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Iterable

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from salmu_jax.models.clip import Params


def draw_branches(params: Params, paths: Iterable[str], rank: int, rng: jax.Array) -> Params:
    """Returns the factors of the branches of the matrices at ``paths``, float32: ``down`` is drawn, and ``up`` is 0."""
    flat, factors = flax.traverse_util.flatten_dict(params, sep="/"), {}
    for index, path in enumerate(sorted(paths)):
        rows, columns = flat[path].shape
        factors[f"{path}/down"] = jax.random.normal(jax.random.fold_in(rng, index), (rows, rank)) / np.sqrt(rows)
        factors[f"{path}/up"] = jnp.zeros((rank, columns))
    return flax.traverse_util.unflatten_dict(factors, sep="/")


def add_branches(factors: Params, params: Params) -> Params:
    """Returns ``params`` with ``down @ up`` of each branch added to its matrix."""
    parts, whole = (flax.traverse_util.flatten_dict(tree, sep="/") for tree in (factors, params))
    for path in {part.rpartition("/")[0] for part in parts}:
        whole[path] = whole[path] + parts[f"{path}/down"] @ parts[f"{path}/up"]
    return flax.traverse_util.unflatten_dict(whole, sep="/")

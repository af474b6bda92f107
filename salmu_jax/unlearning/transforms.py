"""Small gradient transforms that methods are made of, to be composed with ``optax.chain``, the base optimizer last.

Each works on whatever trees it is given; frozen leaves are absent from them. Extra arguments are keyword-only and
come from the step (see :meth:`salmu_jax.unlearning.method.Method.transform`).
"""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import optax


def ascend(*terms: str) -> optax.GradientTransformationExtraArgs:
    """Gradient ascent: ``-g``; with names ``g - 2 sum_k g_k``, so that only the terms ``k`` are maximised.

    Named terms must be among the method's ``separate_gradients``. Reference: the "NegGrad" baseline of Golatkar,
    Achille and Soatto, "Eternal Sunshine of the Spotless Net", CVPR 2020.

    >>> tx = ascend()
    >>> updates, _ = tx.update({"w": jnp.array([1.0, -2.0])}, tx.init(None))
    >>> updates["w"].tolist()
    [-1.0, 2.0]
    >>> gradients = {"forget": {"w": jnp.array([1.0, 0.0])}, "retain": {"w": jnp.array([0.0, 3.0])}}
    >>> tx = ascend("forget")
    >>> updates, _ = tx.update({"w": jnp.array([1.0, 3.0])}, tx.init(None), gradients=gradients)
    >>> updates["w"].tolist()
    [-1.0, 3.0]
    """
    if not terms:
        return optax.with_extra_args_support(optax.scale(-1.0))

    def update(updates, state, params=None, *, gradients, **extra):
        del params, extra
        for term in terms:
            updates = optax.tree.add_scale(updates, -2.0, gradients[term])
        return updates, state

    return optax.GradientTransformationExtraArgs(_no_state, update)


def project_conflicting(forget: str, retain: str) -> optax.GradientTransformationExtraArgs:
    """Takes out of the forget gradient what would undo retention: ``g_f - min(0, <g_f, g_r>) g_r / |g_r|^2``.

    It replaces ``g_f`` in ``updates``. All other terms of ``updates`` stay as they are. With a zero ``g_r`` nothing
    is changed. Both names must be among the method's ``separate_gradients``. Reference: the projection of Yu et al.,
    "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, in one direction as in Chaudhry et al., "Efficient
    Lifelong Learning with A-GEM", ICLR 2019.

    >>> gradients = {"forget": {"w": jnp.array([3.0, -1.0])}, "retain": {"w": jnp.array([0.0, 2.0])}}
    >>> tx = project_conflicting("forget", "retain")
    >>> updates, _ = tx.update({"w": jnp.array([3.0, 1.0])}, tx.init(None), gradients=gradients)
    >>> updates["w"].tolist()  # (3, 0) of forget + (0, 2) of retain
    [3.0, 2.0]
    """

    def update(updates, state, params=None, *, gradients, **extra):
        del params, extra
        g_forget, g_retain = gradients[forget], gradients[retain]
        conflict = jnp.minimum(optax.tree.vdot(g_forget, g_retain), 0)
        squared = optax.tree.vdot(g_retain, g_retain)
        factor = jnp.where(squared > 0, -conflict / jnp.where(squared > 0, squared, 1), 0)
        return optax.tree.add_scale(updates, factor, g_retain), state

    return optax.GradientTransformationExtraArgs(_no_state, update)


def pull_to_reference(strength: float) -> optax.GradientTransformationExtraArgs:
    """Adds the gradient of ``strength / 2 |theta - theta_0|^2``: ``g + strength (theta - theta_0)``.

    ``theta_0`` is ``reference_params``, the model before unlearning. Reference: L2-SP of Li, Grandvalet and Davoine,
    "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018.

    >>> tx = pull_to_reference(0.5)
    >>> params, reference = {"w": jnp.array([3.0])}, {"w": jnp.array([1.0])}
    >>> updates, _ = tx.update({"w": jnp.array([0.0])}, tx.init(params), params, reference_params=reference)
    >>> updates["w"].tolist()
    [1.0]
    """

    def update(updates, state, params=None, *, reference_params, **extra):
        del extra
        if params is None:
            raise ValueError("pull_to_reference needs the current parameters: call update(updates, state, params, ...)")
        return optax.tree.add_scale(updates, strength, optax.tree.sub(params, reference_params)), state

    return optax.GradientTransformationExtraArgs(_no_state, update)


def gaussian_noise(sigma: float) -> optax.GradientTransformationExtraArgs:
    """Adds independent noise ``N(0, sigma^2)`` to every entry. Each leaf draws from ``rng`` and its own path alone.

    So freezing some leaves does not change what the others get. Reference: the publishing step of Neel, Roth and
    Sharifi-Malvajerdi, "Descent-to-Delete", ALT 2021.

    >>> tx = gaussian_noise(0.1)
    >>> zeros = {"w": jnp.zeros(10_000)}
    >>> updates, _ = tx.update(zeros, tx.init(None), rng=jax.random.key(0))
    >>> bool(abs(updates["w"].std() - 0.1) < 0.01)
    True
    """

    def update(updates, state, params=None, *, rng, **extra):
        del params, extra

        def add(path: Any, leaf: jax.Array) -> jax.Array:
            key = jax.random.fold_in(rng, zlib.crc32(jax.tree_util.keystr(path).encode()))
            return leaf + sigma * jax.random.normal(key, leaf.shape, leaf.dtype)

        return jax.tree_util.tree_map_with_path(add, updates), state

    return optax.GradientTransformationExtraArgs(_no_state, update)


def _no_state(params: Any) -> optax.EmptyState:
    del params
    return optax.EmptyState()

"""Small gradient transforms that methods are made of, to be composed with ``optax.chain``, the base optimizer last.

Each works on whatever trees it is given; frozen leaves are absent from them. Extra arguments are keyword-only and
come from the step (see :meth:`salmu_jax.unlearning.method.Method.transform`).

Those of :data:`LINKS` can also be named in a config, which puts them before a method's base optimizer (``hyper.chain``).
"""

from __future__ import annotations

import inspect
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import did_you_mean


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
            updates = optax.tree.add_scale(updates, -2.0, _separate(gradients, term))
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
        g_forget, g_retain = _separate(gradients, forget), _separate(gradients, retain)
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


def saliency_mask(name: str = "mask") -> optax.GradientTransformationExtraArgs:
    """Keeps the entries that a mask selects, and sets the others to zero: ``m * g``.

    The mask is ``prepared[name]``, a tree like the parameters of booleans or of 0 and 1, which the method's ``prepare``
    computes. Before the base optimizer it masks the gradient; after it, the update, so that nothing else moves, weight decay
    included. Reference: Fan et al., "SalUn", ICLR 2024.

    >>> tx = saliency_mask()
    >>> prepared = {"mask": {"w": jnp.array([True, False])}}
    >>> updates, _ = tx.update({"w": jnp.array([3.0, 4.0])}, tx.init(None), prepared=prepared)
    >>> updates["w"].tolist()
    [3.0, 0.0]
    """

    def update(updates, state, params=None, *, prepared, **extra):
        del params, extra
        if not isinstance(prepared, Mapping) or name not in prepared:
            raise InputError(f"the method prepares no {name!r}, the mask of the link saliency_mask", "chain")
        return jax.tree.map(lambda mask, leaf: leaf * mask.astype(leaf.dtype), prepared[name], updates), state

    return optax.GradientTransformationExtraArgs(_no_state, update)


# Links by name -----------------------------------------------------------------------------------------------------------

LINKS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    function.__name__: function
    for function in (ascend, project_conflicting, pull_to_reference, gaussian_noise, saliency_mask)
}


def make_link(link: Any) -> optax.GradientTransformationExtraArgs:
    """Returns the transform that a config names: ``"ascend"``, or ``{"link": "pull_to_reference", "strength": 0.1}``.

    Raises InputError for an unknown name, and for arguments that are unknown, missing or of another type.
    """
    given = dict(link) if isinstance(link, Mapping) else {"link": link}
    name = given.pop("link", None)
    if not isinstance(name, str) or name not in LINKS:
        hint = did_you_mean(str(name), LINKS) or f"there are {', '.join(LINKS)}"
        raise InputError(f"unknown link {name!r}; {hint}", "chain")
    parameters = inspect.signature(LINKS[name]).parameters
    named = {key: parameter for key, parameter in parameters.items() if parameter.kind is not parameter.VAR_POSITIONAL}
    for key, value in given.items():
        if key not in named:
            hint = did_you_mean(key, named) or (f"it has {', '.join(named)}" if named else "it has none")
            raise InputError(f"the link {name} has no argument {key!r}; {hint}", "chain")
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        if not (number if named[key].annotation == "float" else isinstance(value, str)):
            wanted = "finite number" if named[key].annotation == "float" else "text"
            raise InputError(f"{key!r} of the link {name} must be a {wanted}, not {value!r}", "chain")
    if missing := [key for key, one in named.items() if one.default is one.empty and key not in given]:
        raise InputError(f"the link {name} needs {' and '.join(map(repr, missing))}", "chain")
    return LINKS[name](**given)


def _separate(gradients: Mapping[str, Any], term: str) -> Any:
    """Returns the gradient of one term. Raises InputError if the method does not ask for it."""
    if term not in gradients:
        has = f"those of {', '.join(gradients)}" if gradients else "none"
        raise InputError(f"needs the separate gradient of the term {term!r}; the method has {has}", "chain")
    return gradients[term]


def _no_state(params: Any) -> optax.EmptyState:
    del params
    return optax.EmptyState()

"""Which parameters a run may change, said with regular expressions over their paths.

Frozen leaves are cut out of the tree that is differentiated, transformed and added to (``optax.MaskedNode()`` stands
in their place), so they have no gradient, no optimizer state, and keep every bit. This is what ``optax.partition``
hands to its inner transforms; the cut is made once, outside, because ``partition`` masks only extra arguments that
have the very structure of the parameters (a dictionary of gradients by name has not), and wants a gradient for the
frozen leaves as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import flax.traverse_util
import jax
import optax

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import listed

TRAIN = "train"
FREEZE = "freeze"

Rules = Sequence[tuple[str, str]]  # (regular expression over the whole path, label); the first match decides
TRAIN_ALL: Rules = ((".*", TRAIN),)


def parameter_paths(params: Any) -> list[str]:
    """Returns the paths of the leaves, as ``text/transformer/blocks_0/c_fc/kernel``, in the order of ``jax.tree.leaves``."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]


def label_parameters(params: Any, rules: Rules) -> Any:
    """Returns a tree like ``params`` of labels: at every leaf that of the first rule that matches its whole path.

    Works on arrays and on ``jax.ShapeDtypeStruct``s.

    >>> label_parameters({"text": {"proj": 0.0}, "visual": {"proj": 0.0}}, [("visual/.*", "freeze"), (".*", "train")])
    {'text': {'proj': 'train'}, 'visual': {'proj': 'freeze'}}

    Raises InputError for an unknown label, a pattern that is no regular expression or matches no leaf at all, a leaf
    that no rule matches, and rules that leave nothing to train; each time naming the paths.
    """
    paths = parameter_paths(params)
    patterns = []
    for pattern, label in rules:
        if label not in (TRAIN, FREEZE):
            raise InputError(
                f"unknown label {label!r} of {pattern!r}; {TRAIN!r} or {FREEZE!r} would be right", "trainable"
            )
        try:
            patterns.append((re.compile(pattern), label))
        except re.error as error:
            raise InputError(f"{pattern!r} is not a regular expression: {error}", "trainable") from error
        if not any(patterns[-1][0].fullmatch(path) for path in paths):
            raise InputError(f"{pattern!r} matches no parameter; the paths are: {listed(paths)}", "trainable")
    labels = [next((label for pattern, label in patterns if pattern.fullmatch(path)), None) for path in paths]
    uncovered = [path for path, label in zip(paths, labels, strict=True) if label is None]
    if uncovered:
        raise InputError(
            f"no rule says whether to train: {listed(uncovered)}; a last rule ('.*', ...) covers all", "trainable"
        )
    if TRAIN not in labels:
        raise InputError(f"nothing is left to train; the paths are: {listed(paths)}", "trainable")
    return jax.tree.unflatten(jax.tree.structure(params), labels)


def trainable_part(tree: Any, labels: Any) -> Any:
    """``tree`` without its frozen leaves (``optax.MaskedNode()``, which has no leaves, instead)."""
    return jax.tree.map(lambda label, leaf: leaf if label == TRAIN else optax.MaskedNode(), labels, tree)


def merge(trainable: Any, params: Any, labels: Any) -> Any:
    """``params`` with its trainable leaves taken from ``trainable``; the frozen ones are the very same arrays."""
    return jax.tree.map(lambda label, new, old: new if label == TRAIN else old, labels, trainable, params)


def take(params: Any, paths: Iterable[str]) -> Any:
    """Returns the part of a nested dictionary that has the leaves at ``paths``, and no others."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return flax.traverse_util.unflatten_dict({path: flat[path] for path in paths}, sep="/")


def put(part: Any, params: Any) -> Any:
    """Returns ``params``, a nested dictionary, with the leaves of ``part`` in their places."""
    flat, new = (flax.traverse_util.flatten_dict(tree, sep="/") for tree in (params, part))
    return flax.traverse_util.unflatten_dict(flat | new, sep="/")

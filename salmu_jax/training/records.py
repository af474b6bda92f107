"""Describes a tree of arrays, one record a leaf: written beside the arrays, and compared when they are read.

There are two digests. A finished model has the SHA-256 of each leaf's bytes (:func:`leaf_records`), which anyone can check. A
run's saved states have :func:`device_digests`, computed where the arrays are: no host of a pod could hold them all, and
gathering them at every save would take longer than writing them. Both detect every flipped bit; only SHA-256 resists forgery.
"""

from __future__ import annotations

import functools
import hashlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from salmu_jax.runtime import distributed, files

Records = dict[str, dict[str, Any]]

_LANES = 4  # 32-bit sums of a device digest
_DIGESTS = ("sha256", "digest")


def leaf_path(path: tuple[Any, ...]) -> str:
    """Formats a JAX key path as ``params.visual.proj``."""
    return ".".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def leaf_records(tree: Any) -> Records:
    """Returns ``{path: {"shape", "dtype", "sha256"}}`` for every leaf of ``tree``, in tree order.

    Leaves that are sharded over several processes are gathered, one at a time; all processes have to call this.
    """
    records = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = distributed.to_host(leaf)
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        records[leaf_path(path)] = {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}
    return records


def shape_records(tree: Any) -> Records:
    """Returns :func:`leaf_records` without digests; ``tree`` may hold ``jax.ShapeDtypeStruct``s."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {leaf_path(path): {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} for path, leaf in leaves}


def without_digests(records: Records) -> Records:
    """Returns the shapes and dtypes of ``records``."""
    return {path: {"shape": record["shape"], "dtype": record["dtype"]} for path, record in records.items()}


def tree_digest(records: Records) -> str:
    """Returns one SHA-256 for a whole tree: equal if all paths, shapes, dtypes and bits are."""
    return files.sha256_json(records)


def mismatches(expected: Records, found: Records) -> list[str]:
    """Lists the differences between two sets of records, a phrase each; digests are compared where both have one."""
    problems = [f"{path} is missing" for path in expected if path not in found]
    problems += [f"{path} is not part of it" for path in found if path not in expected]
    for path in expected.keys() & found.keys():
        for key in ("shape", "dtype", *_DIGESTS):
            if key in expected[path] and key in found[path] and expected[path][key] != found[path][key]:
                if key in _DIGESTS:
                    name = "SHA-256" if key == "sha256" else key
                    problems.append(f"{path} is damaged (its {name} is not the recorded one)")
                else:
                    problems.append(f"{path} has {key} {found[path][key]}, not {expected[path][key]}")
                break
    return sorted(problems)


def device_records(leaves: dict[str, jax.Array]) -> Records:
    """Returns ``{path: {"shape", "dtype", "digest"}}``, with :func:`device_digests`."""
    digests = device_digests(leaves)
    return {path: {**record, "digest": digests[path]} for path, record in shape_records(leaves).items()}


def device_digests(leaves: dict[str, jax.Array]) -> dict[str, str]:
    """Computes a digest of 128 bits for each leaf, on its devices; the same for the same bits, however the leaf is sharded.

    Each element's bits are mixed with its index in the leaf by a function that is one-to-one in the bits, and the results are
    summed modulo 2^32, four times with different constants. Sums can be taken in any order. If one element differs, in any
    bits, all four sums change; if several do, the chance that none changes is 2^-128. Only 16 bytes a leaf are fetched.
    """
    sums = {}
    for path, leaf in leaves.items():
        sums[path] = _sums(_replicas(leaf))(leaf)
        if len(getattr(leaf, "devices", tuple)()) > 1:
            # On CPUs, concurrent programs that reduce over devices can deadlock.
            jax.block_until_ready(sums[path])
    return {path: "".join(f"{word:08x}" for word in np.asarray(four)) for path, four in sums.items()}


def _replicas(leaf: Any) -> Sharding | None:
    sharding = getattr(leaf, "sharding", None)
    return NamedSharding(sharding.mesh, P()) if isinstance(sharding, NamedSharding) else None


@functools.cache
def _sums(out: Sharding | None) -> Any:
    """Returns a function from a leaf to its four sums, uint32 [4]; JAX compiles it once per shape, dtype and sharding."""

    def sums(leaf: jax.Array) -> jax.Array:
        words = _words(leaf)
        index = jnp.zeros(words.shape, jnp.uint32)
        for axis in range(words.ndim):
            stride = np.uint32(math.prod(words.shape[axis + 1 :]) % 2**32)
            index += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * stride
        lanes = jnp.arange(1, _LANES + 1, dtype=jnp.uint32).reshape(_LANES, *(1,) * words.ndim)
        salt = _mix(index[None] * np.uint32(0x9E3779B9) + lanes * np.uint32(0x7FEB352D))
        return jnp.sum(_mix(words[None] ^ salt), axis=tuple(range(1, words.ndim + 1)), dtype=jnp.uint32)

    return jax.jit(sums, out_shardings=out)


def _words(leaf: jax.Array) -> jax.Array:
    """Returns the bits of every element as uint32; an element of eight bytes becomes two."""
    leaf = jnp.asarray(leaf)
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    kinds = {1: jnp.uint8, 2: jnp.uint16}
    return jax.lax.bitcast_convert_type(leaf, kinds.get(leaf.dtype.itemsize, jnp.uint32)).astype(jnp.uint32)


def _mix(word: jax.Array) -> jax.Array:
    """Applies the finaliser of MurmurHash3: one-to-one on 32 bits; each bit of the result depends on all of ``word``."""
    word = (word ^ (word >> 16)) * np.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * np.uint32(0xC2B2AE35)
    return word ^ (word >> 16)

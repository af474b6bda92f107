"""Builds the mesh, and decides how arrays are sharded over it.

Axes: ``data`` (shards the batch, replicates parameters), ``fsdp`` (shards the batch and the parameters) and ``tensor`` (shards
attention heads and MLP activations, so each device computes a part of every matmul). A single device is a mesh of 1 x 1 x 1
and runs the same code.

The model gives its axes logical names (``models/clip.py``), :data:`RULES` maps these to mesh axes, and :func:`use` applies the
rules to everything traced inside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from salmu_jax.models.clip import PARAMETER_AXES
from salmu_jax.runtime import distributed
from salmu_jax.runtime.errors import InputError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# Mesh axes by logical name. Activations of the residual stream are sharded by batch only: without that constraint FSDP would
# shard them like the parameters, and ViT-B/16 would need 53 GiB a chip at 128 pairs.
RULES = (("batch", BATCH_AXES), ("embed", "fsdp"), ("heads", "tensor"), ("mlp", "tensor"), ("vocab", "tensor"))


def make_mesh(fsdp: int = 1, tensor: int = 1, devices: list[jax.Device] | None = None) -> Mesh:
    """Builds a mesh over all devices of all processes, which have to call this together, or over ``devices``.

    The size of ``data`` is what ``fsdp`` and ``tensor`` leave.

    Raises InputError if the number of devices is not a multiple of ``fsdp * tensor``.
    """
    everything = devices is None
    devices = jax.devices() if everything else devices
    if len(devices) % (fsdp * tensor):
        raise InputError(f"{len(devices)} devices cannot be split into fsdp {fsdp} x tensor {tensor}", "mesh")
    shape = (len(devices) // (fsdp * tensor), fsdp, tensor)
    # Auto, not the default Explicit: with explicit axes ``image @ text.T`` of two batch-sharded arrays is a type error.
    mesh = jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)
    _check_tensor_within_hosts(mesh)
    if everything:
        distributed.connect(mesh)
    return mesh


def _check_tensor_within_hosts(mesh: Mesh) -> None:
    """Raises InputError if devices of one tensor-parallel group, which need the same rows, are in several processes.

    Each process makes its own rows of a batch, and JAX does not check that replicated rows are equal.
    """
    for group in mesh.devices.reshape(-1, mesh.shape["tensor"]):
        processes = {device.process_index for device in group}
        if len(processes) > 1:
            raise InputError(
                f"a group of {mesh.shape['tensor']} devices would span processes {', '.join(map(str, sorted(processes)))},"
                " which read different rows; choose a number that divides the devices of one process, and split the rest"
                " by mesh.fsdp",
                "mesh.tensor",
            )


def check_batch_size(size: int, mesh: Mesh, where: str) -> None:
    """Raises InputError if a global batch of ``size`` does not split over the devices that share it."""
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    if size % shares:
        raise InputError(f"a batch of {size} does not split over {shares} devices; a multiple of {shares} would", where)


def batch_sharding(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """Shards the batch axis over ``data`` and ``fsdp``, and none of the ``leading`` axes before it (steps of a scan)."""
    return NamedSharding(mesh, P(*(None,) * leading, BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding with a copy on every device."""
    return NamedSharding(mesh, P())


@contextlib.contextmanager
def use(mesh: Mesh) -> Iterator[None]:
    """Makes ``jax.jit`` trace for ``mesh``, with the model's activations constrained by :data:`RULES`."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def param_shardings(tree: Any, mesh: Mesh) -> Any:
    """Returns a sharding for each leaf, by the logical names of its axes.

    An axis whose size does not divide is not split. Matrices without names (those of another model) are split over ``fsdp``
    along their longest divisible axis; other leaves without names are replicated. Works on arrays and on
    ``jax.ShapeDtypeStruct``s, for parameters and optimizer state alike: the path of a moment ends like its parameter's, so
    both are sharded alike.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, _spec(path, leaf, mesh)), tree)


def _spec(path: tuple[Any, ...], leaf: Any, mesh: Mesh) -> P:
    shape = np.shape(leaf)
    keys = tuple(str(getattr(key, "key", "")) for key in path)
    names = next((PARAMETER_AXES[keys[-n:]] for n in (2, 1) if keys[-n:] in PARAMETER_AXES), None)
    if names is not None and len(names) == len(shape):
        rules = dict(RULES)
        axes = [rules[name] if name else None for name in names]
        axes = [axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape, strict=True)]
    else:
        fsdp = mesh.shape["fsdp"]
        divisible = [axis for axis in range(len(shape)) if shape[axis] % fsdp == 0]
        longest = max(divisible, key=lambda axis: shape[axis], default=None) if len(shape) > 1 else None
        axes = ["fsdp" if axis == longest else None for axis in range(len(shape))]
    axes = [axis if axis and mesh.shape[axis] > 1 else None for axis in axes]
    return P(*axes) if any(axes) else P()


def put_batch(batch: Any, mesh: Mesh, leading: int = 0) -> Any:
    """Makes global arrays, sharded over the mesh, of this process's numpy arrays. The devices must divide the global batch."""
    sharding = batch_sharding(mesh, leading)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)

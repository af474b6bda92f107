"""The one place that builds the mesh, and says where arrays live on it.

Axes: ``data`` (the batch is split over it, parameters are copies), ``fsdp`` (the batch and the parameters are split) and
``tensor`` (kept for splitting the products; size 1 today). A single device is a mesh of 1 x 1 x 1, and runs the same code.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from salmu_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


def make_mesh(fsdp: int = 1, tensor: int = 1, devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices (or ``devices``), ``data`` taking what ``fsdp`` and ``tensor`` leave.

    Raises InputError if the number of devices is not a multiple of ``fsdp * tensor``.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) % (fsdp * tensor):
        raise InputError(f"{len(devices)} devices cannot be split into fsdp {fsdp} x tensor {tensor}", "mesh")
    shape = (len(devices) // (fsdp * tensor), fsdp, tensor)
    # Auto, not the default Explicit: with explicit axes ``image @ text.T`` of two batch-sharded arrays is a type error.
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def check_batch_size(size: int, mesh: Mesh, where: str) -> None:
    """Raises InputError if a global batch of ``size`` does not split over the devices that share it."""
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    if size % shares:
        raise InputError(f"a batch of {size} does not split over {shares} devices; a multiple of {shares} would", where)


def batch_sharding(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """The batch axis split over ``data`` and ``fsdp``; ``leading`` axes before it (steps of a scan) are not split."""
    return NamedSharding(mesh, P(*(None,) * leading, BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, P())


def param_shardings(tree: Any, mesh: Mesh) -> Any:
    """A sharding a leaf: matrices are split over ``fsdp`` along their longest divisible axis, all else is copied.

    Works on arrays and on ``jax.ShapeDtypeStruct``s, for parameters and optimizer state alike (moments have the shapes of
    their parameters, so they land where these do).
    """
    size = mesh.shape["fsdp"]

    def sharding(leaf: Any) -> NamedSharding:
        shape = np.shape(leaf)
        axes = [axis for axis in range(len(shape)) if shape[axis] % size == 0]
        if size == 1 or len(shape) < 2 or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: shape[axis])
        return NamedSharding(mesh, P(*("fsdp" if axis == longest else None for axis in range(len(shape)))))

    return jax.tree.map(sharding, tree)


def put_batch(batch: Any, mesh: Mesh, leading: int = 0) -> Any:
    """This process's numpy arrays, as global arrays split over the mesh. The global batch must divide by the devices."""
    sharding = batch_sharding(mesh, leading)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)

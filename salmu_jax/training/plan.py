"""Plans a pretraining on hardware that need not be at hand: ``salmu plan``.

The train step of a config is compiled for a topology, by the TPU compiler in ``libtpu``, or for the local devices. The
compiler reports the memory that it needs; published figures of the chip (``chips.py``) bound its speed:

- compute: the FLOPs of the step, recomputation included, over the chips' peak;
- memory: the bytes that the compiled program moves (``hlo.py``) over the memory bandwidth;
- interconnect: the bytes that its collectives send over the bandwidth of all links.

The slowest of the three is the roofline: no run is faster, real ones are slower. Nothing here is measured, and every report
says so. FLOPs come from lowering the step unrolled and unsharded, since the compiler counts the body of a loop once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from ml_collections import ConfigDict

from salmu_jax.models.build import make_clip
from salmu_jax.models.clip import Clip
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import first_line
from salmu_jax.training import chips, hlo
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.flops import forward_flops_per_image, forward_flops_per_text
from salmu_jax.training.pretrain import make_pretrain_optimizer, make_pretrain_step
from salmu_jax.training.step import init_state, scan_steps

LOCAL = "local"
# What libtpu needs before it compiles on a machine that is not a TPU VM.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    # libtpu's lock guards the machine's TPUs. Nothing here opens one, so two plans may compile side by side.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of a device's memory that a compiled step needs; ``limit`` is what the device has (0: unknown)."""

    needed: float
    arguments: float
    temporaries: float
    limit: float
    fits: bool = True


@dataclasses.dataclass(frozen=True)
class Plan:
    """The figures of a plan: bytes and FLOPs of a step, and the whole run."""

    topology: str
    chip: chips.Chip | None
    chip_kind: str
    chips: int
    devices: int
    mesh: dict[str, int]
    parameters: int
    memory: Memory  # of a chip
    model_flops: float  # of a step, over all chips, nothing recomputed
    executed_flops: float  # with what rematerialisation and gradient caching compute again
    memory_traffic: float  # of a chip and step
    interconnect_traffic: float
    collectives: dict[str, float]
    steps: int
    pairs: int
    bytes_to_read: float
    hosts: int = 1

    def seconds(self) -> dict[str, float]:
        """Returns the minimum time of a step by each bound, in seconds; empty for a chip without published figures."""
        if self.chip is None or not self.memory.fits:
            return {}
        return {
            "compute": self.executed_flops / (self.chips * self.chip.peak_flops),
            "memory": self.memory_traffic / self.chip.memory_bandwidth,
            "interconnect": self.interconnect_traffic / self.chip.interconnect_bandwidth,
        }

    def roofline(self) -> float:
        """Returns the minimum time of a step, in seconds; 0 if unknown."""
        return max(self.seconds().values(), default=0.0)


def prepare_environment(topology: str) -> None:
    """Keeps libtpu from looking for a TPU. Call this before the first use of a device."""
    if topology != LOCAL:
        os.environ.update(TPU_ENVIRONMENT)
        jax.config.update("jax_platforms", "cpu")


def topology_devices(topology: str) -> list[jax.Device]:
    """Returns the devices of a topology such as ``v5e:16x16``; for ``local``, those of this machine.

    Raises InputError for a topology that libtpu does not know, or if there is no libtpu.
    """
    if topology == LOCAL:
        return jax.devices()
    try:
        import libtpu  # noqa: F401
    except ImportError:
        raise InputError(
            "compiling for TPUs needs libtpu; 'pip install jax[tpu]' installs the version for this jax",
            "--topology",
        ) from None
    prepare_environment(topology)
    options: dict[str, Any] = {}
    if re.search(r":1(x1)*$", topology):  # a single chip
        options["chips_per_host_bounds"] = (1, 1, 1)
    if topology.startswith("v4:"):  # both cores of a chip as one device, as TPU VMs run them
        options["chip_config_name"] = "megacore"
    try:
        return list(topologies.get_topology_desc(topology, "tpu", **options).devices)
    except Exception as error:  # libtpu raises kinds of its own
        examples = "v4:4x4x8, v5e:16x16, v5p:4x4x4 and v6e:8x8 are some"
        raise InputError(f"no topology {topology!r} ({first_line(error)}); {examples}", "--topology") from error


def make_plan(
    config: ConfigDict,
    topology: str,
    *,
    pairs: int,
    bytes_per_pair: float,
    fast: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Compiles the step of ``config`` for ``topology`` and computes the figures.

    ``fast`` lowers the TPU compiler's effort: it is several times faster, and figures differ by some ten per cent.

    Raises InputError for an unknown topology, or a config that does not fit it. A step that does not fit into memory is not an
    error: see ``plan.memory.fits``.
    """
    devices = topology_devices(topology)
    say(f"compiling for {topology}: {len(devices)} devices of kind {devices[0].device_kind}")
    memory, text, parameters, mesh = compile_step(config, devices, fast=fast)
    per_chip = chips.devices_per_chip(devices)
    memory = dataclasses.replace(
        memory, **{name: getattr(memory, name) * per_chip for name in ("needed", "arguments", "temporaries", "limit")}
    )
    traffic = hlo.traffic(text, len(devices)) if text else hlo.Traffic(0, 0, {})
    say("counting FLOPs")
    clip, batch = make_clip(config), config.train.batch_size
    executed = unrolled_flops(config)
    if config.train.microbatch:  # one more forward pass
        executed += batch * (forward_flops_per_image(clip.config) + forward_flops_per_text(clip.config))
    return Plan(
        topology=topology,
        chip=chips.chip_of(devices[0]),
        chip_kind=devices[0].device_kind,
        chips=len(devices) // per_chip,
        devices=len(devices),
        mesh=mesh,
        parameters=parameters,
        memory=memory,
        model_flops=unrolled_flops(changed(config, {"model.remat": "none"}))
        if config.model.remat != "none"
        else executed,
        executed_flops=executed,
        memory_traffic=traffic.memory * per_chip,
        interconnect_traffic=traffic.interconnect * per_chip,
        collectives=traffic.collectives,
        steps=-(-int(np.ceil(config.train.epochs * pairs)) // batch),
        pairs=pairs,
        bytes_to_read=config.train.epochs * pairs * bytes_per_pair,
        hosts=len({device.process_index for device in devices}),
    )


def compile_step(
    config: ConfigDict, devices: list[jax.Device], *, fast: bool = False
) -> tuple[Memory, str, int, dict[str, int]]:
    """Returns (memory of a device, text of the compiled program or "" if it does not fit, parameters, sizes of the mesh)."""
    if devices[0].platform != jax.default_backend():  # "auto" would choose for the local devices
        config = changed(config, {"model.attention": "plain", "model.kernels": "plain"})
    clip = make_clip(config)
    mesh = mesh_lib.make_mesh(config.mesh.fsdp, config.mesh.tensor, devices)
    optimizer = make_pretrain_optimizer(config, total_steps=1_000)
    step = make_pretrain_step(config, clip, optimizer, mesh)
    shapes = jax.eval_shape(lambda rng: init_state(clip, optimizer, rng), jax.random.key(0))
    shardings = mesh_lib.param_shardings(shapes, mesh)
    state = jax.tree.map(lambda s, sharding: s.update(sharding=sharding), shapes, shardings)
    batch = _batch_shapes(clip, (config.train.steps_per_call, config.train.batch_size))
    batch = jax.tree.map(lambda s: s.update(sharding=mesh_lib.batch_sharding(mesh, leading=1)), batch)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes.params))
    chip = chips.chip_of(devices[0])
    limit = chip.memory / chips.devices_per_chip(devices) if chip else 0.0
    with mesh_lib.use(mesh), _compiler_effort(-1.0 if fast else 0.0):
        call = jax.jit(scan_steps(step), donate_argnums=0, out_shardings=(shardings, None))
        lowered = call.lower(state, batch)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            return _exhausted(error, limit), "", parameters, dict(mesh.shape)
    stats = compiled.memory_analysis()
    needed = (
        stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes + stats.temp_size_in_bytes
    )
    memory = Memory(
        needed, stats.argument_size_in_bytes, stats.temp_size_in_bytes, limit, fits=not limit or needed <= limit
    )
    return memory, compiled.as_text(), parameters, dict(mesh.shape)


def unrolled_flops(config: ConfigDict) -> float:
    """Returns the FLOPs of a step as XLA counts them: unrolled, on one device, with the plain loss; lowered, not compiled."""
    plain = {
        "model.scan_layers": False,
        "model.attention": "plain",  # XLA cannot count the FLOPs of cuDNN's kernel
        "model.kernels": "plain",
        "train.loss_form": "plain",
        "train.microbatch": 0,
        "mesh.fsdp": 1,
        "mesh.tensor": 1,
    }
    config = changed(config, plain)
    clip, optimizer = make_clip(config), make_pretrain_optimizer(config, total_steps=1_000)
    step = make_pretrain_step(config, clip, optimizer, mesh_lib.make_mesh(devices=jax.devices()[:1]))
    state = jax.eval_shape(lambda rng: init_state(clip, optimizer, rng), jax.random.key(0))
    lowered = jax.jit(step).lower(state, _batch_shapes(clip, (config.train.batch_size,)))
    return float(lowered.cost_analysis()["flops"])


def alternatives(config: ConfigDict, devices: int) -> Iterator[dict[str, Any]]:
    """Yields changes that need less memory, the cheapest first: each alone, then all together."""
    batch = config.train.batch_size
    single: list[dict[str, Any]] = []
    if config.model.remat == "none":
        single.append({"model.remat": "dots", "model.scan_layers": True})
    if config.model.remat != "full":
        single.append({"model.remat": "full", "model.scan_layers": True})
    fsdp = max((size for size in (2, 4, 8, 16) if devices % (size * config.mesh.tensor) == 0), default=1)
    if config.mesh.fsdp < fsdp:
        single.append({"mesh.fsdp": fsdp})
    if config.train.loss_form == "plain":
        single.append({"train.loss_form": "ring"})
    shares = devices // config.mesh.tensor
    microbatch = (config.train.microbatch or batch) // 4
    if microbatch and microbatch % shares == 0 and batch % microbatch == 0:
        single.append({"train.microbatch": microbatch})
    if batch % (2 * shares) == 0:
        single.append({"train.batch_size": batch // 2})
    yield from single
    together = {field: value for change in single for field, value in change.items() if field != "train.batch_size"}
    if together not in single and together:
        yield together


def changed(config: ConfigDict, fields: dict[str, Any]) -> ConfigDict:
    """Returns a copy of ``config`` with other values for some fields, as in ``{"train.batch_size": 64}``."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(fields)
    return copy


def _batch_shapes(clip: Clip, leading: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    size = clip.config.image_size
    return {
        "images": jax.ShapeDtypeStruct((*leading, size, size, 3), jnp.uint8),
        "tokens": jax.ShapeDtypeStruct((*leading, clip.config.context_length), jnp.int32),
    }


@contextlib.contextmanager
def _compiler_effort(effort: float) -> Iterator[None]:
    before = jax.config.jax_exec_time_optimization_effort
    jax.config.update("jax_exec_time_optimization_effort", effort)
    try:
        yield
    finally:
        jax.config.update("jax_exec_time_optimization_effort", before)


def _exhausted(error: Exception, limit: float) -> Memory:
    """Parses the compiler's error for a step that does not fit into memory. Raises any other error."""
    said = re.search(r"Used ([\d.]+)([GMK]) of ([\d.]+)([GMK])", str(error))
    if "RESOURCE_EXHAUSTED" not in str(error) or said is None:
        raise error
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}
    needed, available = float(said[1]) * unit[said[2]], float(said[3]) * unit[said[4]]
    return Memory(needed, 0.0, 0.0, limit or available, fits=False)

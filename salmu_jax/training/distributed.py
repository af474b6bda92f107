"""A run over several processes (the hosts of a TPU pod): how they find each other, wait, and agree.

Every process runs the same command. Each feeds its own devices with its own part of every batch; process 0 alone prints, and
writes what is not an array: manifests, metrics, the records of stages. The directories of a run have to be visible to all.

With one process everything here does nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from salmu_jax.errors import InputError

T = TypeVar("T")

# What 'auto' takes for a cluster: variables that launchers set in every process of one.
_LAUNCHERS = (
    "SLURM_STEP_NODELIST",
    "OMPI_MCA_orte_hnp_uri",
    "MEGASCALE_COORDINATOR_ADDRESS",
    "JAX_COORDINATOR_ADDRESS",
)
_WAIT_MS = 24 * 3600 * 1000  # one process may build data or evaluate for hours while the others wait for it
_SHUTDOWN_SECONDS = 60  # how long a process that ends waits for the others, before it ends alone

_rounds = itertools.count()  # equal in all processes, which go through the same rounds
_alone = False  # process 0 is doing something by itself, see from_main


class ToldInputError(InputError):
    """An InputError of process 0, which prints it, in another process."""


def initialize(
    mode: str = "auto",
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Joins the other processes of this run, before the first computation; at most once.

    Args:
      mode: ``auto``: if an address is given below, or a launcher is seen in the environment (Slurm, Open MPI, a TPU pod of
        several hosts); ``on``: JAX finds the cluster, or fails; ``off``: this process runs by itself.
      coordinator: ``HOST:PORT`` of process 0, or ``SALMU_COORDINATOR``.
      processes: how many there are, or ``SALMU_PROCESSES``.
      process: which one this is, from 0, or ``SALMU_PROCESS``.

    Raises:
      InputError: some of the three are missing or are no such numbers; the others do not answer.
    """
    given = {
        "coordinator": coordinator or environment.get("SALMU_COORDINATOR") or None,
        "processes": _number(processes, "SALMU_PROCESSES", environment),
        "process": _number(process, "SALMU_PROCESS", environment),
    }
    by_hand = any(value is not None for value in given.values())
    if mode == "off" or (mode == "auto" and not by_hand and not _launched(environment)):
        return
    arguments: dict[str, Any] = {}
    if by_hand:
        missing = [f"--{name}" for name, value in given.items() if value is None]
        if missing:
            raise InputError(f"{', '.join(missing)} missing; an address by hand takes all three", "--coordinator")
        address, count, index = given["coordinator"], given["processes"], given["process"]
        if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdecimal():
            raise InputError(f"{address!r} is not HOST:PORT", "--coordinator")
        if not 0 <= index < count:
            raise InputError(f"is {index}; 0 to {count - 1} is needed", "--process")
        if count == 1:
            return
        arguments = {"coordinator_address": address, "num_processes": count, "process_id": index}
    import jax

    if jax.distributed.is_initialized():
        return
    # JAX's own service takes SIGTERM for itself and stops at steps counted one by one; ours (loop.py) stops at device calls.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**arguments, shutdown_timeout_seconds=_SHUTDOWN_SECONDS)
    except (RuntimeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the processes of this run did not find each other ({first[:200]}); give --coordinator HOST:PORT,"
            " --processes N and --process I to each",
            "--distributed",
        ) from error


def _number(value: int | None, name: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(name)
    if value is not None or not text:
        return value
    if not text.isdecimal():
        raise InputError(f"{text!r} is not a number of processes", name)
    return int(text)


def _launched(environment: Mapping[str, str]) -> bool:
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return len(hosts) > 1 or any(name in environment for name in _LAUNCHERS)


def leave(seconds: float) -> None:
    """Leaves the run in order if the others do too, and without them after ``seconds``; to be followed by the end.

    Process 0 holds the connections: were it to end first, the others would be killed for having lost it, whatever they were
    about to say. But a process that ends alone must not wait for others, who wait for it in a computation.
    """
    import jax

    if jax.distributed.is_initialized():
        thread = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        thread.start()
        thread.join(seconds)


def process_count() -> int:
    """How many processes take part in what is being done. It starts no backend where there is but one."""
    if _alone or "jax" not in sys.modules:
        return 1
    import jax

    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_main() -> bool:
    """True in the one process that speaks and writes files."""
    if process_count() == 1:
        return True
    import jax

    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes are here. It needs no device."""
    if process_count() > 1:
        _client().wait_at_barrier(f"salmu/{next(_rounds)}/{name}", _WAIT_MS)


def from_main(compute: Callable[[], T]) -> T:
    """What ``compute`` returns in process 0, a JSON value, in all processes; an InputError there is raised in all.

    Inside ``compute`` process 0 is by itself: it must use no device but its own, and nothing there waits for the others.
    """
    global _alone
    if process_count() == 1:
        return compute()
    key = f"salmu/{next(_rounds)}/from_main"
    if not is_main():
        answer = json.loads(_client().blocking_key_value_get(key, _WAIT_MS))
        if "error" in answer:
            raise ToldInputError(answer["error"])
        return answer["value"]
    _alone = True
    try:
        answer = {"value": compute()}
    except InputError as error:
        _client().key_value_set(key, json.dumps({"error": str(error)}))
        raise
    finally:
        _alone = False
    _client().key_value_set(key, json.dumps(answer))
    return answer["value"]


def from_all(value: T) -> list[T]:
    """The JSON values of all processes, in order."""
    import jax

    if process_count() == 1:
        return [value]
    key = f"salmu/{next(_rounds)}/from_all"
    _client().key_value_set(f"{key}/{jax.process_index()}", json.dumps(value))
    return [json.loads(_client().blocking_key_value_get(f"{key}/{i}", _WAIT_MS)) for i in range(process_count())]


def connect(mesh: Any) -> None:
    """Connects the CPU devices of all processes, in all groups that the axes of ``mesh`` make, while they are together.

    Gloo connects a group when a program first needs it, and gives the other processes 30 s to get there; no setting changes
    that. In the middle of a run, one of them is sooner or later that far behind. Other devices are connected from the start.
    """
    if process_count() == 1 or mesh.devices.flat[0].platform != "cpu":
        return
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    groups = [axes for n in range(len(mesh.axis_names)) for axes in itertools.combinations(mesh.axis_names, n + 1)]
    everywhere = jax.sharding.PartitionSpec()
    sums = jax.shard_map(
        lambda one: [jax.lax.psum(one, axes) for axes in groups], mesh=mesh, in_specs=everywhere, out_specs=everywhere
    )
    one = jax.make_array_from_process_local_data(jax.sharding.NamedSharding(mesh, everywhere), np.ones((), np.float32))
    program = jax.jit(sums).lower(one).compile()
    barrier("connect")
    jax.block_until_ready(program(one))
    multihost_utils.process_allgather(np.zeros(1, np.float32))


def to_host(leaf: Any) -> Any:
    """A whole array as numpy, in every process: gathered if it is split over several. All processes have to call it."""
    import jax
    import numpy as np

    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils

        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _client() -> Any:
    """JAX's connection to process 0. Through it processes wait without their devices, for as long as they have to."""
    from jax._src import distributed

    return distributed.global_state.client

"""Connects the processes of a run (the hosts of a TPU pod): how they find each other, wait, and agree.

Every process runs the same command and feeds its own devices with its own part of every batch. Only process 0 prints, and only
it writes what is not an array: manifests, metrics, records of stages. All processes must see the run's directories.

With a single process, everything here does nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from salmu_jax.runtime import console, launchers
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import first_line

T = TypeVar("T")

_WAIT_MS = 24 * 3600 * 1000  # process 0 may build data or evaluate for hours while the others wait
_NOTICE_SECONDS = 15  # wait for the others this long before saying so
_SHUTDOWN_SECONDS = 60  # how long an ending process waits for the others

_rounds = itertools.count()  # equal in all processes, which make the same calls in the same order
_alone = False  # whether process 0 is running alone, see from_main


class RemoteInputError(InputError):
    """An InputError raised in another process, which prints it."""


def initialize(
    mode: str = "auto",
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Joins the other processes of this run. Call it once, before the first computation.

    Args:
      mode: ``auto``: join if an address is given below, or a launcher in the environment (Slurm, Open MPI, a TPU pod of
        several hosts) says which of how many tasks this is; ``on``: JAX finds the cluster, or fails; ``off``: run alone.
      coordinator: ``HOST:PORT`` of process 0, or ``SALMU_COORDINATOR``.
      processes: their number, or ``SALMU_PROCESSES``.
      process: the index of this one, from 0, or ``SALMU_PROCESS``.

    Raises:
      InputError: some of the three are missing or invalid; the others do not answer.
    """
    given = {
        "coordinator": environment.get("SALMU_COORDINATOR") or None if coordinator is None else coordinator,
        "processes": _number(processes, "SALMU_PROCESSES", environment),
        "process": _number(process, "SALMU_PROCESS", environment),
    }
    by_hand = any(value is not None for value in given.values())
    if mode == "off":
        return
    arguments: dict[str, Any] = {}
    others = ""  # whom we wait for, and by which variable
    if by_hand:
        arguments = _by_hand(**given)
        if arguments["num_processes"] == 1:
            return
        others = f"{arguments['num_processes'] - 1} other processes of --processes (or SALMU_PROCESSES)"
    elif mode == "auto":
        launched, doubts = launchers.find(environment)
        for doubt in doubts:
            console.complain(f"salmu: {doubt}")
        if launched is None:
            return
        arguments = {"num_processes": launched.tasks, "process_id": launched.task}
        if launched.variable == "JAX_NUM_PROCESSES":
            arguments["coordinator_address"] = environment["JAX_COORDINATOR_ADDRESS"]
        elif launched.method:
            arguments["cluster_detection_method"] = launched.method
        elif not launched.variable.startswith("OMPI_"):
            arguments = {}  # the TPU's own metadata suffice
        others = f"{launched.tasks - 1} other processes of {launched.variable}"
    import jax

    if jax.distributed.is_initialized():
        return
    # JAX's own service takes SIGTERM for itself and stops at steps counted one by one; ours (loop.py) stops at device calls.
    jax.config.update("jax_enable_preemption_service", False)
    notice = threading.Timer(
        _NOTICE_SECONDS,
        console.complain,
        [f"salmu: waiting for the {others or 'other processes'}; --distributed off runs this one alone"],
    )
    notice.daemon = True
    notice.start()
    try:
        jax.distributed.initialize(**arguments, shutdown_timeout_seconds=_SHUTDOWN_SECONDS)
    except Exception as error:  # of many types: a missing variable, an unknown host, no answer
        raise InputError(
            f"the processes of this run did not find each other ({first_line(error)}"
            + (f"; waited for were {others}" if others else "")
            + "); give --coordinator HOST:PORT, --processes N and --process I to each, or --distributed off",
            "--distributed",
        ) from error
    finally:
        notice.cancel()


def _by_hand(coordinator: str | None, processes: int | None, process: int | None) -> dict[str, Any]:
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [f"--{name} (or SALMU_{name.upper()})" for name, value in given.items() if value is None]
    if coordinator is None or processes is None or process is None:
        here = [f"--{name} (or SALMU_{name.upper()})" for name, value in given.items() if value is not None]
        raise InputError(
            f"{', '.join(missing)} missing; an address by hand takes all three, and --distributed off none", here[0]
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise InputError(f"{coordinator!r} is not HOST:PORT", "--coordinator (or SALMU_COORDINATOR)")
    if processes < 1:
        raise InputError(f"is {processes}; at least 1 is needed", "--processes (or SALMU_PROCESSES)")
    if not 0 <= process < processes:
        raise InputError(f"is {process}; 0 to {processes - 1} is needed", "--process (or SALMU_PROCESS)")
    return {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}


def _number(value: int | None, name: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(name)
    if value is not None or not text:
        return value
    if not text.isdecimal():
        raise InputError(f"{text!r} is not a number of processes", name)
    return int(text)


def leave(seconds: float) -> None:
    """Leaves the run together with the other processes, or alone after ``seconds``; call it just before exit.

    Process 0 holds the connections: if it ended first, the others would be killed before they could print anything. But a
    process that ends alone must not wait for others that wait for it in a computation.
    """
    import jax

    if jax.distributed.is_initialized():
        thread = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        thread.start()
        thread.join(seconds)


def for_child() -> dict[str, Any]:
    """Returns arguments of :func:`initialize` for a child of this process, which joins the other processes' children.

    All processes must call it each time they start children.
    """
    if process_count() == 1:
        return {"mode": "off"}

    def free_port() -> int:
        with socket.socket() as probe:
            probe.bind(("", 0))
            return probe.getsockname()[1]

    state = _state()
    address = state.coordinator_address.rpartition(":")[0]
    return {
        "mode": "auto",
        "coordinator": f"{address}:{from_main(free_port)}",
        "processes": state.num_processes,
        "process": state.process_id,
    }


def process_count() -> int:
    """Returns the number of processes of the run, or 1 inside :func:`from_main`. Starts no backend."""
    if _alone or "jax" not in sys.modules:
        return 1
    import jax

    return _state().num_processes if jax.distributed.is_initialized() else 1


def is_main() -> bool:
    """Returns whether this is process 0, which prints and writes files."""
    return process_count() == 1 or _state().process_id == 0


def barrier(name: str) -> None:
    """Waits for all processes, without using a device."""
    if process_count() > 1:
        _client().wait_at_barrier(f"salmu/{next(_rounds)}/{name}", _WAIT_MS)


def from_main(compute: Callable[[], T]) -> T:
    """Calls ``compute`` in process 0, and returns its JSON value in all processes; an InputError is raised in all.

    Inside ``compute`` process 0 is alone: it may use only its own devices, and nothing there waits for the others.
    """
    global _alone
    if process_count() == 1:
        return compute()
    key = f"salmu/{next(_rounds)}/from_main"
    if not is_main():
        answer = json.loads(_client().blocking_key_value_get(key, _WAIT_MS))
        if "error" in answer:
            raise RemoteInputError(answer["error"])
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
    """Returns the JSON values of all processes, in order."""
    if process_count() == 1:
        return [value]
    key = f"salmu/{next(_rounds)}/from_all"
    _client().key_value_set(f"{key}/{_state().process_id}", json.dumps(value))
    return [json.loads(_client().blocking_key_value_get(f"{key}/{i}", _WAIT_MS)) for i in range(process_count())]


def connect(mesh: Any) -> None:
    """Connects the CPU devices of all processes in every group of axes of ``mesh``, while the processes are in step.

    Gloo connects a group when a program first needs it, and fails if another process takes more than 30 s to get there; no
    setting changes that. In the middle of a run, a process may be that far behind. Other devices are connected at start.
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
    """Returns a whole array as numpy in every process, gathered if sharded. All processes must call it."""
    import jax
    import numpy as np

    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils

        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _client() -> Any:
    """Returns JAX's client of process 0, through which processes wait without using their devices."""
    return _state().client


def _state() -> Any:
    """Returns JAX's state of the connection: the number of processes, this one's, and the address of process 0."""
    from jax._src import distributed

    return distributed.global_state

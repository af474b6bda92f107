"""Finds the launcher of a run over several processes by its environment variables.

These variables outlive the launcher: in the shell of an interactive allocation, in a terminal multiplexer started there, in a
container image. A launcher counts only if it says how many tasks this step has and which one this process is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple


class Launcher(NamedTuple):
    """A launcher's variables: one that reveals it, the number of tasks, and the index of this task."""

    seen: str
    tasks: str
    task: str
    method: str | None = None  # JAX's name for how it finds process 0
    count: Callable[[str], int] = int


class Launched(NamedTuple):
    """This process is ``task`` of ``tasks``, by ``variable``."""

    tasks: int
    task: int
    variable: str
    method: str | None


LAUNCHERS = (
    Launcher("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"),
    Launcher("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"),
    Launcher(
        "TPU_WORKER_HOSTNAMES", "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID", count=lambda names: len(names.split(","))
    ),
    # In an interactive step SLURM_NTASKS is the job's, and the shell is only one of its tasks.
    Launcher("SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "slurm"),
    Launcher("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "ompi"),
    Launcher("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
)


def find(environment: Mapping[str, str]) -> tuple[Launched | None, list[str]]:
    """Returns the launcher of this process, or None if it runs alone, and a warning for each launcher that is ignored."""
    doubts = []
    for launcher in LAUNCHERS:
        if not environment.get(launcher.seen):
            continue
        counts = launcher.count is not int  # hosts of a TPU: the list of names gives the number
        try:
            tasks = launcher.count(environment[launcher.tasks])
            if tasks == 1:
                continue
            task = int(environment[launcher.task])
        except (KeyError, ValueError):
            wanted = [launcher.task] if counts else [launcher.tasks, launcher.task]
            doubts.append(_doubt(launcher, f"{' and '.join(wanted)} do not say which of how many tasks this is"))
            continue
        if 0 <= task < tasks:
            return Launched(tasks, task, launcher.tasks, launcher.method), []
        doubts.append(_doubt(launcher, f"{launcher.task}={task} is none of the {tasks} tasks of {launcher.tasks}"))
    return None, doubts


def _doubt(launcher: Launcher, why: str) -> str:
    return (
        f"{launcher.seen} is set, but {why}: running alone (--distributed off says so, on lets JAX look for the others)"
    )

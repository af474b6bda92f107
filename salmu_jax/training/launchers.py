"""What launchers of several processes leave in the environment, and what of it is to be believed.

Their variables outlive them: in the shell of an interactive allocation, in a terminal multiplexer that was started there, in
a container's image. A launcher counts only when it says how many tasks there are in this step and which one this is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple


class Launcher(NamedTuple):
    """Variables of a launcher: what shows it, how many tasks there are, which one this is."""

    seen: str
    tasks: str
    task: str
    method: str | None = None  # JAX's name of how it finds process 0
    count: Callable[[str], int] = int


class Launched(NamedTuple):
    """This process is ``task`` of ``tasks``, as ``variable`` says."""

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
    # In an interactive step SLURM_NTASKS is the job's, of which the shell is one task that the others do not run.
    Launcher("SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "slurm"),
    Launcher("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "ompi"),
    Launcher("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
)


def find(environment: Mapping[str, str]) -> tuple[Launched | None, list[str]]:
    """The launcher that started this process, or None if it is alone; and a line for each variable that is not believed."""
    doubts = []
    for launcher in LAUNCHERS:
        if not environment.get(launcher.seen):
            continue
        counts = launcher.count is not int  # hosts of a TPU: their names are the number
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

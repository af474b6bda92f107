"""Stages in a process of their own: ``python -m salmu_jax.stage_process``, started by ``Stages.apart``.

``bench`` trains the foundation models here, so that the accelerator is free for the methods' processes afterwards. The lock
on the work directory is held by the process that started this one.
"""

from __future__ import annotations

import sys
from typing import Any

from salmu_jax import processes


def work(told: dict[str, Any]) -> None:
    """Calls the methods of ``Stages`` that are named in ``told["calls"]``, each with its arguments."""
    sys.argv = told["argv"]  # part of a model's provenance
    from salmu_jax import host, interrupts
    from salmu_jax.config import from_json
    from salmu_jax.errors import disk_refusals
    from salmu_jax.stages import Stages
    from salmu_jax.training import distributed
    from salmu_jax.workspace import Workspace

    distributed.initialize(**told["distributed"])
    host.start_devices()
    workspace = Workspace(from_json(told["config"]))
    workspace.rerun, workspace.unfinished = told["rerun"], told["unfinished"]
    stages = Stages(workspace)
    with interrupts.orderly(), disk_refusals(workspace.root):
        for name, *arguments in told["calls"]:
            getattr(stages, name)(*arguments)


if __name__ == "__main__":
    processes.serve(work)

"""Runs stages in a separate process: ``python -m salmu_jax.stage_process``, started by ``Stages._apart``.

``bench`` trains the foundation models here, so that the accelerator is free for the methods' processes afterwards. The process
that started this one holds the lock on the work directory.
"""

from __future__ import annotations

import sys
from typing import Any

from salmu_jax.runtime import processes


def work(request: dict[str, Any]) -> None:
    """Calls the methods of ``Stages`` that are named in ``request["calls"]``, each with its arguments."""
    sys.argv = request["argv"]  # part of a model's provenance
    from salmu_jax.config import from_json
    from salmu_jax.runtime import distributed, host, interrupts
    from salmu_jax.runtime.errors import disk_refusals
    from salmu_jax.runtime.workspace import Workspace
    from salmu_jax.stages import Stages

    distributed.initialize(**request["distributed"])
    host.start_devices()
    workspace = Workspace(from_json(request["config"]))
    workspace.rerun, workspace.unfinished = request["rerun"], request["unfinished"]
    stages = Stages(workspace)
    with interrupts.orderly(), disk_refusals(workspace.root):
        for name, *arguments in request["calls"]:
            getattr(stages, name)(*arguments)


if __name__ == "__main__":
    processes.serve(work)

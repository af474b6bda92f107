"""Runs one trial of a sweep in a separate process: ``python -m salmu_jax.sweep_process``, started by ``sweep_stage.py``.

The process that started this one holds the locks on both work directories.
"""

from __future__ import annotations

import sys
from typing import Any

from salmu_jax.runtime import processes


def work(request: dict[str, Any]) -> str:
    """Makes and evaluates the trial ``request["run"]``; returns a line if it diverged."""
    sys.argv = request["argv"]  # part of a model's provenance
    from salmu_jax import sweep_stage

    return sweep_stage.work_on(request)


if __name__ == "__main__":
    processes.serve(work)

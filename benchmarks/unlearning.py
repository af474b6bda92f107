"""Steps of unlearning methods against PyTorch transcriptions on the same batch: ``python -m benchmarks.unlearning``.

Options are those of ``benchmarks.run``. In ``METHOD``, both sides compute the start model's embeddings of the batch in every
step. In ``METHOD_cached``, ours looks them up and PyTorch computes them, as its users do. In ``METHOD_both_cached``, both look
them up.
"""

from __future__ import annotations

import sys

from benchmarks import run


def main(arguments: list[str] | None = None) -> int:
    """Runs all tasks; the exit code is 1 if the two sides did not compute the same."""
    given = sys.argv[1:] if arguments is None else arguments
    return run.main(["--tasks", ",".join(run.UNLEARNING_TASKS), "--rounds", "7", "--warmup", "2", *given])


if __name__ == "__main__":
    sys.exit(main())

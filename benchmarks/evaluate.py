"""``salmu evaluate`` against a script of OpenCLIP and a DataLoader, from image files to embeddings.

``python -m benchmarks.evaluate`` takes some six minutes on two cores, with ViT-B/16. ``evaluate`` decodes on both sides; in
``evaluate_cached`` ours has the pixels in its cache, as from the second model on. Options are those of ``benchmarks.run``.
"""

from __future__ import annotations

import sys

from benchmarks import run


def main(arguments: list[str] | None = None) -> int:
    """Runs both tasks; the exit code is 1 if the two sides did not compute the same."""
    given = sys.argv[1:] if arguments is None else arguments
    return run.main(["--tasks", ",".join(run.EVALUATION_TASKS), "--rounds", "4", "--warmup", "1", *given])


if __name__ == "__main__":
    sys.exit(main())

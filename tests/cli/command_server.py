"""A process that has imported everything and forks a command line of its own for every request.

Importing JAX, TFDS and Orbax takes seconds; a fork of a process that has them takes none, and is otherwise a process like
any other: it has its own signals, limits, output and exit. No JAX backend exists before the fork.

Requests are JSON lines on stdin. ``{"arguments": [...], "out": path, "err": path, "file_limit": bytes or null}`` is
answered with the new process's id; ``{"wait": id}`` with its exit status, as ``subprocess`` gives it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys


def _imports() -> None:
    import salmu_jax.cli
    import salmu_jax.evaluation.loading
    import salmu_jax.evaluation.protocol
    import salmu_jax.report.page
    import salmu_jax.stages
    import salmu_jax.training.pretrain
    import salmu_jax.unlearning.loop  # noqa: F401
    from salmu_jax.runtime import identity

    for stage in ("generate", "build", "pretrain", "unlearn", "evaluate", "report"):
        identity.code(stage)  # remembered, as the imports are, while no source changes


def _become(request: dict) -> int:
    """Turns a fork into the command; returns its exit status."""
    os.setsid()  # a process group of its own: an interrupt of the group is what Ctrl-C is
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background inherits that it is ignored
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    if request["file_limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"],) * 2)
    from salmu_jax import cli

    sys.argv = ["salmu", *request["arguments"]]
    return cli.main()


def main() -> int:
    _imports()
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                return _become(request)
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

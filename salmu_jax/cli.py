"""The command line: ``salmu STAGE --config FILE [--config.FIELD=VALUE ...]``, and a few commands that are not stages.

Exit status: 0, done; 1, a bug of ours (with a traceback); 2, bad input (one line); 75, stopped by SIGTERM or SIGHUP (a
training has saved its state, and the same command resumes); 130, interrupted.

A run over several processes is the same command in each, see ``runtime/distributed.py``; only process 0 prints. The
sub-commands are a table in ``commands/``.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from salmu_jax.runtime import interrupts


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a sub-command and returns the exit status.

    Without ``arguments`` it takes those of the process, handles its signals and streams, and ends it. With ``arguments``,
    from a notebook or a test, it leaves all of this to its caller.
    """
    if arguments is None:
        interrupts.install()  # before anything that takes time to import
    from salmu_jax.runtime import console, host

    if arguments is None:
        console.prepare()
        host.prepare()
    try:
        line, status = _run(list(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as error:  # argparse, which has printed the help or the version
        if arguments is None and not console.flushed():
            error.code = error.code or 2
        raise
    if arguments is None:
        interrupts.claim_the_end()
    if line:
        console.complain(line)
    if arguments is None:
        # Threads of libraries may still be running, on a full disk for instance. An orderly exit would wait for them, and
        # print the error of each.
        interrupts.end_children()
        if not console.flushed():
            status = status or 2  # the output did not reach its reader completely
        if "jax" in sys.modules:
            from salmu_jax.runtime import distributed

            # A run that finished or was stopped ends in all processes, but a slow one may be a while behind.
            distributed.leave(60.0 if status in (0, interrupts.TERMINATED) else 5.0)
        os._exit(status)
    return status


def _run(arguments: list[str]) -> tuple[str, int]:
    """Runs a sub-command; returns its last line, for standard error, and the exit status."""
    from salmu_jax import commands
    from salmu_jax.runtime import distributed, host, processes
    from salmu_jax.runtime.errors import InputError, Preempted, describe_os_error

    try:
        options, overrides = commands.parse(arguments)
        host.quieten_libraries()
        with host.fixed_numerics():
            commands.COMMANDS[options.command].run(options, overrides)
        return "", 0
    except distributed.RemoteInputError:
        return "", 2
    except InputError as error:
        return f"salmu: {error}", 2
    except Preempted as error:
        return f"salmu: {error}" if distributed.is_main() else "", interrupts.TERMINATED
    except processes.ChildFailed as error:
        return f"salmu: {error}" if str(error) else "", 1
    except interrupts.Terminated as error:
        return f"\n{error}", interrupts.TERMINATED
    except KeyboardInterrupt:
        return f"\n{interrupts.line_of(2)}", interrupts.INTERRUPTED
    except OSError as error:
        if error.errno is None:
            raise
        return f"salmu: {describe_os_error(error)}", 2
    except Exception as error:
        if refusal := host.environment_refusal(error):
            return f"salmu: {refusal}", 2
        if distributed.process_count() == 1:
            raise
        return traceback.format_exc(), 1  # exiting abruptly tells the others; an orderly exit would wait for them


if __name__ == "__main__":
    sys.exit(main())

"""The command line: ``salmu STAGE --config FILE [--config.FIELD=VALUE ...]``, and a few commands that are no stages.

Exit status: 0, done; 1, a failure of ours (with a traceback); 2, bad input (one line); 75, stopped by SIGTERM with the state
saved (the same command goes on); 130, interrupted.

A run over several processes is the same command in each, see ``training/distributed.py``; process 0 alone prints. The
sub-commands themselves are a table in ``commands.py``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence

from salmu_jax import commands, host
from salmu_jax.errors import InputError, Preempted, describe_os_error
from salmu_jax.training import distributed


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a sub-command and returns the exit status. Without ``arguments`` it is the program: they are the process's."""
    if arguments is None:
        host.prepare()
    try:
        options, overrides = commands.parse(list(sys.argv[1:] if arguments is None else arguments))
        host.quieten_libraries()
        with host.fixed_numerics():
            commands.COMMANDS[options.command].run(options, overrides)
        line, status = "", 0
    except distributed.ToldInputError:
        line, status = "", 2
    except InputError as error:
        line, status = f"salmu: {error}", 2
    except Preempted as error:
        line, status = f"salmu: {error}" if distributed.is_main() else "", 75
    except KeyboardInterrupt:
        line, status = "\nsalmu: interrupted; the same command goes on from here", 130
    except BrokenPipeError:  # the reader of our output has gone (salmu ... | head): there is nobody to tell
        line, status = "", 141
    except OSError as error:
        if error.errno is None:
            raise
        line, status = f"salmu: {describe_os_error(error)}", 2
    except Exception as error:
        if refusal := host.environment_refusal(error):
            line, status = f"salmu: {refusal}", 2
        elif distributed.process_count() == 1:
            raise
        else:
            line, status = (
                traceback.format_exc(),
                1,
            )  # the others are told by our end; an orderly one would wait for them
    if line:
        print(line, file=sys.stderr, flush=True)
    if arguments is None:
        # Libraries' threads may still be at work, on a full disk for instance. An orderly end would wait for them, and
        # print what each of them meets.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        if "jax" in sys.modules:
            # Who is through, or was told to stop, is so with all others; but one that is slow may be a while behind.
            distributed.leave(60.0 if status in (0, 75) else 5.0)
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())

"""Errors that a user can fix, said in one line.

Every check of a user's input (configs, data, checkpoints, directories) raises :class:`InputError`; the command line prints it
as a single line and exits with status 2, without a traceback. Any other exception is a bug of ours and keeps its traceback.
:class:`Preempted` is neither: exit status 75, and the same command resumes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from salmu_jax.runtime.text import safe_text

_SHARED_MEMORY = (
    "/dev/shm: no space left in the memory that processes share; set data.workers=0, or give the container more"
    " (docker run --shm-size=8g)"
)
# What TFDS, numpy's writer and SQLite say about a full disk, without the system's error number or text.
_FULL = re.compile(r"not enough disk space|\d+ requested and \d+ written|disk is full", re.IGNORECASE)
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)


class InputError(ValueError):
    """Bad input: what is wrong, where (file, row, field), and what would be right. One line.

    Args:
      message: what is wrong and what would be right.
      where: the file, with the row and the field if there are any (``"data/forget-0.parquet row 3 field 'text'"``).

    Attributes:
      message, where: as given, for reports that show them apart; ``where`` is empty if it was not given.
    """

    def __init__(self, message: str, where: str | os.PathLike | None = None):
        self.message, self.where = message, "" if where is None else os.fspath(where)
        line = f"{os.fspath(where)}: {message}" if where is not None else message
        super().__init__(safe_text(" ".join(line.split()), limit=None))


class Diverged(InputError):
    """A training whose loss or parameters are no longer finite."""


class Preempted(Exception):
    """A signal has stopped a run, whose checkpoint is saved. One line.

    ``by`` names the signal, ``SIGTERM`` or ``SIGHUP``.
    """

    def __init__(self, label: str, step: int, where: str | os.PathLike, by: str = "SIGTERM"):
        self.step = step
        super().__init__(
            f"{label}: stopped by {by}; the state of step {step:,} is saved in {os.fspath(where)}, and the same command"
            " resumes from it"
        )


def disk_refusal(error: BaseException, directory: str | os.PathLike) -> InputError | None:
    """Returns the line for a full disk, or a limit on files, if one caused ``error`` below ``directory``; else None.

    Libraries that write (Orbax, TensorStore, array_record, TFDS, pyarrow, tarfile) wrap errors of the operating system in
    their own exceptions, some with nothing but its message.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        named = isinstance(link, OSError) and link.errno in _REFUSALS
        codes = [link.errno] if named else [code for code in _REFUSALS if os.strerror(code) in str(link)]
        codes = codes or [errno.ENOSPC] * bool(_FULL.search(str(link)))
        if codes and _in_shared_memory(link):
            return InputError(_SHARED_MEMORY)
        if codes:
            path = link.filename if named and isinstance(link.filename, str | os.PathLike) else directory
            return InputError(describe_os_error(OSError(codes[0], os.strerror(codes[0])), path))
        waiting += [link.__cause__, link.__context__, *getattr(link, "exceptions", ())]
    return None


@contextlib.contextmanager
def disk_refusals(directory: str | os.PathLike) -> Iterator[None]:
    """Turns whatever a library raises for a full disk, while it writes below ``directory``, into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        refusal = disk_refusal(error, directory)
        if refusal is None:
            raise
        raise refusal from error


def _in_shared_memory(error: BaseException) -> bool:
    """Returns whether an error is about shared memory, which in a container is a small disk of its own."""
    name = getattr(error, "filename", None)
    if isinstance(name, str) and name.startswith(("/dev/shm", "/psm_", "/mp-", "/wnsm_")):
        return True
    link, files = error.__traceback__, [str(error)]  # another process's traceback is text
    while link is not None:
        files.append(link.tb_frame.f_code.co_filename)
        link = link.tb_next
    modules = ("multiprocessing/shared_memory.py", "multiprocessing/synchronize.py", "multiprocessing/heap.py")
    return any(module in text for module in (*modules, "shared_memory_array.py") for text in files)


def describe_os_error(error: OSError, path: str | os.PathLike | None = None) -> str:
    """Returns one line for an operating system error in reading or writing ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT) and _in_shared_memory(error):
        return _SHARED_MEMORY
    where = os.fspath(path) if path is not None else (error.filename or "the output directory")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{where}: no space left on the disk; free some space, then run the same command again, or choose another"
            " directory"
        )
    if error.errno == errno.EFBIG:
        return (
            f"{where}: the file would exceed the file size limit (ulimit -f); raise it, then run the same command again"
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{where}: {error.strerror} at a time; raise the limit (ulimit -n), then run the same command again"
    if error.errno == errno.EROFS:
        return f"{where}: cannot be written ({error.strerror}); choose another directory"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}: not writable or readable by this user ({error.strerror}); choose another directory"
    if error.errno == errno.EISDIR:
        return f"{where}: is a directory, where a file is needed; move it away"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{where}: {error.strerror}; a directory is needed here, choose another path"
    if error.errno == errno.ENOENT:
        return f"{where}: no such file or directory"
    return f"{where}: {error.strerror or error}"

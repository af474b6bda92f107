"""Locks directories and files, on file systems with and without locks; a lock ends with the process that holds it.

Both the directory and a file ``.lock`` in it are locked: somebody may delete the file, and the next run would then lock a
new one. Where a directory cannot be locked (NFS), only the file is locked, and checked again afterwards. Where nothing can be
locked, a file that names the owning process replaces the lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from salmu_jax.runtime import console
from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.files import is_running

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class Busy(Exception):
    """Another process holds the lock; the message names it, if known."""


class Lock:
    """Locks a directory, or a file beside what it protects; ``with`` releases the lock after :meth:`take`.

    Args:
      path: the lock file, such as ``DIRECTORY/.lock``; its directory is created.
      directory: whether to lock the directory as well.
    """

    def __init__(self, path: Path, *, directory: bool = False):
        self._path, self._directory = path, directory
        self._held: list[int] = []
        self._owner: Path | None = None
        self._alone = False
        self._made: list[Path] = []  # the file and the directories that were not there before, the deepest first

    def take(self, shared: bool = False) -> bool:
        """Takes the lock without waiting; returns whether this process alone holds it.

        With ``shared``, several processes may hold it. Raises Busy if another process holds it exclusively, and InputError
        if the directory cannot be written.
        """
        self._made = [path for path in (self._path, *self._path.parents) if not os.path.lexists(path)]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._alone = self._take(shared)
            return self._alone
        except OSError as error:
            self.release()
            named = self._path if error.errno == errno.EISDIR else self._path.parent
            raise InputError(describe_os_error(error, named)) from error
        except Busy:
            self.release()
            raise

    def share(self) -> None:
        """Turns an exclusive lock into a shared one, where there are locks."""
        self._alone = False
        for descriptor in self._held if self._owner is None else ():
            fcntl.flock(descriptor, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def removed_if_refused(self, unless: Path) -> Iterator[None]:
        """Removes the lock file that :meth:`take` has made if the block raises InputError, and directories left empty.

        A file that another process may have locked too stays, and so does everything if ``unless`` is there by then.
        """
        try:
            yield
        except InputError:
            if self._alone and self._path in self._made and not os.path.lexists(unless):
                self._path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # not empty
                    for directory in self._made[1:]:
                        directory.rmdir()
            raise

    def release(self) -> None:
        """Releases the lock; so does the end of the process."""
        while self._held:
            os.close(self._held.pop())
        if self._owner is not None:
            self._owner.unlink(missing_ok=True)
            self._owner = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _take(self, shared: bool) -> bool:
        if self._directory:
            self._held.append(os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC))
            try:
                _flock(self._held[0], shared)
            except OSError:  # a file system that cannot lock directories
                os.close(self._held.pop())
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._held.append(descriptor)
            try:
                alone = all([_flock(held, shared) for held in self._held]) if shared else _flock(descriptor, False)
            except OSError as error:
                self._stand_in(error)
                return True
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                    return alone
            os.close(self._held.pop())  # it was removed in the meantime: the next process would lock another file

    def _stand_in(self, reason: OSError) -> None:
        """Creates the owner file, which only one process can; takes over that of a dead process on this machine."""
        path = self._path.with_name(f"{self._path.name}-owner")
        me = {"host": socket.gethostname(), "process": os.getpid()}
        for _ in range(2):
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                owner = _owner(path)
                if owner.get("host") != me["host"] or _runs(owner.get("process")):
                    raise Busy(
                        f"process {owner.get('process')} of {owner.get('host')}; if it has ended, remove {path}"
                    ) from None
                path.unlink(missing_ok=True)
                continue
            with os.fdopen(descriptor, "w") as handle:
                json.dump(me, handle)
            self._owner = path
            console.complain(
                f"salmu: {self._path.parent}: this file system has no locks ({reason.strerror}); {path.name} stands in for one"
            )
            return
        raise Busy("")


def _flock(descriptor: int, shared: bool) -> bool:
    """Locks a file; returns whether the lock is exclusive. Raises Busy, or OSError where locks do not work."""
    for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH) if shared else (fcntl.LOCK_EX,):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
        else:
            return kind == fcntl.LOCK_EX
    raise Busy("")


def _owner(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _runs(process: object) -> bool:
    return isinstance(process, int) and process != os.getpid() and is_running(process)

"""One run a directory, whatever becomes of the lock file, and on file systems that have no locks."""

import errno
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys

import pytest

from salmu_jax.runtime import locks
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.locks import Busy, Lock


def lock(root):
    return Lock(root / ".lock", directory=True)


def busy(root, shared=False):
    with lock(root) as other:
        try:
            other.take(shared)
        except Busy:
            return True
        return False


def test_a_lock_file_that_is_removed_lets_nobody_in(tmp_path):
    with lock(tmp_path) as held:
        assert held.take()
        assert busy(tmp_path)
        (tmp_path / ".lock").unlink()
        assert busy(tmp_path)
        assert busy(tmp_path, shared=True)
    assert not busy(tmp_path)


def test_a_directory_in_the_place_of_the_lock_file_is_named(tmp_path):
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(InputError, match=rf"^{tmp_path}/\.lock: is a directory, where a file is needed"),
        lock(tmp_path) as it,
    ):
        it.take()


def test_some_share_it_and_some_do_not(tmp_path):
    with lock(tmp_path) as first, lock(tmp_path) as second:
        assert first.take(shared=True)
        assert busy(tmp_path, shared=True)  # it has the directory to itself yet
        first.share()
        assert not second.take(shared=True)
        assert busy(tmp_path)


def test_a_lock_file_that_is_removed_between_opening_and_locking_does_not_count(tmp_path, monkeypatch):
    real, removed = fcntl.flock, []

    def flock(descriptor, kind):
        if not removed and not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            removed.append(1)
            (tmp_path / ".lock").unlink()
        return real(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    with Lock(tmp_path / ".lock") as held:
        assert held.take()
        assert removed
        assert (tmp_path / ".lock").exists()


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def no_locks(request, monkeypatch):
    """A file system without locks."""

    def flock(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)
    return os.strerror(request.param)


def test_a_file_system_without_locks(tmp_path, no_locks, monkeypatch, capsys):
    me = os.getpid()
    with lock(tmp_path) as held:
        assert held.take()
        assert capsys.readouterr().err == (
            f"salmu: {tmp_path}: this file system has no locks ({no_locks}); .lock-owner stands in for one\n"
        )
        with monkeypatch.context() as patch:
            patch.setattr(locks.os, "getpid", lambda: 1)  # another process
            with pytest.raises(Busy, match=rf"process {me} of .*; if it has ended, remove"):
                lock(tmp_path).take()
    assert not (tmp_path / ".lock-owner").exists()


def test_what_a_process_left_that_has_ended_is_taken_over(tmp_path, no_locks, capsys):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    owner = tmp_path / ".lock-owner"
    owner.write_text(json.dumps({"host": socket.gethostname(), "process": ended.pid}))
    with lock(tmp_path) as held:
        assert held.take()
        assert json.loads(owner.read_text())["process"] == os.getpid()
    owner.write_text(json.dumps({"host": "another", "process": ended.pid}))
    with pytest.raises(Busy, match=f"process {ended.pid} of another; if it has ended, remove {owner}"):
        lock(tmp_path).take()
    owner.write_text("{")
    with pytest.raises(Busy, match="remove"):
        lock(tmp_path).take()
    assert owner.read_text() == "{"


def test_a_directory_that_cannot_be_locked_has_its_file(tmp_path, monkeypatch):
    """NFS locks no directory that is open for reading."""
    real = fcntl.flock

    def flock(descriptor, kind):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return real(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock(tmp_path) as held:
        assert held.take()
        assert busy(tmp_path)
    with lock(tmp_path) as first, lock(tmp_path) as second:
        assert first.take(shared=True)
        first.share()
        assert not second.take(shared=True)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a directory is needed here"):
        lock(tmp_path / "file").take()
    with pytest.raises(InputError, match=r"/proc/nope: "):
        lock(locks.Path("/proc/nope")).take()


def test_a_refusal_removes_the_lock_file_that_was_made_for_it(tmp_path):
    place = tmp_path / "above" / "new"

    def refused(share=False):
        with lock(place) as held:
            held.take(shared=share)
            if share:
                held.share()
            with pytest.raises(InputError, match="no"), held.removed_if_refused(unless=place / "plan"):
                raise InputError("no")

    refused()
    assert not list(tmp_path.iterdir())
    refused(share=True)  # another process may hold it, too
    assert (place / ".lock").exists()
    refused()  # nor does a file go that was there before
    assert (place / ".lock").exists()
    (place / ".lock").unlink()
    (place / "plan").touch()
    refused()
    assert (place / ".lock").exists()

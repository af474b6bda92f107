"""Hides directories in the namespaces that ``unshare`` has made, and starts a command: see ``sandbox.py``.

    python -m salmu_jax.unlearning.sandbox_entry '[["hide", "/home/me"], ["write", "/data/.salmu-5f1c"]]' COMMAND ...

Then it gives up its capabilities, so that the command cannot take the mounts off again.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

# Of <sys/mount.h> and <sys/prctl.h>.
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC = 1, 2, 4, 8, 32, 4096, 16384
_NOATIME, _NODIRATIME, _RELATIME = 1024, 2048, 1 << 21
_CAPBSET_DROP, _SET_NO_NEW_PRIVS = 24, 38
_KEPT = {  # flags that a mount must keep when it is mounted anew in other namespaces
    os.ST_NOSUID: _NOSUID,
    os.ST_NODEV: _NODEV,
    os.ST_NOEXEC: _NOEXEC,
    os.ST_NOATIME: _NOATIME,
    os.ST_NODIRATIME: _NODIRATIME,
    os.ST_RELATIME: _RELATIME,
}
_SYSTEM = ("/proc", "/dev", "/sys")  # left as they are

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> None:
    """Mounts, gives up all capabilities, and becomes the command."""
    place = os.getcwd()
    mounts = [(kind, path) for kind, path in json.loads(arguments[0])]
    opened = {path: os.open(path, os.O_PATH) for kind, path in mounts if kind != "hide"}  # before they are hidden
    for kind, path in mounts:
        os.makedirs(path, exist_ok=True)  # in what hides it
        if kind == "hide":
            _mount("tmpfs", path, "tmpfs", _NOSUID | _NODEV)
        else:
            _mount(f"/proc/self/fd/{opened[path]}", path, None, _BIND | _REC)
    for descriptor in opened.values():
        os.close(descriptor)
    hidden = [f"{path}/" for kind, path in mounts if kind == "hide"]
    writable = {path for kind, path in mounts if kind != "show"}
    shown = {path for kind, path in mounts if kind == "show"}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        points = [line.split(" ")[4].encode().decode("unicode_escape") for line in table]
    for point in points:
        covered = point not in shown and point.startswith(tuple(hidden))
        if point not in writable and not covered and not point.startswith(_SYSTEM):
            _mount(None, point, None, _REMOUNT | _BIND | _RDONLY | _flags(point))
    os.chdir(place)
    _give_up_capabilities()
    os.execvp(arguments[1], arguments[1:])


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    if _libc.mount(*words, ctypes.c_ulong(flags), None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _flags(point: str) -> int:
    have = os.statvfs(point).f_flag
    return sum(flag for seen, flag in _KEPT.items() if have & seen)


def _give_up_capabilities() -> None:
    """Lets no program that is started from here on have a capability, though its user is called root here."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as last:
        for capability in range(int(last.read()) + 1):
            if _libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), "prctl")
    _libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])

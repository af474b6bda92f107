"""Makes sandboxes: a method's process sees its cell, Python and the system, and no network.

``bwrap`` (bubblewrap) or else ``unshare`` (util-linux) starts the process in namespaces of its own: users, mounts, processes,
network. The work directory, the world, the data sets, the home directory and temporary directories are hidden.
Everything but the cell is read-only, the package's own files included. The rest of the file system is not hidden.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import ROOT
from salmu_jax.runtime.messages import listed

_ENTER = "salmu_jax.unlearning.sandbox_entry"
_PATIENCE = 60.0  # seconds for a sandbox to start

HIDE, SHOW, WRITE = "hide", "show", "write"


class Sandbox(NamedTuple):
    """A command that starts another one in a sandbox, and the name of the program that makes it."""

    program: str
    prefix: tuple[str, ...]


def find(cell: Path, hidden: Iterable[str | os.PathLike]) -> Sandbox:
    """Returns a sandbox around ``cell`` that works here. Raises InputError if there is none, with the reasons."""
    reasons = []
    mounts = _mounts(cell, hidden)
    for sandbox in (_bwrap(mounts, cell), _unshare(mounts)):
        if shutil.which(sandbox.prefix[0]) is None:
            reasons.append(f"{sandbox.program} is not installed")
            continue
        try:
            ended = subprocess.run(
                [*sandbox.prefix, sys.executable, "-c", ""],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PATIENCE,
                check=False,
                cwd=cell,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(f"{sandbox.program}: {error}")
            continue
        if ended.returncode == 0:
            return sandbox
        last = (ended.stderr.strip().splitlines() or [f"status {ended.returncode}"])[-1]
        reasons.append(f"{sandbox.program}: {last[:200]}")
    raise InputError(
        f"no sandbox works here ({listed(reasons, separator='; ')}); run methods in a container that holds no work directory,"
        " or set it to off",
        "unlearn.sandbox",
    )


def _mounts(cell: Path, hidden: Iterable[str | os.PathLike]) -> list[tuple[str, str]]:
    """Returns what to hide and what to show, each with its real path, a directory before what lies in it."""
    temporary = [tempfile.gettempdir(), os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp"]
    kinds = {os.path.realpath(path): HIDE for path in [*hidden, Path.home(), *temporary] if path}
    gone = tuple(f"{path}/" for path in kinds)
    needed = [
        os.path.abspath(path) for path in (sys.prefix, sys.base_prefix, ROOT / "salmu_jax", ROOT / "data_pipelines")
    ]
    # A link in what is hidden, such as a virtual environment's, is gone, too.
    kinds |= {path: SHOW for path in needed if path.startswith(gone)}
    kinds |= {os.path.realpath(path): SHOW for path in needed}
    kinds |= {os.path.realpath(cell): WRITE}
    there = [(path, kind) for path, kind in kinds.items() if os.path.isdir(path) and path != "/"]
    return [(kind, path) for path, kind in sorted(there, key=lambda one: (one[0].count("/"), one[0]))]


def _bwrap(mounts: Iterable[tuple[str, str]], cell: Path) -> Sandbox:
    options = {HIDE: lambda path: ["--tmpfs", path], SHOW: lambda path: ["--ro-bind", path, path]}
    options[WRITE] = lambda path: ["--bind", path, path]
    prefix = ["bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    prefix += ["--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc"]
    for kind, path in mounts:
        prefix += options[kind](path)
    return Sandbox("bwrap", (*prefix, "--chdir", os.path.realpath(cell)))


def _unshare(mounts: Iterable[tuple[str, str]]) -> Sandbox:
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    prefix += ["--net", "--ipc", "--uts", sys.executable, "-P", "-m", _ENTER, json.dumps(list(mounts))]
    return Sandbox("unshare", tuple(prefix))

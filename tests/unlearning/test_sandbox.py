"""A sandbox hides what no method is to find, gives it no network, and lets it write its cell alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import ROOT
from salmu_jax.unlearning import sandbox

# What a program in a sandbox can do, as JSON. It tries to take off what hides the work directory.
LOOK = """
import ctypes, json, os, socket, sys

def can(work):
    try:
        work()
    except OSError:
        return False
    return True

def connect():
    socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=5).close()

secret, package = os.path.join(sys.argv[1], "secret"), sys.argv[3]
libc = ctypes.CDLL(None)
print(json.dumps({
    "unmounted": libc.umount2(os.fsencode(sys.argv[1]), 2) == 0,
    "secret": can(lambda: open(secret).close()),
    "view": can(lambda: open("view").close()),
    "cell": can(lambda: open("made", "w").close()),
    "package": can(lambda: open(os.path.join(package, "made"), "w").close()),
    "network": can(connect),
    "processes": sum(name.isdecimal() for name in os.listdir("/proc")),
    "imported": can(lambda: __import__("salmu_jax.runtime.errors")),
}))
"""


# Whether the programs work here at all: they may not be installed, and containers may forbid namespaces.
WORKS = {
    "bwrap": ["sh", "-c", "bwrap --unshare-all --ro-bind / / --proc /proc true"],
    "unshare": ["sh", "-c", "unshare --user --map-root-user --mount --pid --fork --mount-proc --net true"],
}


@pytest.fixture
def directories(tmp_path):
    """``(cell, work directory)``, one beside the other."""
    cell, work = tmp_path / "cell", tmp_path / "work"
    cell.mkdir()
    work.mkdir()
    (cell / "view").write_text("a row")
    (work / "secret").write_text("a holdout")
    return cell, work


@pytest.mark.parametrize("program", ["bwrap", "unshare"])
def test_a_program_in_a_sandbox_sees_its_cell_and_no_more(directories, program, monkeypatch):
    cell, work = directories
    monkeypatch.chdir(cell)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None if name != program else f"/usr/bin/{name}")
    if subprocess.run(WORKS[program], capture_output=True, check=False).returncode:
        with pytest.raises(InputError, match=rf"^unlearn.sandbox: no sandbox works here \(.*{program}"):
            sandbox.find(cell, [work])
        return
    made = sandbox.find(cell, [work])
    assert made.program == program
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [*made.prefix, sys.executable, "-P", "-c", LOOK, str(work), str(server.getsockname()[1])]
        ended = subprocess.run([*command, str(ROOT / "salmu_jax")], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout)
    assert seen.pop("processes") <= 3
    wanted = {"view", "cell", "imported"}
    assert {name for name, could in seen.items() if could} == wanted
    assert (cell / "made").exists()
    assert not (ROOT / "salmu_jax" / "made").exists()


def test_without_a_program_that_works_it_is_refused_in_one_line(directories, monkeypatch):
    cell, work = directories
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError) as caught:
        sandbox.find(cell, [work])
    assert str(caught.value) == (
        "unlearn.sandbox: no sandbox works here (bwrap is not installed; unshare is not installed); run methods in a"
        " container that holds no work directory, or set it to off"
    )


def test_what_is_needed_is_shown_in_what_is_hidden(directories, monkeypatch, tmp_path):
    cell, work = directories
    monkeypatch.setattr(sandbox.Path, "home", lambda: ROOT)  # as if the package lay in it
    mounts = sandbox._mounts(cell, [work, work / "absent", "/"])
    places = [path for _, path in mounts]
    assert places == sorted(places, key=lambda path: path.count("/"))
    assert ("hide", os.path.realpath(ROOT)) in mounts
    assert ("show", os.path.realpath(ROOT / "salmu_jax")) in mounts
    assert ("hide", os.path.realpath(work)) in mounts
    assert mounts.index(("write", os.path.realpath(cell))) > mounts.index(("hide", "/tmp"))
    assert "/" not in places
    assert str(work / "absent") not in places


def test_a_link_to_python_in_what_is_hidden_is_shown(directories, monkeypatch, tmp_path):
    cell, _ = directories
    (tmp_path / "environment").symlink_to(sys.prefix)
    monkeypatch.setattr(sandbox.sys, "prefix", str(tmp_path / "environment"))
    mounts = sandbox._mounts(cell, [tmp_path])
    assert ("show", str(tmp_path / "environment")) in mounts
    assert ("show", os.path.realpath(tmp_path / "environment")) in mounts

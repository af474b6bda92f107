"""A build that the system kills in the midst of a shard goes on where it was."""

from __future__ import annotations

import signal
import subprocess
import sys

from web_pairs import PLANTED, tree, write_source

CHILD = """
import os, signal, sys
from data_pipelines.retain import build_retain_pairs, shard
from data_pipelines.retain.work import make_part

left = [int(sys.argv[3])]
write = shard.RecordWriter.write

def fatal(writer, record):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(writer, record)

shard.RecordWriter.write = fatal
build_retain_pairs(sys.argv[1], sys.argv[2], max_bad_share=0.5, run=lambda tasks: [make_part(task) for task in tasks])
"""


def run(source, out, writes):
    command = [sys.executable, "-c", CHILD, str(source), str(out), str(writes)]
    return subprocess.run(command, capture_output=True, text=True)


def test_killed_within_a_shard_and_restarted_no_byte_differs(tmp_path):
    source, out = write_source(tmp_path / "source", PLANTED), tmp_path / "out"
    killed = run(source, out, writes=9)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list((out / "retain_pairs/1.0.0").glob("*.partial-*"))
    assert [path.name for path in (out / "retain_pairs-records").iterdir()] == ["00000.json"]
    ended = run(source, out, writes=-1)
    assert ended.returncode == 0, ended.stderr
    assert run(source, tmp_path / "undisturbed", writes=-1).returncode == 0
    assert tree(out) == tree(tmp_path / "undisturbed")

"""Standard streams that are closed, full, left by their reader, or ASCII: a run does not fail for what it says."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from salmu_jax.runtime import console
from salmu_jax.runtime.errors import InputError

PROGRAM = """
import os, sys
from salmu_jax.runtime import console
console.prepare()
for place in range(3):
    console.say(sys.argv[1])
print("progress", file=sys.stderr)
data = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
os.write(data, b"data")
os._exit(0 if console.flushed() else 2)
"""


def run(redirection, text, path, **environment):
    line = f'"$0" -c "$1" "$2" "$3" {redirection}'
    command = ["bash", "-c", line, sys.executable, PROGRAM, text, str(path)]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=False)


@pytest.mark.parametrize(
    ("redirection", "status", "out", "err"),
    [
        ("", 0, "leaderboard\n" * 3, "progress\n"),
        (">&-", 0, "", "progress\n"),
        ("2>&-", 0, "leaderboard\n" * 3, ""),
        (">&- 2>&- <&-", 0, "", ""),
        (
            "> /dev/full",
            2,
            "",
            "salmu: standard output: No space left on device; the run continues, and its output files are not affected\n"
            "progress\n",
        ),
        ("2> /dev/full", 0, "leaderboard\n" * 3, ""),
        ("> /dev/full 2> /dev/full", 2, "", ""),
    ],
)
def test_a_run_goes_on_whatever_becomes_of_what_it_says(redirection, status, out, err, tmp_path):
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    ended = run(redirection, "leaderboard", tmp_path / "data")
    assert (ended.returncode, ended.stdout.decode(), ended.stderr.decode()) == (status, out, err)
    assert (tmp_path / "data").read_bytes() == b"data"


def test_a_pipe_whose_reader_has_gone(tmp_path):
    command = f'"{sys.executable}" -c "$0" "$1" "$2" | true; echo "${{PIPESTATUS[0]}}"'
    ended = subprocess.run(["bash", "-c", command, PROGRAM, "x" * 100_000, str(tmp_path / "data")], capture_output=True)
    assert (ended.stdout, ended.stderr) == (b"0\n", b"progress\n")
    assert (tmp_path / "data").read_bytes() == b"data"


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("ascii", rb"0.5 +- 0.1 . caf\xe9 \u65e5"),
        ("latin-1", b"0.5 \xb1 0.1 \xb7 caf\xe9 \\u65e5"),
        ("utf-8", "0.5 ± 0.1 · café 日".encode()),
    ],
)
def test_what_a_stream_cannot_encode_is_spelt(encoding, said, tmp_path):
    ended = run("", "0.5 ± 0.1 · café 日", tmp_path / "data", PYTHONIOENCODING=encoding)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [said] * 3


def test_a_notebook_or_a_test_has_streams_of_its_own(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    console.say("caf\udce9 ±", stream)  # the name of a directory in Latin-1
    assert stream.buffer.getvalue() == b"caf\\udce9 +-\n"
    monkeypatch.setattr(sys, "stdout", None)
    console.say("nobody")
    assert console.flushed()
    monkeypatch.setattr(sys, "stderr", None)
    console.complain("nobody")


def test_a_message_does_nothing_to_the_terminal():
    hostile = Path("a\x1b[2Jb\u202ec\udce9\x07")
    assert str(InputError("is damaged", hostile)) == "a\\x1b[2Jb\\u202ec\\udce9\\x07: is damaged"

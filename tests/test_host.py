"""What there is to compute with, and memory that a process keeps."""

import subprocess
import sys

import pytest

from salmu_jax import cli, host


@pytest.mark.parametrize(
    ("platforms", "files", "expected"),
    [
        ("", (), True),
        ("cpu", ("/dev/nvidia0",), True),
        ("cuda,cpu", (), False),
        ("", ("/dev/nvidia0",), False),
        ("", ("/dev/kfd",), False),
        ("", ("/dev/accel0",), False),
        ("", ("/dev/vfio/0",), False),
    ],
)
def test_jax_computes_on_what_it_is_told_or_what_is_there(platforms, files, expected, monkeypatch):
    patterns = {"/dev/nvidia[0-9]*": "/dev/nvidia0", "/dev/accel*": "/dev/accel0", "/dev/vfio/*": "/dev/vfio/0"}
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(
        host.glob, "glob", lambda pattern: [file for file in files if file == patterns.get(pattern, pattern)]
    )
    assert host.computes_on_cpu() is expected


# 256 MiB of temporaries a call. The first calls may grow the heap; from then on nothing has to be mapped again.
CALLS = """
import resource, sys
from salmu_jax import host
kept = host.keep_freed_memory() if sys.argv[1] == "keep" else None
import jax, jax.numpy as jnp
call = jax.jit(lambda x, y: (x @ y) @ y.T)
left, right = jnp.ones((16_384, 64)), jnp.ones((64, 4_096))
faults = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call(left, right).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, faults[-1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="keeping freed memory is of Linux's C library")
def test_a_process_that_keeps_its_memory_maps_none_for_the_next_step():
    def run(how):
        said = subprocess.check_output([sys.executable, "-c", CALLS, how], text=True).split()
        return said[-2], int(said[-1])

    (_, every_time), (kept, once_kept) = run("leave"), run("keep")
    assert kept == "True"
    assert 20 * once_kept < every_time  # 65,536 pages of 4 KiB, or 128 of 2 MiB


def test_the_program_keeps_its_memory_and_a_call_of_main_does_not(monkeypatch):
    calls = []
    monkeypatch.setattr(host, "keep_freed_memory", lambda: calls.append(1))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert calls == []
    monkeypatch.setattr(sys, "argv", ["salmu", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    assert calls == [1]

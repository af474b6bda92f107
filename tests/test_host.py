"""What there is to compute with, and memory that a process keeps."""

import os
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


# 256 MiB of temporaries a call. The first calls may grow the heap (how many is left to which thread frees first: four
# were seen); from then on nothing has to be mapped again.
CALLS = """
import resource, sys
from salmu_jax import host
kept = host.keep_freed_memory() if sys.argv[1] == "keep" else None
import jax, jax.numpy as jnp
call = jax.jit(lambda x, y: (x @ y) @ y.T)
left, right = jnp.ones((16_384, 64)), jnp.ones((64, 4_096))
faults = []
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call(left, right).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, max(faults[-4:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="keeping freed memory is of Linux's C library")
def test_a_process_that_keeps_its_memory_maps_none_for_the_next_step():
    def run(how):
        said = subprocess.check_output([sys.executable, "-c", CALLS, how], text=True).split()
        return said[-2], int(said[-1])

    (_, every_time), (kept, once_kept) = run("leave"), run("keep")
    assert kept == "True"
    assert 20 * once_kept < every_time  # 65,536 pages of 4 KiB, or 128 of 2 MiB


def test_the_program_prepares_its_process_and_a_call_of_main_does_not(monkeypatch):
    calls = []
    monkeypatch.setattr(host, "prepare", lambda: calls.append(1))
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert calls == []
    monkeypatch.setattr(sys, "argv", ["salmu", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    assert calls == [1]


@pytest.mark.parametrize(
    ("platforms", "gpus", "given", "kept", "flags"),
    [
        ("cpu", "cuda", None, True, None),
        ("", "", None, True, None),
        ("", "cuda", None, False, "--xla_gpu_enable_triton_gemm=false"),
        ("cuda", "cuda", "--xla_dump_to=d", False, "--xla_dump_to=d --xla_gpu_enable_triton_gemm=false"),
        ("cuda", "cuda", "--xla_gpu_enable_triton_gemm=true", False, "--xla_gpu_enable_triton_gemm=true"),
        ("tpu", "", None, False, None),
    ],
)
def test_a_process_is_prepared_for_its_device(platforms, gpus, given, kept, flags, monkeypatch):
    calls = []
    monkeypatch.setattr(host, "keep_freed_memory", lambda: calls.append(1))
    monkeypatch.setattr(host, "gpu_platform", lambda: gpus)
    monkeypatch.setattr(host, "has_tpu", lambda: False)
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if given is not None:
        monkeypatch.setenv("XLA_FLAGS", given)
    host.prepare()
    assert (bool(calls), os.environ.get("XLA_FLAGS")) == (kept, flags)


def test_xla_knows_the_flag():
    """It ends a process that is given another."""
    code = "import jax; jax.devices()"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{host.GPU_PRODUCTS_FLAG}=false"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode == 0
    environment["XLA_FLAGS"] = "--xla_gpu_of_no_xla=false"
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode != 0

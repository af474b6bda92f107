"""What there is to compute with, and memory that a process keeps."""

import os
import re
import resource
import subprocess
import sys
import textwrap
from multiprocessing import shared_memory

import jax
import pytest

from salmu_jax import cli
from salmu_jax.runtime import console, host, interrupts
from salmu_jax.runtime.errors import InputError


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


# 256 MiB of temporaries a call. Now and then a call grows the heap, as threads free in any order; most map nothing again.
CALLS = """
import resource, sys
from salmu_jax.runtime import host
kept = host.keep_freed_memory() if sys.argv[1] == "keep" else None
import jax, jax.numpy as jnp
call = jax.jit(lambda x, y: (x @ y) @ y.T)
left, right = jnp.ones((16_384, 64)), jnp.ones((64, 4_096))
faults = []
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call(left, right).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, sorted(faults)[len(faults) // 4])
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
    monkeypatch.setattr(host, "prepare", lambda: calls.append("memory"))
    monkeypatch.setattr(interrupts, "install", lambda: calls.append("signals"))
    monkeypatch.setattr(console, "prepare", lambda: calls.append("streams"))
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert calls == []
    monkeypatch.setattr(sys, "argv", ["salmu", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    assert calls == ["signals", "streams", "memory"]


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
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{host.GPU_MATMUL_FLAG}=false"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode == 0
    environment["XLA_FLAGS"] = "--xla_gpu_of_no_xla=false"
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode != 0


# The environment as an input ------------------------------------------------------------------------------------------

HOSTILE = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_DISABLE_JIT": "1",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_SOFTMAX_CUSTOM_JVP": "1",
    "JAX_A_SETTING_OF_NEXT_YEAR": "1",
    "FLAX_FIX_RNG_SEPARATOR": "1",
    "NVIDIA_TF32_OVERRIDE": "1",
    "XLA_FLAGS": "--xla_cpu_enable_fast_math=true --xla_force_host_platform_device_count=2",
}
NUMBERS = """
import jax, jax.numpy as jnp, os
print(sorted(name for name in os.environ if name.startswith(("JAX_", "FLAX_", "NVIDIA_TF32"))))
print(os.environ["XLA_FLAGS"], jax.config.jax_numpy_dtype_promotion)
key = jax.random.key(3)
print(jax.random.key_impl(key), jax.random.normal(key, (5,)).tolist(), jnp.asarray(1.5).dtype, jnp.arange(3).dtype)
"""


def test_figures_do_not_depend_on_the_environment(monkeypatch):
    """The same numbers from a process that starts under hostile variables as from this one, which has none."""
    code = (
        f"from salmu_jax.runtime import host\nwith host.fixed_numerics():\n{NUMBERS.replace(chr(10), chr(10) + '    ')}"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {**HOSTILE, "JAX_PLATFORMS": "cpu"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    heard, settings, numbers = said.stdout.splitlines()
    assert heard == "['JAX_PLATFORMS']"
    assert settings == "--xla_force_host_platform_device_count=2 standard"
    key = jax.random.key(3)
    assert numbers == f"threefry2x32 {jax.random.normal(key, (5,)).tolist()} float32 int32"
    assert said.stderr.splitlines() == [
        "salmu: XLA_FLAGS: --xla_cpu_enable_fast_math=true is left out: figures would depend on it"
    ]


def test_a_notebook_gets_its_settings_back(monkeypatch):
    monkeypatch.setenv("FLAX_FIX_RNG_SEPARATOR", "1")
    before = dict(os.environ)
    jax.config.update("jax_enable_x64", True)
    try:
        assert host.numeric_environment() == {"jax_enable_x64": "True"}
        with host.fixed_numerics():
            assert not jax.config.jax_enable_x64
            assert host.numeric_environment() == {}
            assert "FLAX_FIX_RNG_SEPARATOR" not in os.environ
        assert jax.config.jax_enable_x64
        assert dict(os.environ) == before
    finally:
        jax.config.update("jax_enable_x64", False)


def test_what_cannot_be_set_is_recorded(monkeypatch):
    monkeypatch.setenv(
        "XLA_FLAGS", "--xla_dump_to=d --xla_gpu_deterministic_ops=true --xla_allow_excess_precision=false"
    )
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_enable_bf16=true")
    assert host.numeric_environment() == {
        "XLA_FLAGS": "--xla_allow_excess_precision=false --xla_gpu_deterministic_ops=true",
        "LIBTPU_INIT_ARGS": "--xla_tpu_enable_bf16=true",
    }
    monkeypatch.delenv("LIBTPU_INIT_ARGS")
    monkeypatch.setenv("XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {host.GPU_MATMUL_FLAG}=false")
    assert host.numeric_environment() == {}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--xla_of_no_xla=1", "--xla_of_no_xla=1"),
        ("--xla_tpu_enable_latency_hiding_scheduler=true", "--xla_tpu_enable_latency_hiding_scheduler"),
        ("/no/such/file", "nor a file of them"),
        ("--xla_force_host_platform_device_count=-2", "count=-2: a number of devices is needed"),
        ("--xla_force_host_platform_device_count=0", "count=0: a number of devices is needed"),
    ],
)
def test_flags_for_which_xla_ends_the_process_are_one_line(flags, said, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.delitem(sys.modules, "jax")
    with pytest.raises(InputError, match=f"XLA_FLAGS: .*{said}"):
        host.check_xla_flags()


def test_flags_that_xla_knows_are_not_tried(monkeypatch, tmp_path):
    monkeypatch.setattr(host.subprocess, "run", lambda *_, **__: pytest.fail("a second process is not needed"))
    monkeypatch.delitem(sys.modules, "jax")
    flags = "--xla_backend_optimization_level=0 --xla_cpu_multi_thread_eigen --xla_gpu_deterministic_ops=true"
    (tmp_path / "flags.txt").write_text(flags.replace(" ", "\n"))
    for value in ("", flags, str(tmp_path / "flags.txt")):
        monkeypatch.setenv("XLA_FLAGS", value)
        host.check_xla_flags()


def fail_in(path, message):
    """An exception whose innermost frame lies in a file of JAX."""
    scope = {}
    exec(
        compile("def fail(message):\n    raise RuntimeError(message)", f"/site-packages/jax/_src/{path}", "exec"), scope
    )
    with pytest.raises(RuntimeError) as caught:
        scope["fail"](message)
    return caught.value


@pytest.mark.parametrize(
    ("variables", "path", "message", "said"),
    [
        ({"JAX_PLATFORMS": "cuda"}, "xla_bridge.py", "", "JAX_PLATFORMS: is 'cuda', which is not available here"),
        (
            {"JAX_PLATFORM_NAME": "rocm"},
            "xla_bridge.py",
            "Backend 'rocm' failed to initialize",
            "JAX_PLATFORM_NAME: is 'rocm'.*failed to initialize",
        ),
        (
            {"JAX_ENABLE_CHECKS": "maybe"},
            "config.py",
            "invalid truth value 'maybe' for environment 'JAX_ENABLE_CHECKS'",
            "JAX_ENABLE_CHECKS: is 'maybe'",
        ),
        (
            {"JAX_NUM_CPU_DEVICES": "0", "JAX_PLATFORMS": "cpu"},
            "xla_bridge.py",
            "Unable to initialize backend 'cpu': process_index",
            "JAX_NUM_CPU_DEVICES: is '0'",
        ),
    ],
)
def test_a_device_or_a_setting_of_another_machine_is_one_line(variables, path, message, said, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert re.match(said, str(host.environment_refusal(fail_in(path, message))))
    assert host.environment_refusal(RuntimeError("something else")) is None


def test_a_tpu_that_is_not_here_is_not_looked_for(monkeypatch):
    monkeypatch.setattr(host, "has_tpu", lambda: False)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu,cpu")
    with pytest.raises(InputError, match="JAX_PLATFORMS: is set to tpu, and there is none here"):
        host.start_devices()


# Systems that are not Linux -------------------------------------------------------------------------------------------


def test_cpus_are_counted_where_the_system_has_no_affinity(monkeypatch):
    if hasattr(os, "sched_getaffinity"):
        assert host.cpu_count() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert host.cpu_count() == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert host.cpu_count() == 1


@pytest.mark.parametrize(
    ("wanted", "cpus", "pairs", "options", "free", "found"),
    [
        (-1, 2, 10**6, {}, 2**40, 0),  # they would take the CPUs from the training
        (-1, 16, 10**6, {}, 2**40, 15),
        (-1, 64, 10**6, {}, 2**40, 16),
        (-1, 16, 5_000, {}, 2**40, 0),  # starting them takes longer than decoding
        (-1, 16, 10**6, {"cached": True}, 2**40, 0),
        (-1, 16, 10**6, {"streams": 2}, 2**40, 7),
        (-1, 16, 10**6, {}, 64 * 2**20, 2),  # a container's /dev/shm
        (-1, 16, 10**6, {}, 2**20, 0),
        (-1, 16, 10**6, {"streams": 2}, 256 * 2**20, 4),  # three batches of 10 MiB a worker and stream
        (0, 16, 10**6, {}, 0, 0),
        (5, 2, 100, {}, 2**40, 5),
    ],
)
def test_workers_decode_where_they_pay(wanted, cpus, pairs, options, free, found, monkeypatch):
    monkeypatch.setattr(host, "cpu_count", lambda: cpus)
    monkeypatch.setattr(host, "_free_shared_memory", lambda: free)
    assert host.decoding_workers(wanted, pairs, 10 * 2**20, **options) == found


def test_workers_that_do_not_fit_into_shared_memory_are_refused_before_they_are_killed(monkeypatch):
    monkeypatch.setattr(host, "_free_shared_memory", lambda: 64 * 2**20)
    with pytest.raises(InputError, match=r"data.workers: /dev/shm has 64 MiB free.*4 workers take 120 MiB.*--shm-size"):
        host.decoding_workers(4, 10**6, 10 * 2**20)


def test_shared_memory_is_no_file_system_everywhere(monkeypatch):
    def fail(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(host.shutil, "disk_usage", fail)
    assert host.decoding_workers(8, 10**6, 10**9) == 8


def test_what_orbax_logs_of_a_failed_save_is_left_out_whatever_was_imported_first():
    code = """
    from salmu_jax.runtime import host
    host.quieten_libraries()
    import logging, absl.logging
    exec(compile("def fail():\\n    absl.logging.error('of a thread')", "/site-packages/orbax/checkpoint/future.py", "exec"))
    fail()
    absl.logging.error("of others")
    """
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "of others" in said.stderr
    assert "of a thread" not in said.stderr


def test_memory_that_workers_leave_is_removed_without_a_page_of_warnings():
    code = """
    import os
    from salmu_jax.runtime import host
    host.quieten_libraries()
    from multiprocessing import shared_memory
    print(shared_memory.SharedMemory(create=True, size=100).name, flush=True)
    os._exit(0)
    """
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert said.stderr == ""
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(said.stdout.strip())


def test_the_soft_limit_on_open_files_is_raised_and_the_hard_one_kept():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        assert host.open_files() == 200
        host.allow_many_files()
        assert host.open_files() == min(before[1], host._MANY_FILES) > 200
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

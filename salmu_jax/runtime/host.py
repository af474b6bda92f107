"""Sets up this process: devices, CPUs, memory, and the environment variables that can change figures.

Call everything here before JAX starts; the module itself imports neither JAX nor numpy.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import importlib.util
import logging
import mmap
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from salmu_jax.runtime import console, interrupts
from salmu_jax.runtime.errors import InputError

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
GPU_MATMUL_FLAG = "--xla_gpu_enable_triton_gemm"
_FEW_CPUS, _FEW_PAIRS, _MOST_WORKERS = 2, 20_000, 16
_MANY_FILES = 1 << 18  # open at a time: 400 million pairs are 60,000 shards
_GROWTH = 64 * 2**20  # bytes that the heap grows by at least

# The JAX settings that figures depend on: fixed, whatever the environment says.
NUMERICS: dict[str, Any] = {
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_high_dynamic_range_gumbel": False,
    "jax_enable_custom_prng": False,
}
# JAX variables about where to compute, what to cache and what to print. Any other may change a figure, now or in a
# later version, and is removed.
_HEARD = re.compile(
    r"JAX_(PLATFORM|BACKEND|CUDA_|ROCM_|ONEAPI_|NUM_CPU|CPU_|TPU_|PJRT_|MOCK_|COMPILATION_CACHE|ENABLE_COMPILATION_CACHE"
    r"|PERSISTENT_CACHE|RAISE_PERSISTENT|COMPILER_DETAILED|EXPLAIN|LOG|DEBUG|TRACEBACK|INCLUDE_|TRACER|DUMP|DISTRIBUTED"
    r"|COORDINATOR|LOCAL_DEVICE_IDS|NUM_PROCESSES|PROCESS_ID|ENABLE_PREEMPTION|ENABLE_RECOVER|CROSS_HOST|FORCE_|ALLOW_UNUSED_TPUS"
    r"|CHECK_|ENABLE_CHECKS|THREAD_GUARD|TRANSFER_GUARD|SHARE_BINARY|ENABLE_PGLE|PGLE|XLA_PROFILE|MEMORY_FITTING)"
)
# Variables of other libraries that change matmuls without JAX's knowledge, or how Flax draws initial weights.
_UNHEARD = re.compile(r"NVIDIA_TF32_OVERRIDE|FLAX_\w+")
# XLA flags that allow it to reorder sums and to assume that there is no NaN, which the checks of losses look for.
_FAST_MATH = re.compile(r"--xla_(cpu|gpu)_(enable_)?fast_(math|min_max)\w*(=|$)")
# XLA flags that no figure depends on, except for the last bits of sums.
_HARMLESS = re.compile(
    r"--xla_(dump_|force_host_platform_device_count|backend_optimization_level|hlo_profile|gpu_cuda_data_dir"
    r"|gpu_enable_latency_hiding|gpu_enable_command_buffer|cpu_multi_thread_eigen|cpu_parallel_codegen"
    r"|cpu_use_fusion_emitters|\w*autotune|\w*timeout)"
)
_RECORDED = ("LIBTPU_INIT_ARGS", "TF_XLA_FLAGS", "CUBLAS_WORKSPACE_CONFIG")


# Devices, CPUs and memory -----------------------------------------------------------------------------------------------


def has_tpu() -> bool:
    """Returns whether this machine has the device files of a TPU."""
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/*"))


def gpu_platform() -> str:
    """Returns JAX's platform for this machine's GPUs, by their device files: ``cuda``, ``rocm``, or empty for none."""
    return "cuda" if glob.glob("/dev/nvidia[0-9]*") else "rocm" if glob.glob("/dev/kfd") else ""


def computes_on_cpu() -> bool:
    """Returns whether JAX will compute on the CPU, by choice or for lack of other devices."""
    chosen = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
    return chosen == "cpu" if chosen else not (has_tpu() or gpu_platform())


def cpu_count() -> int:
    """Returns the number of CPUs this process may use, by its affinity mask if there is one; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)  # only on Linux
    if affinity is not None:
        with contextlib.suppress(OSError):
            return max(len(affinity(0)), 1)
    return getattr(os, "process_cpu_count", os.cpu_count)() or 1


def decoding_workers(wanted: int, pairs: int, batch_bytes: int, *, cached: bool = False, streams: int = 1) -> int:
    """Returns how many processes decode images for each of ``streams``; 0: threads of this process decode.

    Args:
      wanted: the config's ``data.workers``; -1 for one fewer than the CPUs, at most 16, and none where they would not
        help: on one or two CPUs, for small data, or for images that are kept decoded.
      pairs: the number of pairs in the data.
      batch_bytes: the bytes of pixels in a batch of this process.
      cached: whether decoded images are kept in memory.

    Raises:
      InputError: ``wanted`` workers need more shared memory than is free; the system would kill them.
    """
    each = 3 * streams * batch_bytes  # one batch being made, and two ready
    free = _free_shared_memory()
    if wanted < 0:
        cpus = cpu_count()
        if cpus <= _FEW_CPUS or pairs < _FEW_PAIRS or cached:
            return 0
        return max(min(min(cpus - 1, _MOST_WORKERS) // streams, free // max(each, 1)), 0)
    if wanted * each > free:
        raise InputError(
            f"/dev/shm has {free / 2**20:,.0f} MiB free, and the batches of {wanted} workers take"
            f" {wanted * each / 2**20:,.0f} MiB; choose data.workers=0, or give the container more (docker run"
            " --shm-size=8g)",
            "data.workers",
        )
    return wanted


def _free_shared_memory() -> int:
    """Returns the free bytes of shared memory; a huge number where it is not a file system."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return 2**62


# Setting up the process -------------------------------------------------------------------------------------------------


def prepare() -> None:
    """Sets this process up for the devices that JAX will use; call it before JAX starts."""
    allow_many_files()
    if computes_on_cpu():
        keep_freed_memory()
    elif gpu_platform():
        prefer_library_matmuls()


def allow_many_files() -> None:
    """Raises the soft limit on open files, low by default, as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(_MANY_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def open_files() -> int:
    """Returns the number of files that this process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MANY_FILES if soft == resource.RLIM_INFINITY else soft


def quieten_libraries() -> None:
    """Silences what libraries print about themselves, but not their errors."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # libtpu may be installed for 'salmu plan' alone: its search for a TPU then takes seconds and fills the screen.
    if importlib.util.find_spec("libtpu") and not has_tpu():
        os.environ.setdefault("JAX_PLATFORMS", ",".join(filter(None, (gpu_platform(), "cpu"))))
    # Worker processes that end with ours leave shared memory behind, which multiprocessing's tracker removes with a warning.
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    # When a save fails (a full disk), Orbax raises the error of one thread and logs those of the others, with tracebacks.
    # (absl must create its logger itself: one created by Python would take absl for the caller.)
    import absl.logging

    absl.logging.get_absl_logger().addFilter(_not_orbax)
    sys.unraisablehook = _unraisable


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _unraisable(met: sys.UnraisableHookArgs) -> None:
    """Drops the errors of TensorStore's threads after a failed save, which nobody waits for."""
    if isinstance(met.exc_value, KeyboardInterrupt) and interrupts.installed():
        interrupts.lost()
    elif not str(met.exc_value).startswith(("Event loop is closed", "sys.meta_path is None")):
        sys.__unraisablehook__(met)


def prefer_library_matmuls() -> None:
    """Makes XLA use cuBLAS for matmuls on GPUs, fused with their epilogues, unless ``XLA_FLAGS`` says otherwise.

    By default XLA tunes its own kernels for each matmul in isolation, and then picks the library's; but a matmul that was
    taken out of its fusion no longer fuses the bias.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if GPU_MATMUL_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {GPU_MATMUL_FLAG}=false".strip()


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, so that a step's buffers are not mapped and zeroed again.

    XLA allocates a step's temporaries from the system and frees them at its end. On a CPU the page faults cost a sixth of a
    ViT-B/16 step, and a fifth of a mini one. glibc's per-thread arenas map large blocks regardless, so a single arena is
    used: call this before JAX starts its threads. The process then never shrinks.

    Returns whether the C library is glibc and accepted the settings; does nothing on others.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 (other libraries have a mallopt of their own)
        settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: _GROWTH}
        return all([library.mallopt(parameter, value) == 1 for parameter, value in settings.items()])
    except (AttributeError, OSError):
        return False


# The environment as an input ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def fixed_numerics() -> Iterator[None]:
    """Fixes, inside ``with``, the settings that figures depend on (:data:`NUMERICS`), whatever the environment says.

    Variables of JAX, Flax and CUDA that could change a figure, and XLA's fast-math flags, are removed from the environment
    (child processes inherit it), and JAX's settings are changed if it is imported already. At the end everything is
    restored, for a notebook that calls the command line.

    Raises InputError for ``XLA_FLAGS`` that would make XLA kill the process.
    """
    before = dict(os.environ)
    _clean_environment()
    changed = {name: before.get(name) for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
    check_xla_flags()
    restored: dict[str, Any] = {}
    if "jax" in sys.modules:
        import jax

        restored = {name: jax.config.values[name] for name in NUMERICS if name in jax.config.values}
        for name in restored:
            jax.config.update(name, NUMERICS[name])
    try:
        yield
    finally:
        for name, value in restored.items():
            jax.config.update(name, value)
        for name, text in changed.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text


def _clean_environment() -> None:
    for name in list(os.environ):
        if (name.startswith("JAX_") and not _HEARD.match(name)) or _UNHEARD.fullmatch(name):
            del os.environ[name]
    flags = _xla_flags()
    if any(map(_FAST_MATH.match, flags)):
        os.environ["XLA_FLAGS"] = " ".join(flag for flag in flags if not _FAST_MATH.match(flag))
        left_out = " ".join(filter(_FAST_MATH.match, flags))
        console.complain(f"salmu: XLA_FLAGS: {left_out} is left out: figures would depend on it")


def numeric_environment() -> dict[str, str]:
    """Returns the part of the environment that can change a figure and is not fixed here; usually nothing.

    That is: XLA's flags, sorted, without those that change only speed or the last bits of sums; a few variables of
    libraries below XLA; and, outside the command line, JAX settings that differ from ours.
    """
    flags = [flag for flag in _xla_flags() if not _HARMLESS.match(flag) and flag != f"{GPU_MATMUL_FLAG}=false"]
    found = {"XLA_FLAGS": " ".join(sorted(flags))} if flags else {}
    found |= {name: os.environ[name] for name in _RECORDED if os.environ.get(name)}
    if "jax" in sys.modules:
        import jax

        values = jax.config.values
        found |= {name: str(values[name]) for name, ours in NUMERICS.items() if name in values and values[name] != ours}
    return found


def _xla_flags() -> list[str]:
    """Returns the flags in ``XLA_FLAGS``, or in the file that it names. Raises InputError if there is no such file."""
    text = os.environ.get("XLA_FLAGS", "").strip()
    if text and not text.startswith("--"):
        try:
            text = Path(text).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(
                f"is {text!r}: neither flags, which begin with --, nor a file of them ({error.strerror}); unset it, or"
                " correct it",
                "XLA_FLAGS",
            ) from error
    return text.split()


def check_xla_flags() -> None:
    """Raises InputError for unknown flags in ``XLA_FLAGS``: XLA would kill the process for them."""
    for flag in _xla_flags():
        name, _, count = flag.partition("=")
        if name == "--xla_force_host_platform_device_count" and not re.fullmatch(r"\+?0*[1-9]\d*", count):
            raise InputError(f"{flag}: a number of devices is needed, 1 or more", "XLA_FLAGS")
    doubtful = [flag for flag in _xla_flags() if not re.fullmatch(r"--xla_\w+(=(\w*\d|true|false))?", flag)]
    doubtful += [flag for flag in _xla_flags() if flag not in doubtful and not _in_xla(flag[2:].partition("=")[0])]
    if not doubtful or "jax" in sys.modules:
        return
    code = "import jax; jax.config.update('jax_platforms', 'cpu'); jax.devices()"
    tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, errors="replace", check=False)
    if tried.returncode and "flag" in tried.stderr.casefold():  # an unknown flag, or a list of all of them
        named = [flag for flag in doubtful if flag in tried.stderr] or doubtful
        raise InputError(
            f"XLA does not take {' '.join(named[:3])}; it may be meant for another version or machine: unset the variable, or"
            " take the flag out",
            "XLA_FLAGS",
        )


def _in_xla(name: str) -> bool:
    """Returns whether jaxlib's library contains the name of a flag: a search of 10 ms, where asking XLA takes a second."""
    spec = importlib.util.find_spec("jaxlib")
    libraries = [path for place in spec.submodule_search_locations or () for path in Path(place).glob("libjax_common*")]
    for library in libraries:
        with open(library, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(name.encode() + b"\0") >= 0:
                return True
    return False


def start_devices() -> None:
    """Starts JAX's backend. Raises InputError if the environment names one that is not available here."""
    if "tpu" in os.environ.get("JAX_PLATFORMS", "").split(",") and not has_tpu():
        raise InputError("is set to tpu, and there is none here; unset it, or set it to cpu", "JAX_PLATFORMS")
    import jax

    try:
        jax.devices()
    except Exception as error:
        refusal = environment_refusal(error)
        if refusal is None:
            raise
        raise refusal from error


def environment_refusal(error: BaseException) -> InputError | None:
    """Returns the line for an error that an environment variable caused (a missing device, a bad value); None otherwise."""
    text = " ".join(str(error).split())
    last = (["", *_files(error)][-1]).replace(os.sep, "/")
    chosen = [name for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if os.environ.get(name)]
    if "backend 'cpu'" in text and os.environ.get("JAX_NUM_CPU_DEVICES"):  # the CPU is always available
        chosen = ["JAX_NUM_CPU_DEVICES"]
    if chosen and (last.endswith("/jax/_src/xla_bridge.py") or "Unable to initialize backend" in text):
        reason = text.partition(" (set JAX_PLATFORMS=")[0][:200]
        return InputError(
            f"is {os.environ[chosen[0]]!r}, which is not available here{f' ({reason})' if reason else ''}; unset it, or"
            " set JAX_PLATFORMS=cpu",
            chosen[0],
        )
    if "/jax/_src/" in last:
        for name in sorted(os.environ, key=len, reverse=True):
            if name.startswith("JAX_") and re.search(rf"\b{name}\b", text, re.IGNORECASE):
                return InputError(f"is {os.environ[name]!r}: {text[:200]}; unset it, or correct it", name)
    return None


def _files(error: BaseException) -> Iterator[str]:
    """Yields the files of a traceback, outermost first."""
    link = error.__traceback__
    while link is not None:
        yield link.tb_frame.f_code.co_filename
        link = link.tb_next

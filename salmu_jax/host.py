"""What there is to compute with besides the CPU, and how this process's memory is kept: to be asked before JAX starts."""

from __future__ import annotations

import ctypes
import glob
import importlib.util
import logging
import os
import sys

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
GPU_PRODUCTS_FLAG = "--xla_gpu_enable_triton_gemm"
_GROWTH = 64 * 2**20  # bytes that the heap grows by at least


def has_tpu() -> bool:
    """Whether a TPU's device files are here."""
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/*"))


def gpu_platform() -> str:
    """JAX's name of the platform of the GPUs whose device files are here, ``cuda`` or ``rocm``; empty if there are none."""
    return "cuda" if glob.glob("/dev/nvidia[0-9]*") else "rocm" if glob.glob("/dev/kfd") else ""


def computes_on_cpu() -> bool:
    """Whether JAX will compute on the CPU: it was told to, or there is nothing else."""
    chosen = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
    return chosen == "cpu" if chosen else not (has_tpu() or gpu_platform())


def prepare() -> None:
    """Sets this process up for what JAX will compute on: to be called before JAX starts, by what owns the process."""
    if computes_on_cpu():
        keep_freed_memory()
    elif gpu_platform():
        prefer_library_products()


def quieten_libraries() -> None:
    """Keeps what libraries say of themselves out of a run's story; errors still come through."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # libtpu may be here for 'salmu plan' alone: its search for a TPU that is not there takes seconds and fills the screen.
    if importlib.util.find_spec("libtpu") and not has_tpu():
        os.environ.setdefault("JAX_PLATFORMS", ",".join(filter(None, (gpu_platform(), "cpu"))))
    # When a save fails (a full disk), Orbax raises what one of its threads met; the others log theirs, with tracebacks.
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    sys.unraisablehook = _unraisable


def _unraisable(met: sys.UnraisableHookArgs) -> None:
    """Leaves out what TensorStore's threads meet when a save has failed and nobody waits for the rest of it any more."""
    if not (isinstance(met.exc_value, RuntimeError) and str(met.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(met)


def prefer_library_products() -> None:
    """Has XLA leave products on GPUs to cuBLAS, with what surrounds them, unless ``XLA_FLAGS`` says otherwise.

    XLA tries its own kernels for each product alone, and then finds the library's faster; taken out of its surroundings,
    though, the product's kernel no longer adds the bias.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if GPU_PRODUCTS_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {GPU_PRODUCTS_FLAG}=false".strip()


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, so that a step's buffers need not be mapped and zeroed anew.

    XLA takes a step's temporaries from the system and gives them back at its end; on a CPU the page faults cost a sixth of a
    ViT-B/16 step, and a fifth of a mini one. glibc's arenas of threads map whatever is large all the same, hence a single
    one: to be called before JAX makes its threads. The process then stays as large as it ever was.

    Returns whether the C library is glibc and took it; on others nothing happens.
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

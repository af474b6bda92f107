"""For all tests: eight fake CPU devices for the sharded ones, no network, and each program compiled once a session."""

import atexit
import os
import shutil
import tempfile

# Before the first import of jax anywhere. The first device alone is used unless a test asks for more.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ["HF_HUB_OFFLINE"] = "1"

# Compilation is most of the time: many tests compile the same small towers.
_COMPILED = tempfile.mkdtemp(prefix="salmu-tests-compiled-")
atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")


def _declare_torchvision_operators() -> None:
    """Lets torchvision import beside a CPU build of torch that it was not built for (transformers and OpenCLIP import it)."""
    import torch

    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        signatures = {
            "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        }
        for name, signature in signatures.items():
            torch.library.define(f"torchvision::{name}", signature)


_declare_torchvision_operators()

"""For all tests: eight fake CPU devices for the sharded ones, and no network."""

import os

# Before the first import of jax anywhere. The first device alone is used unless a test asks for more.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ["HF_HUB_OFFLINE"] = "1"
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

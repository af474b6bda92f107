"""Compares an export, loaded by OpenCLIP or transformers itself, with our model on a fixed batch."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from salmu_jax.models.clip import Clip, ClipConfig, Params
from salmu_jax.models.preprocess import IMAGE_MEAN, IMAGE_STD
from salmu_jax.runtime.errors import InputError

TOLERANCE = 1e-4  # of an embedding's components, float32 on a CPU
_ROWS, _SEED = 8, 0


def check(directory: Path, to: str, clip: Clip, params: Params, where: Path) -> dict[str, Any]:
    """Returns the contents of ``parity.json`` for the export in ``directory``, which will be moved to ``where``.

    Without torch or the library, says why nothing was compared. Raises InputError above :data:`TOLERANCE`.
    """
    try:
        load = {"open_clip": _open_clip, "huggingface": _transformers}[to]
        encode = load(directory)
    except ImportError as error:
        return {"compared": False, "reason": f"{error.name or error} is not installed"}
    images, tokens = fixed_batch(clip.config)
    theirs = encode(images, tokens)
    ours = jax.jit(clip.encode_image)(params, images), jax.jit(clip.encode_text)(params, tokens)
    names = ("image", "text")
    difference = {
        name: float(np.max(np.abs(np.asarray(a) - b))) for name, a, b in zip(names, ours, theirs, strict=True)
    }
    library = {"open_clip": "open_clip_torch", "huggingface": "transformers"}[to]
    report = {
        "compared": True,
        "max_abs_difference": difference,
        "tolerance": TOLERANCE,
        "batch": f"{_ROWS} random images and captions, seed {_SEED}",
        "dtype": "float32",
        "device": {"ours": jax.default_backend(), "theirs": "cpu"},
        "versions": {name: importlib.metadata.version(name) for name in (library, "torch", "jax")},
    }
    if not max(difference.values()) <= TOLERANCE:
        listed = ", ".join(f"{name} {value:.2g}" for name, value in difference.items())
        raise InputError(f"{library} computes other embeddings (max difference: {listed}); nothing was written", where)
    return report


def fixed_batch(config: ClipConfig, rows: int = _ROWS, seed: int = _SEED) -> tuple[np.ndarray, np.ndarray]:
    """Draws random uint8 images [rows, H, W, 3] and int32 token rows [rows, T] from ``seed``."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (rows, config.image_size, config.image_size, 3), dtype=np.uint8)
    tokens = np.zeros((rows, config.context_length), np.int32)
    for row in tokens:
        length = int(rng.integers(0, config.context_length - 1))
        row[0], row[length + 1] = config.vocab_size - 2, config.vocab_size - 1
        row[1 : length + 1] = rng.integers(1, config.vocab_size - 2, length)
    return images, tokens


def _pixels(images: np.ndarray) -> Any:
    import torch

    mean, std = np.asarray(IMAGE_MEAN, np.float32), np.asarray(IMAGE_STD, np.float32)
    pixels = (images.astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def _open_clip(directory: Path) -> Any:
    import torch

    _let_torchvision_import()
    import open_clip

    model = open_clip.create_model(f"local-dir:{directory}").eval()

    def encode(images: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            image = model.encode_image(_pixels(images), normalize=True)
            text = model.encode_text(torch.from_numpy(tokens).long(), normalize=True)
        return image.numpy(), text.numpy()

    return encode


def _transformers(directory: Path) -> Any:
    import torch

    _let_torchvision_import()
    import transformers

    model = transformers.CLIPModel.from_pretrained(directory).eval()

    def encode(images: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            vision = model.vision_model(pixel_values=_pixels(images)).pooler_output
            text = model.text_model(input_ids=torch.from_numpy(tokens).long()).pooler_output
            features = model.visual_projection(vision), model.text_projection(text)
            image, text = (torch.nn.functional.normalize(part, dim=-1) for part in features)
        return image.numpy(), text.numpy()

    return encode


def _let_torchvision_import() -> None:
    """Declares two operators without which a torchvision built for another torch fails to import."""
    import torch

    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", signature)

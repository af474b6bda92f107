"""Builds a model and its tokenizer, and describes the inputs that it was trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from salmu_jax.models import preprocess, zoo
from salmu_jax.models.attention import ATTENTIONS
from salmu_jax.models.clip import Clip, Execution
from salmu_jax.models.kernels import KERNELS
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.models.transformer import REMAT_POLICIES
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.nested import flatten


def make_clip(config: ConfigDict) -> Clip:
    """Builds the model of ``config.model``; it has a logit bias if ``config.train.loss`` is ``sigmoid``.

    Raises InputError for an unknown name, or an image size that is not a multiple of the patch size.
    """
    model = config.model
    if model.compute_dtype not in ("float32", "bfloat16"):
        raise InputError(f"unknown dtype {model.compute_dtype!r}; float32 or bfloat16", "model.compute_dtype")
    for field, known in (("remat", REMAT_POLICIES), ("attention", ATTENTIONS), ("kernels", KERNELS)):
        if model[field] not in known:
            raise InputError(f"unknown {field} {model[field]!r}; there are {', '.join(known)}", f"model.{field}")
    architecture = zoo.architecture(model.architecture)
    size, patch = model.image_size or architecture.image_size, architecture.patch_size
    if size % patch:
        raise InputError(f"{size} pixels are not a multiple of the patch size, {patch}", "model.image_size")
    architecture = dataclasses.replace(
        architecture,
        image_size=size,
        logit_bias=config.train.loss == "sigmoid",
        compute_dtype=model.compute_dtype,
    )
    return Clip(architecture, Execution(model.scan_layers, model.remat, model.attention, model.kernels))


def make_tokenizer(clip: Clip) -> ClipTokenizer:
    """Builds the tokenizer with the vocabulary and context length of ``clip``."""
    return ClipTokenizer(num_merges=zoo.bpe_merges(clip.config), context_length=clip.config.context_length)


def input_manifest(clip: Clip, tokenizer: ClipTokenizer) -> dict[str, Any]:
    """Describes how images and captions have to be prepared for ``clip``; part of its manifest."""
    return {
        "activation": "quick_gelu" if clip.config.quick_gelu else "gelu",
        "image": {
            "mean": list(preprocess.IMAGE_MEAN),
            "std": list(preprocess.IMAGE_STD),
            "interpolation": "bicubic",
            "resize": "shortest side, then centre crop",
        },
        "tokenizer": {
            "merges": zoo.bpe_merges(clip.config),
            "context_length": clip.config.context_length,
            "digest": tokenizer.digest,
        },
    }


def input_differences(manifest: Mapping[str, Any], clip: Clip) -> list[str]:
    """Lists the differences between the inputs that ``manifest`` records and those that this code prepares for ``clip``."""
    now = flatten(input_manifest(clip, make_tokenizer(clip)))
    then = flatten({name: manifest[name] for name in ("activation", "image", "tokenizer") if name in manifest})
    names = [name for name in now if name in then and then[name] != now[name]]
    return [f"{name} is {_short(then[name])}, not {_short(now[name])}" for name in names]


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text

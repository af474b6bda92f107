"""What a model wants its inputs to be: its tokenizer, and how images are prepared. Part of every model's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salmu_jax.models import preprocess, zoo
from salmu_jax.models.clip import Clip
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.nested import flatten


def make_tokenizer(clip: Clip) -> ClipTokenizer:
    """Returns the tokenizer whose vocabulary and context length are those of ``clip``."""
    return ClipTokenizer(num_merges=zoo.bpe_merges(clip.config), context_length=clip.config.context_length)


def input_manifest(clip: Clip, tokenizer: ClipTokenizer) -> dict[str, Any]:
    """Returns what a checkpoint's user has to do to images and captions: part of its manifest."""
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
    """Returns in what the inputs that a model was trained with, by its manifest, differ from those that it would get here."""
    now = flatten(input_manifest(clip, make_tokenizer(clip)))
    then = flatten({name: manifest[name] for name in ("activation", "image", "tokenizer") if name in manifest})
    names = [name for name in now if name in then and then[name] != now[name]]
    return [f"{name} is {_short(then[name])}, not {_short(now[name])}" for name in names]


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text

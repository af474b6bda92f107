"""Architectures by name: OpenCLIP's models under OpenCLIP's names, and two small ones for laptops and tests."""

from __future__ import annotations

import dataclasses

from salmu_jax.models.clip import ClipConfig, TowerConfig
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import did_you_mean

_VIT_B_16 = ClipConfig(
    embed_dim=512,
    image_size=224,
    patch_size=16,
    vision=TowerConfig(width=768, layers=12, heads=12),
    text=TowerConfig(width=512, layers=12, heads=8),
)
_VIT_B_32 = dataclasses.replace(_VIT_B_16, patch_size=32)
_VIT_L_14 = ClipConfig(
    embed_dim=768,
    image_size=224,
    patch_size=14,
    vision=TowerConfig(width=1024, layers=24, heads=16),
    text=TowerConfig(width=768, layers=12, heads=12),
)
_OPEN_CLIP = {"ViT-B-32": _VIT_B_32, "ViT-B-16": _VIT_B_16, "ViT-L-14": _VIT_L_14}

_MINI_MERGES = 4_000

_ARCHITECTURES: dict[str, ClipConfig] = {
    **_OPEN_CLIP,
    # OpenAI's own weights, and many others, were trained with the approximate GELU x sigmoid(1.702 x).
    **{f"{name}-quickgelu": dataclasses.replace(config, quick_gelu=True) for name, config in _OPEN_CLIP.items()},
    # For the whole benchmark in minutes on two cores: 32-pixel images, CLIP's BPE with the first 4,000 merges.
    "mini": ClipConfig(
        embed_dim=64,
        image_size=32,
        patch_size=8,
        vision=TowerConfig(width=64, layers=2, heads=2),
        text=TowerConfig(width=64, layers=1, heads=2),
        context_length=64,  # the longest captions, with an IBAN, take 50 to 60
        vocab_size=514 + _MINI_MERGES,
    ),
    # For tests: complete, but too small to learn.
    "tiny": ClipConfig(
        embed_dim=16,
        image_size=16,
        patch_size=8,
        vision=TowerConfig(width=16, layers=1, heads=2),
        text=TowerConfig(width=16, layers=1, heads=2),
        context_length=32,
        vocab_size=514 + 500,
    ),
}


def architecture(name: str) -> ClipConfig:
    """Returns the architecture called ``name``. Raises InputError for an unknown name, with those that exist."""
    if name not in _ARCHITECTURES:
        hint = did_you_mean(name, _ARCHITECTURES) or f"known: {', '.join(_ARCHITECTURES)}"
        raise InputError(f"unknown architecture {name!r}; {hint}", "model.architecture")
    return _ARCHITECTURES[name]


def name_of(config: ClipConfig) -> str | None:
    """Returns the name of an architecture, whatever its ``compute_dtype``, or None if it has none."""
    config = dataclasses.replace(config, compute_dtype="float32")
    return next((name for name, known in _ARCHITECTURES.items() if known == config), None)


def bpe_merges(config: ClipConfig) -> int | None:
    """Returns the number of BPE merges in the vocabulary of ``config``, or None for the full one of 49,408 ids."""
    return None if config.vocab_size == 49_408 else config.vocab_size - 514

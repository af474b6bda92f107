"""transformers' side: the names of ``CLIPModel``'s state dict, its config, and the files of its processor and tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salmu_jax import files
from salmu_jax.errors import InputError
from salmu_jax.interop.mapping import CONVOLUTION, LINEAR, Entry, refuse_other
from salmu_jax.models.clip import ClipConfig, TowerConfig
from salmu_jax.models.layers import LAYER_NORM_EPSILON
from salmu_jax.models.preprocess import IMAGE_MEAN, IMAGE_STD
from salmu_jax.models.tokenizer import ClipTokenizer

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PREPARATION = "preprocessor_config.json"  # says how images are prepared
_PIXELS = {
    "resample": 3,  # bicubic
    "rescale_factor": 1 / 255,
    "image_mean": list(IMAGE_MEAN),
    "image_std": list(IMAGE_STD),
}
# Buffers of older versions.
IGNORED = frozenset({"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"})
_ACTIVATIONS = {"gelu": False, "quick_gelu": True}
_START, _END = "<|startoftext|>", "<|endoftext|>"

_LAYERS = (
    *((f"self_attn.{part}_proj.weight", ("in_proj", "kernel"), LINEAR, (index, 3)) for index, part in enumerate("qkv")),
    *((f"self_attn.{part}_proj.bias", ("in_proj", "bias"), (), (index, 3)) for index, part in enumerate("qkv")),
    ("self_attn.out_proj.weight", ("out_proj", "kernel"), LINEAR, (0, 1)),
    ("self_attn.out_proj.bias", ("out_proj", "bias"), (), (0, 1)),
    ("layer_norm1.weight", ("ln_1", "scale"), (), (0, 1)),
    ("layer_norm1.bias", ("ln_1", "bias"), (), (0, 1)),
    ("layer_norm2.weight", ("ln_2", "scale"), (), (0, 1)),
    ("layer_norm2.bias", ("ln_2", "bias"), (), (0, 1)),
    ("mlp.fc1.weight", ("c_fc", "kernel"), LINEAR, (0, 1)),
    ("mlp.fc1.bias", ("c_fc", "bias"), (), (0, 1)),
    ("mlp.fc2.weight", ("c_proj", "kernel"), LINEAR, (0, 1)),
    ("mlp.fc2.bias", ("c_proj", "bias"), (), (0, 1)),
)


def table(config: ClipConfig) -> list[Entry]:
    """Every tensor of ``CLIPModel``'s state dict for ``config``. Raises InputError for one with a logit bias."""
    if config.logit_bias:
        raise InputError("transformers' CLIPModel has no logit bias; export to open_clip", "--to huggingface")
    entries = [
        Entry("logit_scale", ("logit_scale",)),
        Entry("vision_model.embeddings.class_embedding", ("visual", "class_embedding")),
        Entry("vision_model.embeddings.patch_embedding.weight", ("visual", "conv1"), CONVOLUTION),
        Entry("vision_model.embeddings.position_embedding.weight", ("visual", "positional_embedding")),
        Entry("visual_projection.weight", ("visual", "proj"), LINEAR),
        Entry("text_model.embeddings.token_embedding.weight", ("text", "token_embedding")),
        Entry("text_model.embeddings.position_embedding.weight", ("text", "positional_embedding")),
        Entry("text_projection.weight", ("text", "text_projection"), LINEAR),
    ]
    norms = (
        ("vision_model.pre_layrnorm", "visual", "ln_pre"),  # their spelling
        ("vision_model.post_layernorm", "visual", "ln_post"),
        ("text_model.final_layer_norm", "text", "ln_final"),
    )
    for name, tower, norm in norms:
        entries.append(Entry(f"{name}.weight", (tower, norm, "scale")))
        entries.append(Entry(f"{name}.bias", (tower, norm, "bias")))
    for name, tower, layers in (
        ("vision_model", "visual", config.vision.layers),
        ("text_model", "text", config.text.layers),
    ):
        for index in range(layers):
            path = (tower, "transformer", f"blocks_{index}")
            prefix = f"{name}.encoder.layers.{index}"
            entries += [Entry(f"{prefix}.{theirs}", (*path, *ours), axes, part) for theirs, ours, axes, part in _LAYERS]
    return entries


def model_config(config: ClipConfig) -> dict[str, Any]:
    """The contents of ``config.json``."""

    def tower(part: TowerConfig) -> dict[str, Any]:
        return {
            "hidden_size": part.width,
            "intermediate_size": int(part.width * part.mlp_ratio),
            "num_hidden_layers": part.layers,
            "num_attention_heads": part.heads,
            "hidden_act": "quick_gelu" if config.quick_gelu else "gelu",
            "layer_norm_eps": LAYER_NORM_EPSILON,
            "projection_dim": config.embed_dim,
        }

    # With eos_token_id 2, an old default, CLIPModel reads the text feature at the first highest id, as OpenCLIP does; with the
    # real id it would look for that.
    text = {"vocab_size": config.vocab_size, "max_position_embeddings": config.context_length, "eos_token_id": 2}
    text |= {"bos_token_id": 0, "pad_token_id": 1, "model_type": "clip_text_model"}
    vision = {"image_size": config.image_size, "patch_size": config.patch_size, "model_type": "clip_vision_model"}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": 2.6592,
        "text_config": {**tower(config.text), **text},
        "vision_config": {**tower(config.vision), **vision},
        "torch_dtype": "float32",
    }


def clip_config(values: Mapping[str, Any], where: str) -> ClipConfig:
    """The architecture that a ``config.json`` describes; fields left out have transformers' defaults (CLIP ViT-B/32).

    Raises InputError for one that is not ours.
    """
    try:
        text, vision = values.get("text_config") or {}, values.get("vision_config") or {}
        activations = {part.get("hidden_act", "quick_gelu") for part in (text, vision)}
        if len(activations) != 1 or not activations <= _ACTIVATIONS.keys():
            raise ValueError(f"hidden_act {' and '.join(sorted(activations))}; gelu or quick_gelu, in both towers")
        epsilons = {part.get("layer_norm_eps", LAYER_NORM_EPSILON) for part in (text, vision)}
        if epsilons != {LAYER_NORM_EPSILON}:
            raise ValueError(f"layer_norm_eps {sorted(epsilons)}, not {LAYER_NORM_EPSILON}")

        def tower(part: Mapping[str, Any], width: int, heads: int) -> TowerConfig:
            width = part.get("hidden_size", width)
            ratio = part.get("intermediate_size", 4 * width) / width
            return TowerConfig(
                width, part.get("num_hidden_layers", 12), part.get("num_attention_heads", heads), float(ratio)
            )

        return ClipConfig(
            embed_dim=values.get("projection_dim", 512),
            image_size=vision.get("image_size", 224),
            patch_size=vision.get("patch_size", 32),
            vision=tower(vision, 768, 12),
            text=tower(text, 512, 8),
            context_length=text.get("max_position_embeddings", 77),
            vocab_size=text.get("vocab_size", 49_408),
            quick_gelu=_ACTIVATIONS[activations.pop()],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"not the config of a CLIPModel that we know ({error})", where) from error


def check_preparation(values: Mapping[str, Any], where: str) -> None:
    """Raises InputError for images prepared in another way than ours, as a file :data:`PREPARATION` says."""
    refuse_other(values, {"do_normalize": True, "do_rescale": True, "do_center_crop": True, **_PIXELS}, where)


def write_processor(directory: Path, config: ClipConfig, tokenizer: ClipTokenizer) -> None:
    """Writes what ``CLIPProcessor.from_pretrained`` reads: image preprocessing, vocabulary and merges.

    Rows are padded with the end of text, as CLIPTokenizer wants it, where ours have zeros: neither reads behind the end.
    """
    size = config.image_size
    image = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        **_PIXELS,
    }
    files.write_json(directory / PREPARATION, image)
    vocabulary, merges = tokenizer.vocabulary()
    ids = {symbol: index for index, symbol in enumerate([*vocabulary, _START, _END])}
    files.write_text(directory / "vocab.json", json.dumps(ids, ensure_ascii=False))
    files.write_text(directory / "merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
    files.write_json(directory / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": config.context_length, "do_lower_case": True}
    files.write_json(directory / "tokenizer_config.json", {**settings, **special})

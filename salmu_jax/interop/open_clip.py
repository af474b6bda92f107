"""OpenCLIP's side: the names of its state dict, and the config file beside its weights.

As of open_clip_torch 3.3: the text tower's tensors have no prefix, ``in_proj`` is a parameter and not a layer, projections are
stored as they are multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salmu_jax.errors import InputError
from salmu_jax.interop.mapping import CONVOLUTION, LINEAR, Entry, refuse_other
from salmu_jax.models.clip import SIGMOID_LOGIT_BIAS, ClipConfig, TowerConfig
from salmu_jax.models.preprocess import IMAGE_MEAN, IMAGE_STD

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
PREPARATION = CONFIG  # the file that says how images are prepared
IGNORED = frozenset({"attn_mask"})  # a buffer of older versions

# Fields of a config that change nothing here; all others that we do not read have to be off, or have their only value.
_WITHOUT_EFFECT = frozenset(
    [
        "init_logit_scale",
        "output_dict",
        "cast_dtype",
        "patch_dropout",
        "output_tokens",
        "attn_pooler_queries",
        "attn_pooler_heads",
        "pad_id",
        "eos_id",
        "timm_model_pretrained",
        "timm_pool",
        "timm_proj",
        "timm_proj_bias",
        "timm_drop",
        "timm_drop_path",
        "hf_model_pretrained",
        "hf_proj_type",
        "hf_pooler_type",
    ]
)
_READ = frozenset(
    [
        "embed_dim",
        "vision_cfg",
        "text_cfg",
        "quick_gelu",
        "init_logit_bias",
        "image_size",
        "layers",
        "width",
        "head_width",
        "mlp_ratio",
        "patch_size",
        "context_length",
        "vocab_size",
        "heads",
    ]
)
_PREPROCESS = {
    "mean": list(IMAGE_MEAN),
    "std": list(IMAGE_STD),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
_ONLY = {"pos_embed_type": "learnable", "proj_type": "linear"}

_LAYERS = (
    ("ln_1.weight", ("ln_1", "scale"), ()),
    ("ln_1.bias", ("ln_1", "bias"), ()),
    ("attn.in_proj_weight", ("in_proj", "kernel"), LINEAR),
    ("attn.in_proj_bias", ("in_proj", "bias"), ()),
    ("attn.out_proj.weight", ("out_proj", "kernel"), LINEAR),
    ("attn.out_proj.bias", ("out_proj", "bias"), ()),
    ("ln_2.weight", ("ln_2", "scale"), ()),
    ("ln_2.bias", ("ln_2", "bias"), ()),
    ("mlp.c_fc.weight", ("c_fc", "kernel"), LINEAR),
    ("mlp.c_fc.bias", ("c_fc", "bias"), ()),
    ("mlp.c_proj.weight", ("c_proj", "kernel"), LINEAR),
    ("mlp.c_proj.bias", ("c_proj", "bias"), ()),
)


def table(config: ClipConfig) -> list[Entry]:
    """Every tensor of OpenCLIP's state dict for ``config`` (302 for ViT-B-16)."""
    entries = [
        Entry("logit_scale", ("logit_scale",)),
        Entry("visual.class_embedding", ("visual", "class_embedding")),
        Entry("visual.positional_embedding", ("visual", "positional_embedding")),
        Entry("visual.proj", ("visual", "proj")),
        Entry("visual.conv1.weight", ("visual", "conv1"), CONVOLUTION),
        Entry("token_embedding.weight", ("text", "token_embedding")),
        Entry("positional_embedding", ("text", "positional_embedding")),
        Entry("text_projection", ("text", "text_projection")),
    ]
    if config.logit_bias:
        entries.append(Entry("logit_bias", ("logit_bias",)))
    for prefix, tower, norms in (("visual.", "visual", ("ln_pre", "ln_post")), ("", "text", ("ln_final",))):
        for norm in norms:
            entries.append(Entry(f"{prefix}{norm}.weight", (tower, norm, "scale")))
            entries.append(Entry(f"{prefix}{norm}.bias", (tower, norm, "bias")))
        layers = (config.vision if tower == "visual" else config.text).layers
        for index in range(layers):
            for name, path, axes in _LAYERS:
                theirs = f"{prefix}transformer.resblocks.{index}.{name}"
                entries.append(Entry(theirs, (tower, "transformer", f"blocks_{index}", *path), axes))
    return entries


def model_config(config: ClipConfig) -> dict[str, Any]:
    """The contents of ``open_clip_config.json``."""
    vision = {
        "image_size": config.image_size,
        "layers": config.vision.layers,
        "width": config.vision.width,
        "head_width": config.vision.width // config.vision.heads,
        "patch_size": config.patch_size,
    }
    text = {
        "context_length": config.context_length,
        "vocab_size": config.vocab_size,
        "width": config.text.width,
        "heads": config.text.heads,
        "layers": config.text.layers,
    }
    for part, tower in ((vision, config.vision), (text, config.text)):
        if tower.mlp_ratio != 4.0:
            part["mlp_ratio"] = tower.mlp_ratio
    model = {"embed_dim": config.embed_dim, "quick_gelu": config.quick_gelu, "vision_cfg": vision, "text_cfg": text}
    if config.logit_bias:
        model["init_logit_bias"] = SIGMOID_LOGIT_BIAS
    return {"model_cfg": model, "preprocess_cfg": _PREPROCESS}


def clip_config(values: Mapping[str, Any], where: str) -> ClipConfig:
    """The architecture that an ``open_clip_config.json`` describes. Raises InputError for one that is not ours."""
    try:
        model = values["model_cfg"]
        vision, text = model["vision_cfg"], model["text_cfg"]
        for part, pool in ((model, None), (vision, "tok"), (text, "argmax")):
            off = {
                name: False for name, value in part.items() if name not in _READ | _WITHOUT_EFFECT and value is not None
            }
            refuse_other(part, {**off, **_ONLY, "pool_type": pool}, where)
        return ClipConfig(
            embed_dim=model["embed_dim"],
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            vision=TowerConfig(
                vision["width"],
                vision["layers"],
                vision["width"] // vision.get("head_width", 64),
                vision.get("mlp_ratio", 4.0),
            ),
            text=TowerConfig(text["width"], text["layers"], text["heads"], text.get("mlp_ratio", 4.0)),
            context_length=text.get("context_length", 77),
            vocab_size=text.get("vocab_size", 49_408),
            quick_gelu=bool(model.get("quick_gelu", False)),
            logit_bias=model.get("init_logit_bias") is not None,
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"not the config of a CLIP with two transformers ({error!r})", where) from error


def check_preparation(values: Mapping[str, Any], where: str) -> None:
    """Raises InputError for images prepared in another way than ours, as a file :data:`PREPARATION` says."""
    refuse_other(values.get("preprocess_cfg") or {}, _PREPROCESS, where)

"""Describes OpenCLIP's side: the names in its state dict, and the config file beside its weights.

As of open_clip_torch 3.3: the text tower's tensors have no prefix, ``in_proj`` is a parameter, not a layer, and projections
are stored in the order in which they are multiplied.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from salmu_jax.interop.fields import Fields, clip_of, divide, raise_problems, read_object
from salmu_jax.interop.mapping import CONVOLUTION, LINEAR, Entry
from salmu_jax.models.clip import SIGMOID_LOGIT_BIAS, ClipConfig
from salmu_jax.models.preprocess import IMAGE_MEAN, IMAGE_STD

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
OTHER_WEIGHTS = ("open_clip_pytorch_model.bin",)  # the name in older versions
BESIDE = ()  # further files that describe the model
# Buffers of older versions, and metadata in OpenAI's archives.
IGNORED = frozenset({"attn_mask", "input_resolution", "context_length", "vocab_size"})
MARK = "visual.conv1.weight"  # a tensor that only this format has
POSITIONS = "visual.positional_embedding"

# Fields about training, or about parts that our models do not have.
_MODEL_ANY = frozenset(["init_logit_scale", "output_dict", "cast_dtype", "nonscalar_logit_scale", "custom_text"])
_VISION_ANYTHING = """patch_dropout output_tokens attn_pooler_queries attn_pooler_heads timm_model_pretrained timm_pool
    timm_proj timm_proj_bias timm_drop timm_drop_path"""
_TEXT_ANYTHING = "output_tokens pad_id eos_id hf_model_pretrained hf_proj_type hf_pooler_type"
_VISION_ANY, _TEXT_ANY = frozenset(_VISION_ANYTHING.split()), frozenset(_TEXT_ANYTHING.split())
# Fields that must be off, and others with the only value that we support.
_TOWER_OFF = """act_kwargs norm_kwargs ls_init_value final_ln_after_pool qk_norm scaled_cosine_attn scale_heads
    scale_attn_inner scale_attn scale_fc"""
_VISION_OFF = "attentional_pool no_ln_pre global_average_pool input_patchnorm timm_model_name"
_TEXT_OFF = "embed_cls no_causal_mask proj_bias hf_model_name hf_tokenizer_name tokenizer_mode tokenizer_kwargs"
_OFF = (False, {})
_MODEL_ONLY = {"multimodal_cfg": _OFF}
_TOWER_ONLY = {**dict.fromkeys(_TOWER_OFF.split(), _OFF), "block_type": "default"}
_VISION_ONLY = {
    **_TOWER_ONLY,
    **dict.fromkeys(_VISION_OFF.split(), _OFF),
    "pool_type": "tok",
    "pos_embed_type": "learnable",
}
_TEXT_ONLY = {**_TOWER_ONLY, **dict.fromkeys(_TEXT_OFF.split(), _OFF), "pool_type": "argmax", "proj_type": "linear"}
_PREPROCESS = {
    "mean": list(IMAGE_MEAN),
    "std": list(IMAGE_STD),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}

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


def usual_names(names: Collection[str]) -> dict[str, str]:
    """Maps a state dict's names to those in :func:`table`; a separate text tower (``custom_text``) is equivalent."""
    if "text.positional_embedding" not in names:
        return {name: name for name in names}
    return {name: name.removeprefix("text.") for name in names}


def table(config: ClipConfig) -> list[Entry]:
    """Returns an entry for every tensor of OpenCLIP's state dict (302 for ViT-B-16)."""
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
    """Returns the contents of ``open_clip_config.json``."""
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
    """Returns the architecture in an ``open_clip_config.json``. Raises InputError for one that we do not support."""
    problems: list[str] = []
    whole = Fields(values, "", problems)
    model = Fields(whole.get("model_cfg", {}), "model_cfg", problems)
    vision, text = (Fields(model.get(name), name, problems) for name in ("vision_cfg", "text_cfg"))
    whole.without_effect(["preprocess_cfg"])
    for part, anything, only in (
        (whole, (), {}),
        (model, _MODEL_ANY, _MODEL_ONLY),
        (vision, _VISION_ANY, _VISION_ONLY),
        (text, _TEXT_ANY, _TEXT_ONLY),
    ):
        part.without_effect(anything)
        part.only(only)
    width = vision.integer("width", 768, "width")
    head = vision.integer("head_width", 64, "width")
    divide(width, head, "vision_cfg.width", f"heads of {head}", problems)
    text_width, text_heads = text.integer("width", 512, "width"), text.integer("heads", 8, "heads")
    divide(text_width, text_heads, "text_cfg.width", f"{text_heads} heads", problems)
    read = {
        "embed_dim": model.integer("embed_dim", None, "embed_dim"),
        "image_size": vision.integer("image_size", 224, "image_size"),
        "patch_size": vision.integer("patch_size", 16, "patch_size"),
        "context_length": text.integer("context_length", 77, "context_length"),
        "vocab_size": text.integer("vocab_size", 49_408, "vocab_size"),
        "quick_gelu": model.flag("quick_gelu"),
        "logit_bias": model.get("init_logit_bias") is not None,
    }
    towers = {
        "vision": (width, vision.integer("layers", 12, "layers"), width // head, vision.number("mlp_ratio", 4.0)),
        "text": (text_width, text.integer("layers", 12, "layers"), text_heads, text.number("mlp_ratio", 4.0)),
    }
    for part in (whole, model, vision, text):
        part.refuse_rest()
    raise_problems(problems, "not the config of a CLIP with two transformers that is computed here", where)
    return clip_of(read, towers, where)


def check_beside(directory: Path, config: ClipConfig) -> None:
    """Raises InputError if the config beside the weights prepares images differently from us."""
    path = directory / CONFIG
    if not path.exists():
        return
    problems: list[str] = []
    fields = Fields(read_object(path).get("preprocess_cfg") or {}, "preprocess_cfg", problems)
    size = config.image_size
    fields.only({**_PREPROCESS, "size": (size, [size, size], [3, size, size]), "mode": "RGB", "fill_color": 0})
    fields.refuse_rest()
    raise_problems(problems, "images are not prepared as here", str(path))

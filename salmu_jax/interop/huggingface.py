"""Describes transformers' side: the names in ``CLIPModel``'s state dict, its config, and its processor's files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from salmu_jax.interop import tokenizer_files
from salmu_jax.interop.fields import Fields, clip_of, divide, raise_problems, read_object
from salmu_jax.interop.mapping import CONVOLUTION, LINEAR, Entry
from salmu_jax.models.clip import ClipConfig, TowerConfig
from salmu_jax.models.layers import LAYER_NORM_EPSILON
from salmu_jax.models.preprocess import IMAGE_MEAN, IMAGE_STD
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

WEIGHTS, CONFIG = "model.safetensors", "config.json"
OTHER_WEIGHTS = ("model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# The files of image preprocessing; newer versions write the second, for the whole processor.
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
BESIDE = (PREPROCESSOR, PROCESSOR, *tokenizer_files.ALL)  # further files that describe the model
MARK = "vision_model.embeddings.patch_embedding.weight"  # a tensor that only this format has
POSITIONS = "vision_model.embeddings.position_embedding.weight"
_PIXELS = {
    "resample": 3,  # bicubic
    "rescale_factor": 1 / 255,
    "image_mean": list(IMAGE_MEAN),
    "image_std": list(IMAGE_STD),
}
# Buffers of older versions.
IGNORED = frozenset({"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"})
_ACTIVATIONS = {"gelu": False, "quick_gelu": True}
# Fields that any config of transformers may have, or that concern training, generation or what a call returns.
_ANYTHING = """
    _name_or_path _attn_implementation_autoset _commit_hash add_cross_attention architectures attention_dropout
    attn_implementation auto_map bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dropout dtype early_stopping
    encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id gradient_checkpointing id2label initializer_factor initializer_range is_composition is_decoder
    is_encoder_decoder label2id length_penalty logit_scale_init_value max_length min_length model_type
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states
    output_scores pad_token_id prefix problem_type projection_dim remove_invalid_values repetition_penalty return_dict
    return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss
    tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript transformers_version
    typical_p use_bfloat16 use_cache use_return_dict
"""
_ANY = frozenset(_ANYTHING.split())
_PREPARED = {
    **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), True),
    **dict.fromkeys(("do_pad", "pad_size", "use_square_size", "default_to_square", "crop_pct"), False),
    "image_processor_type": ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"),
    "feature_extractor_type": ("CLIPFeatureExtractor", "CLIPImageProcessor"),
}
_ABOUT_CALLS = """processor_class do_convert_rgb _valid_processor_keys data_format input_data_format device return_tensors
    disable_grouping image_seq_length"""
_PREPARED_ANY = frozenset(_ABOUT_CALLS.split())

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


def usual_names(names: Collection[str]) -> dict[str, str]:
    """Maps a state dict's names to those in :func:`table`: the same, for transformers."""
    return {name: name for name in names}


def table(config: ClipConfig) -> list[Entry]:
    """Returns an entry for every tensor of ``CLIPModel``'s state dict. Raises InputError for a model with a logit bias."""
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
        ("vision_model.pre_layrnorm", "visual", "ln_pre"),  # sic
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
    """Returns the contents of ``config.json``."""

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

    # With eos_token_id 2, an old default, CLIPModel pools text at the first highest id, as OpenCLIP does. With the
    # real id it would search for that id.
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
    """Returns the architecture in a ``config.json``; absent fields have transformers' defaults (CLIP ViT-B/32).

    As in transformers, an old ``text_config_dict`` or ``vision_config_dict``, with defaults for absent fields, overrides the
    ``text_config`` or ``vision_config`` beside it; if the two differ, that is a problem. Raises InputError for a config that
    we do not support.
    """
    problems: list[str] = []
    whole = Fields(values, "", problems)
    whole.only({"model_type": "clip"})
    whole.without_effect(_ANY)
    parts = {name: _tower_fields(whole, name, problems) for name in ("text_config", "vision_config")}
    text, vision = parts["text_config"], parts["vision_config"]
    activations = {str(part.get("hidden_act", "quick_gelu")) for part in (text, vision)}
    if len(activations) != 1 or not activations <= _ACTIVATIONS.keys():
        problems.append(f"hidden_act {' and '.join(sorted(activations))[:60]}; gelu or quick_gelu, in both towers")

    def tower(part: Fields, width: int, heads: int) -> tuple[int, int, int, float]:
        defaults = width
        width = part.integer("hidden_size", width, "width")
        heads = part.integer("num_attention_heads", heads, "heads")
        divide(width, heads, f"{part.name}.hidden_size", f"{heads} heads", problems)
        features = part.integer("intermediate_size", 4 * defaults, "mlp")
        return width, part.integer("num_hidden_layers", 12, "layers"), heads, features / width

    read = {
        "embed_dim": whole.integer("projection_dim", 512, "embed_dim"),
        "image_size": vision.integer("image_size", 224, "image_size"),
        "patch_size": vision.integer("patch_size", 32, "patch_size"),
        "context_length": text.integer("max_position_embeddings", 77, "context_length"),
        "vocab_size": text.integer("vocab_size", 49_408, "vocab_size"),
        "quick_gelu": _ACTIVATIONS.get(min(activations), False),
    }
    towers = {"vision": tower(vision, 768, 12), "text": tower(text, 512, 8)}
    # Text is pooled at the end-of-text token: at the highest id (which 2, an old default, means), or at this id.
    end = text.get("eos_token_id", 49_407)
    if end not in (2, read["vocab_size"] - 1):
        problems.append(
            f"{text.name}.eos_token_id is {str(end)[:40]}, not {read['vocab_size'] - 1}, the highest id, or 2"
        )
    vision.only({"num_channels": 3})
    for part in (text, vision):
        part.only({"layer_norm_eps": LAYER_NORM_EPSILON, "pruned_heads": {}})
        part.without_effect(_ANY)
    for part in (whole, text, vision):
        part.refuse_rest()
    raise_problems(problems, "not the config of a CLIPModel that is computed here", where)
    return clip_of(read, towers, where)


def _tower_fields(whole: Fields, name: str, problems: list[str]) -> Fields:
    """Returns the fields of a tower, from ``NAME`` or the ``NAME_dict`` of old files."""
    plain, old = whole.get(name, {}), whole.get(f"{name}_dict")
    if old is None:
        return Fields(plain, name, problems)
    if isinstance(plain, Mapping) and isinstance(old, Mapping):
        for key in sorted(_OF_TOWERS):
            theirs = old.get(key, _defaults(name).get(key))
            if plain.get(key) is not None and plain[key] != theirs:
                problems.append(
                    f"{name}.{key} is {str(plain[key])[:40]} and {name}_dict's {str(theirs)[:40]}, which transformers takes:"
                    " delete what is not meant"
                )
    return Fields(old, f"{name}_dict", problems)


def _defaults(name: str) -> dict[str, Any]:
    """Returns transformers' defaults of a tower's fields that change the model."""
    width, heads = (512, 8) if name == "text_config" else (768, 12)
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 12,
        "num_attention_heads": heads,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": LAYER_NORM_EPSILON,
        "vocab_size": 49_408,
        "max_position_embeddings": 77,
        "image_size": 224,
        "patch_size": 32,
        "num_channels": 3,
    }


_OF_TOWERS = _defaults("text_config").keys()


def check_beside(directory: Path, config: ClipConfig) -> None:
    """Raises InputError if the files beside the weights prepare images or captions differently from us."""
    for name in (PREPROCESSOR, PROCESSOR):
        if (directory / name).exists():
            values = read_object(directory / name)
            # The file covers the whole processor; the part about images is nested, and may be absent.
            values = values.get("image_processor") if name == PROCESSOR else values
            if values is not None:
                _check_images(values, config, str(directory / name))
    tokenizer_files.check(directory, config)


def _check_images(values: Any, config: ClipConfig, where: str) -> None:
    problems: list[str] = []
    whole = Fields(values, "", problems)
    size = config.image_size
    edge = whole.get("size", 224)
    if isinstance(edge, Mapping):
        edge = edge.get("shortest_edge") if edge.keys() == {"shortest_edge"} else edge
    crop = whole.get("crop_size", 224)
    if isinstance(crop, Mapping):
        crop = [crop.get("height"), crop.get("width")] if crop.keys() == {"height", "width"} else crop
    for name, found, right in (
        ("size", edge, (size,)),  # an integer means the short side
        ("crop_size", crop, (size, [size, size])),
    ):
        if isinstance(found, bool) or found not in right:
            problems.append(f"{name} is {str(found)[:80]}, not {size} (of the short side, then of the crop)")
    whole.only({**_PIXELS, "resample": (3, "bicubic"), **_PREPARED})
    whole.without_effect(_PREPARED_ANY)
    whole.refuse_rest()
    raise_problems(problems, "images are not prepared as here", where)


def write_processor(directory: Path, config: ClipConfig, tokenizer: ClipTokenizer) -> None:
    """Writes what ``CLIPProcessor.from_pretrained`` reads: image preprocessing, and the tokenizer's files."""
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
    files.write_json(directory / PREPROCESSOR, image)
    tokenizer_files.write(directory, config, tokenizer)

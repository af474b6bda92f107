"""The configs that travel with weights: what differs from what is computed here is refused, other spellings of it are not."""

import copy
import json

import pytest
import transformers
from safetensors.numpy import save_file

from salmu_jax.interop import huggingface, open_clip
from salmu_jax.interop.foreign import load_foreign
from salmu_jax.models.build import make_tokenizer
from salmu_jax.models.clip import Clip
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime.errors import InputError

TINY = architecture("tiny")
PREPROCESSOR = {
    "crop_size": 16,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 16,
}


@pytest.fixture
def directory(states, tmp_path):
    """``directory(library, config, **files)``: a directory as the library writes it, with these files; its path."""

    def make(library, config, **files):
        save_file(states[library], tmp_path / {"open_clip": open_clip, "huggingface": huggingface}[library].WEIGHTS)
        name = "open_clip_config" if library == "open_clip" else "config"
        for stem, value in {name: config, **files}.items():
            (tmp_path / f"{stem}.json").write_text(json.dumps(value))
        return tmp_path

    return make


def refusal(source, **options):
    with pytest.raises(InputError) as caught:
        load_foreign(source, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500
    return str(caught.value)


def changed(config, path, value):
    """A copy of ``config`` with another value at ``a.b.c``."""
    config = copy.deepcopy(config)
    *parents, last = path.split(".")
    part = config
    for key in parents:
        part = part.setdefault(key, {})
    part[last] = value
    return config


# OpenCLIP -------------------------------------------------------------------------------------------------------------

HOSTILE_OPEN_CLIP = [
    ("vision_cfg.head_width", 0, "head_width is 0, not a positive integer"),
    ("vision_cfg.head_width", 5, "vision_cfg.width is 16, which cannot be cut into heads of 5"),
    ("vision_cfg.head_width", -8, "head_width is -8, not a positive integer"),
    ("text_cfg.heads", 3, "text_cfg.width is 16, which cannot be cut into 3 heads"),
    ("text_cfg.heads", 0, "text_cfg.heads is 0, not a positive integer"),
    ("vision_cfg.width", 10**12, "width is 1000000000000; at most 16,384 is read"),
    ("vision_cfg.width", 0, "width is 0, not a positive integer"),
    ("text_cfg.layers", 10**6, "layers is 1000000; at most 128 is read"),
    ("text_cfg.layers", 100, "is missing; "),
    ("vision_cfg.layers", True, "layers is True, not a positive integer"),
    ("vision_cfg.layers", 1.0, "layers is 1.0, not a positive integer"),
    ("vision_cfg.patch_size", 0, "patch_size is 0, not a positive integer"),
    ("vision_cfg.patch_size", 7, "image_size 16 is not a multiple of patch_size 7"),
    ("vision_cfg.image_size", "224", "vision_cfg.image_size is '224', not a positive integer"),
    ("vision_cfg.image_size", [16, 32], "image_size is [16, 32], not a positive integer"),
    ("vision_cfg.mlp_ratio", 1e300, "the vision tower's MLP has 1.6e+301 features"),
    ("vision_cfg.mlp_ratio", 1e-9, "the vision tower's MLP has 1.6e-08 features"),
    ("text_cfg.mlp_ratio", -4, "mlp_ratio is -4, not a positive number"),
    ("text_cfg.mlp_ratio", "4", "mlp_ratio is '4', not a positive number"),
    ("text_cfg.vocab_size", 10**9, "vocab_size is 1000000000; at most 2,097,152 is read"),
    ("text_cfg.context_length", 0, "context_length is 0, not a positive integer"),
    ("embed_dim", 10**20, "at most 16,384 is read"),
    ("embed_dim", [], "embed_dim is [], not a positive integer"),
    ("embed_dim", None, "embed_dim is None, not a positive integer"),
    ("quick_gelu", "no", "quick_gelu is 'no', not true or false"),
    ("quick_gelu", 1, "quick_gelu is 1, not true or false"),
    ("vision_cfg", 3, "vision_cfg is 3, not an object"),
    ("text_cfg", None, "text_cfg is None, not an object"),
    # What is not computed here.
    ("multimodal_cfg", {"width": 3}, "multimodal_cfg is {'width': 3}, not False"),
    ("vision_cfg.timm_model_name", "vit", "timm_model_name is vit, not False"),
    ("text_cfg.hf_model_name", "roberta", "hf_model_name is roberta, not False"),
    ("text_cfg.tokenizer_kwargs", {"clean": "lower"}, "tokenizer_kwargs is {'clean': 'lower'}, not False"),
    ("text_cfg.no_causal_mask", True, "no_causal_mask is True, not False"),
    ("vision_cfg.ls_init_value", 1e-5, "ls_init_value is 1e-05, not False"),
    ("vision_cfg.act_kwargs", {"approximate": "tanh"}, "act_kwargs is {'approximate': 'tanh'}, not False"),
    ("vision_cfg.block_type", "custom", "block_type is custom, not default"),
    ("vision_cfg.rope", False, "vision_cfg.rope is False, a field that is unknown here"),
    ("text_cfg.new", [1] * 100, "text_cfg.new is [1, 1, 1"),
    ("activation", "tanh", "model_cfg.activation is tanh, a field that is unknown here"),
]


@pytest.mark.parametrize(("path", "value", "said"), HOSTILE_OPEN_CLIP)
def test_open_clip_configs_are_bounded_and_known(path, value, said, directory):
    config = changed(open_clip.model_config(TINY), f"model_cfg.{path}", value)
    found = refusal(directory("open_clip", config))
    assert said in found
    assert "which cannot be cut" in said or "which cannot be cut" not in found  # of a width that is wrong itself


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model_cfg.vision_cfg.image_size", [16, 16]),
        ("model_cfg.vision_cfg.patch_dropout", 0.5),
        ("model_cfg.vision_cfg.timm_model_name", None),
        ("model_cfg.vision_cfg.ls_init_value", None),
        ("model_cfg.vision_cfg.mlp_ratio", 4),
        ("model_cfg.text_cfg.norm_kwargs", {}),
        ("model_cfg.text_cfg.pool_type", "argmax"),
        ("model_cfg.output_dict", True),
        ("model_cfg.custom_text", True),
        ("model_cfg.nonscalar_logit_scale", True),
        ("preprocess_cfg.size", 16),
        ("preprocess_cfg.size", [16, 16]),
        ("preprocess_cfg.mode", "RGB"),
        ("preprocess_cfg.fill_color", 0),
        ("preprocess_cfg.mean", [0.481455, 0.457828, 0.408211]),
        ("preprocess_cfg", None),
    ],
)
def test_open_clip_configs_may_say_the_same_otherwise(path, value, directory):
    config = changed(open_clip.model_config(TINY), path, value)
    assert load_foreign(directory("open_clip", config))[0].config == TINY


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("mean", [0.5] * 3, "preprocess_cfg.mean is [0.5, 0.5, 0.5], not [0.48145466, "),
        ("std", [0.5] * 2, "std is [0.5, 0.5], not"),
        ("interpolation", "bilinear", "interpolation is bilinear, not bicubic"),
        ("resize_mode", "squash", "resize_mode is squash, not shortest"),
        ("resize_mode", "longest", "resize_mode is longest, not shortest"),
        ("size", 32, "size is 32, not 16"),
        ("size", [16, 8], "size is [16, 8], not 16"),
        ("mode", "L", "mode is L, not RGB"),
        ("fill_color", 127, "fill_color is 127, not 0"),
        ("crop_pct", 0.9, "preprocess_cfg.crop_pct is 0.9, a field that is unknown here"),
    ],
)
def test_open_clips_preparation_is_compared(field, value, said, directory):
    config = changed(open_clip.model_config(TINY), f"preprocess_cfg.{field}", value)
    assert said in refusal(directory("open_clip", config))


def test_ten_problems_of_a_config_are_enough(directory):
    config = changed(open_clip.model_config(TINY), "model_cfg.vision_cfg", {f"x{index}": 1 for index in range(50)})
    said = refusal(directory("open_clip", config))
    assert said.endswith("; and 40 more")


@pytest.mark.parametrize("text", ["[1]", "3", '{"model_cfg": [1]}', "{", '{"a": NaN}', "[" * 9000, '{"model_cfg": {}}'])
def test_what_is_no_config_is_one_line(text, directory):
    path = directory("open_clip", {})
    (path / open_clip.CONFIG).write_text(text)
    assert open_clip.CONFIG in refusal(path)


# transformers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("text_config.hidden_size", 0, "hidden_size is 0, not a positive integer"),
        ("vision_config.num_attention_heads", 0, "num_attention_heads is 0, not a positive integer"),
        ("vision_config.num_attention_heads", 3, "vision_config.hidden_size is 16, which cannot be cut into 3 heads"),
        ("text_config.num_hidden_layers", 10**6, "num_hidden_layers is 1000000; at most 128 is read"),
        ("vision_config.intermediate_size", 10**12, "intermediate_size is 1000000000000; at most 131,072 is read"),
        ("vision_config.intermediate_size", 0, "intermediate_size is 0, not a positive integer"),
        ("vision_config.num_channels", 1, "num_channels is 1, not 3"),
        ("text_config.eos_token_id", 7, "text_config.eos_token_id is 7, not 1013, the highest id, or 2"),
        ("text_config.eos_token_id", [2], "eos_token_id is [2], not 1013"),
        ("text_config.hidden_act", "quick_gelu", "hidden_act gelu and quick_gelu; gelu or quick_gelu, in both towers"),
        ("text_config.hidden_act", "gelu_new", "hidden_act gelu and gelu_new"),
        ("text_config.hidden_act", ["gelu"], "hidden_act "),
        ("vision_config.layer_norm_eps", 1e-6, "layer_norm_eps is 1e-06, not 1e-05"),
        ("vision_config.layer_norm_eps", 0, "layer_norm_eps is 0, not 1e-05"),
        ("vision_config.pruned_heads", {"0": [1]}, "pruned_heads is {'0': [1]}, not {}"),
        ("vision_config.use_rope", True, "vision_config.use_rope is True, a field that is unknown here"),
        ("model_type", "siglip", "model_type is siglip, not clip"),
        ("quantization_config", {"bits": 4}, "quantization_config is {'bits': 4}, a field that is unknown here"),
        ("text_config", [], "text_config is [], not an object"),
        ("projection_dim", 0, "projection_dim is 0, not a positive integer"),
    ],
)
def test_configs_of_transformers_are_bounded_and_known(path, value, said, directory):
    config = changed(huggingface.model_config(TINY), path, value)
    assert said in refusal(directory("huggingface", config))


def test_every_field_that_transformers_writes_is_known(directory):
    config = transformers.CLIPConfig(**{k: v for k, v in huggingface.model_config(TINY).items() if k != "torch_dtype"})
    assert load_foreign(directory("huggingface", config.to_dict()))[0].config == TINY


def old(config, **changes):
    """A config with the ``text_config_dict`` and ``vision_config_dict`` of old versions, some of their fields changed."""
    config = copy.deepcopy(config)
    for name in ("text_config", "vision_config"):
        config[f"{name}_dict"] = {**config[name], **changes}
    return config


def test_old_dicts_that_say_the_same_are_no_problem(directory):
    assert load_foreign(directory("huggingface", old(huggingface.model_config(TINY))))[0].config == TINY


def test_old_dicts_alone_count_as_in_transformers(directory):
    config = old(huggingface.model_config(TINY), hidden_act="quick_gelu")
    for name in ("text_config", "vision_config"):
        config[name] = {"initializer_range": 0.5}
    theirs = transformers.CLIPConfig(**{k: v for k, v in copy.deepcopy(config).items() if k != "torch_dtype"})
    assert theirs.text_config.hidden_act == theirs.vision_config.hidden_act == "quick_gelu"
    assert load_foreign(directory("huggingface", config))[0].config.quick_gelu


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_act": "quick_gelu"}, "text_config.hidden_act is gelu and text_config_dict's quick_gelu, which trans"),
        ({"hidden_size": 8}, "text_config.hidden_size is 16 and text_config_dict's 8"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps is 1e-05 and text_config_dict's 1e-06"),
    ],
)
def test_old_dicts_that_contradict_are_refused(changes, said, directory):
    """transformers takes the old ones in silence: another activation, say."""
    config = old(huggingface.model_config(TINY), **changes)
    key = next(iter(changes))
    theirs = transformers.CLIPConfig(**{k: v for k, v in copy.deepcopy(config).items() if k != "torch_dtype"})
    assert getattr(theirs.text_config, key) == changes[key]
    assert said in refusal(directory("huggingface", config))


def test_old_dicts_that_leave_out_take_defaults_and_contradict_too(directory):
    config = huggingface.model_config(TINY)
    config["text_config_dict"] = {"hidden_size": 16}
    theirs = transformers.CLIPConfig(**{k: v for k, v in copy.deepcopy(config).items() if k != "torch_dtype"})
    assert theirs.text_config.hidden_act == "quick_gelu"
    assert "text_config.hidden_act is gelu and text_config_dict's quick_gelu" in refusal(
        directory("huggingface", config)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {  # all that transformers 5 writes
            **{"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, "do_convert_rgb": True},
            **{"image_processor_type": "CLIPImageProcessor", "do_rescale": True, "rescale_factor": 0.00392156862745098},
        },
        {"crop_size": [16, 16]},
        {"rescale_factor": 0.00392156862745098, "do_rescale": True, "do_convert_rgb": True},
        {"image_processor_type": "CLIPImageProcessorFast", "feature_extractor_type": None},
        {"image_processor_type": "CLIPImageProcessor", "processor_class": "CLIPProcessor", "use_square_size": False},
        {"image_mean": [0.481455, 0.457828, 0.408211], "_valid_processor_keys": ["images"]},
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_preparations_of_transformers_that_are_ours(changes, nested, directory):
    values = {**PREPROCESSOR, **changes}
    said = {"processor_config": {"image_processor": values, "processor_class": "CLIPProcessor"}} if nested else {}
    said = said or {"preprocessor_config": values}
    assert load_foreign(directory("huggingface", huggingface.model_config(TINY), **said))[0].config == TINY


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("vocab", {"a": 0}, "not CLIP's vocabulary"),
        ("tokenizer_config", {"do_lower_case": False}, "do_lower_case is False, not True"),
        (
            "tokenizer_config",
            {"tokenizer_class": "XLMRobertaTokenizer"},
            "tokenizer_class is XLMRobertaTokenizer, not CLIP",
        ),
        ("tokenizer_config", {"tokenizer_class": "CLIPTokenizerFast", "model_max_length": 77}, None),
    ],
)
def test_another_tokenizer_is_refused(name, value, said, directory):
    source = directory("huggingface", huggingface.model_config(TINY), **{name: value})
    if said:
        assert said in refusal(source)
    else:
        load_foreign(source)


def test_other_merges_are_refused(directory):
    source = directory("huggingface", huggingface.model_config(TINY))
    huggingface.write_processor(source, TINY, make_tokenizer(Clip(TINY)))
    load_foreign(source)
    merges = (source / "merges.txt").read_text().splitlines()
    merges[5], merges[6] = merges[6], merges[5]
    (source / "merges.txt").write_text("\n".join(merges))
    assert "merges.txt: not CLIP's merges" in refusal(source)


@pytest.fixture
def written_by_transformers(directory):
    """A directory with ``tokenizer.json``, as transformers saves it."""
    source = directory("huggingface", huggingface.model_config(TINY))
    huggingface.write_processor(source, TINY, make_tokenizer(Clip(TINY)))
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(source)
    return source


@pytest.mark.parametrize("form", ["as now", "as older versions", "with a template"])
def test_the_tokenizer_that_transformers_writes_is_ours(form, written_by_transformers):
    path = written_by_transformers / "tokenizer.json"
    values = json.loads(path.read_text())
    if form == "as older versions":
        values["model"]["merges"] = [" ".join(pair) for pair in values["model"]["merges"]]
        split = values["pre_tokenizer"]["pretokenizers"][0]["pattern"]
        split["Regex"] = split["Regex"].partition(r"<\|endoftext\|>|")[2]
        values["added_tokens"][0]["normalized"] = True
        values["truncation"] = {"direction": "Right", "max_length": 32, "strategy": "LongestFirst", "stride": 0}
    if form == "with a template":
        tokens = {token["content"]: token["id"] for token in values["added_tokens"]}
        start, end = ({"SpecialToken": {"id": token, "type_id": 0}} for token in tokens)
        values["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [start, {"Sequence": {"id": "A", "type_id": 0}}, end],
            "pair": [],
            "special_tokens": {
                token: {"id": token, "ids": [index], "tokens": [token]} for token, index in tokens.items()
            },
        }
    path.write_text(json.dumps(values))
    ours, theirs = make_tokenizer(Clip(TINY)), transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    caption = "A cat's 12 hats"
    assert theirs(caption)["input_ids"] == [ours.start_id, *ours.encode(caption), ours.end_id]
    load_foreign(written_by_transformers)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model.merges", [], "model.merges is not CLIP's merges"),
        ("model.merges", [[["a"], 3]], "model.merges is not CLIP's merges"),
        ("model.vocab", {"a": 0}, "model.vocab is not CLIP's vocabulary"),
        ("model.type", "WordPiece", "model.type is WordPiece, not BPE"),
        ("model.dropout", 0.1, "model.dropout is 0.1, not 0"),
        ("model.end_of_word_suffix", None, "model.end_of_word_suffix is None, not </w>"),
        ("model.ignore_merges", True, "model.ignore_merges is True, not False"),
        ("model", None, "model.vocab is not CLIP's vocabulary"),
        ("normalizer", None, "normalizer is not CLIP's"),
        ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer is not CLIP's"),
        ("post_processor", None, "post_processor is not CLIP's"),
        ("added_tokens", [{"id": 0, "content": "!"}], "'!' is an added token, which captions here have not"),
        ("added_tokens", [{"id": 3, "content": "<|endoftext|>"}], "<|endoftext|> has the id 3, not 1013"),
        ("added_tokens", [{"id": 3, "content": ["a"]}], "is an added token, which captions here have not"),
        ("added_tokens", 3, "added_tokens is not a list of tokens"),
    ],
)
def test_a_tokenizer_json_that_gives_other_ids_is_refused(path, value, said, written_by_transformers):
    file = written_by_transformers / "tokenizer.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    assert "tokenizer.json: captions are not prepared as here: " in (line := refusal(written_by_transformers))
    assert said in line


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("special_tokens_map", {"bos_token": "!"}, "bos_token is !, not <|startoftext|>"),
        ("special_tokens_map", {"pad_token": {"content": "!", "lstrip": False}}, "pad_token is !, not <|endoftext|>"),
        ("special_tokens_map", {"additional_special_tokens": ["<x>"]}, "additional_special_tokens has <x>, which"),
        ("tokenizer_config", {"eos_token": ["!"]}, "eos_token is ['!'], not <|endoftext|>"),
        ("tokenizer_config", {"extra_special_tokens": {"image_token": "<x>"}}, "extra_special_tokens has <x>, which"),
        ("tokenizer_config", {"added_tokens_decoder": {"0": {"content": "!"}}}, "'!' is an added token"),
        ("tokenizer_config", {"added_tokens_decoder": [3]}, "added_tokens_decoder is not a token for each id"),
        ("tokenizer_config", {"padding_side": "left"}, "padding_side is left, not right"),
        ("added_tokens", {"<x>": 1014}, "'<x>' is an added token"),
        ("added_tokens", {"<|endoftext|>": 1013}, None),
        ("special_tokens_map", {"bos_token": {"content": "<|startoftext|>", "normalized": True}}, None),
        (
            "tokenizer_config",
            {
                "added_tokens_decoder": {"1012": {"content": "<|startoftext|>"}},
                "bos_token": {"__type": "AddedToken", "content": "<|startoftext|>"},
                "additional_special_tokens": [],
                "tokenizer_file": None,
                "errors": "replace",
            },
            None,
        ),
    ],
)
def test_special_tokens_are_compared_wherever_they_are_named(name, value, said, directory):
    source = directory("huggingface", huggingface.model_config(TINY), **{name: value})
    if said:
        assert said in refusal(source)
    else:
        load_foreign(source)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": {"height": 16, "width": 16}}, "size is {'height': 16, 'width': 16}, not 16"),  # squashes
        ({"size": {"shortest_edge": 16, "longest_edge": 32}}, "size is {"),
        ({"size": 32}, "size is 32, not 16"),
        ({"size": None}, "size is 224, not 16"),  # their default
        ({"size": True}, "size is True, not 16"),
        ({"size": [16, 16]}, "size is [16, 16], not 16"),
        ({"crop_size": 8}, "crop_size is 8, not 16"),
        ({"crop_size": {"height": 16, "width": 8}}, "crop_size is [16, 8], not 16"),
        ({"crop_size": {"shortest_edge": 16}}, "crop_size is {'shortest_edge': 16}, not 16"),
        ({"do_resize": False}, "do_resize is False, not True"),
        ({"do_center_crop": False}, "do_center_crop is False, not True"),
        ({"do_rescale": False}, "do_rescale is False, not True"),
        ({"do_normalize": False}, "do_normalize is False, not True"),
        ({"do_pad": True}, "do_pad is True, not False"),
        ({"rescale_factor": 1.0}, "rescale_factor is 1.0, not 0.00392"),
        ({"resample": 2}, "resample is 2, not 3"),
        ({"image_mean": [0.5] * 3}, "image_mean is [0.5, 0.5, 0.5], not"),
        ({"image_std": 0.5}, "image_std is 0.5, not"),
        (
            {"image_processor_type": "ViTImageProcessor"},
            "image_processor_type is ViTImageProcessor, not CLIPImageProcessor",
        ),
        ({"use_square_size": True}, "use_square_size is True, not False"),
        ({"grey": True}, "grey is True, a field that is unknown here"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_preparations_of_transformers_that_differ_are_refused(changes, said, nested, directory):
    values = {**PREPROCESSOR, **changes}
    files = {"processor_config": {"image_processor": values}} if nested else {"preprocessor_config": values}
    source = directory("huggingface", huggingface.model_config(TINY), **files)
    assert said in refusal(source)


def test_a_preparation_beside_weights_without_a_config_is_compared_too(directory):
    source = directory("huggingface", {}, preprocessor_config={**PREPROCESSOR, "do_resize": False})
    (source / "config.json").unlink()
    assert "do_resize is False, not True" in refusal(source, architecture="tiny")

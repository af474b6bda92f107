"""The forms in which people have PyTorch weights: all of them come out as the same parameters, or say what to do."""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from salmu_jax.interop import open_clip, released
from salmu_jax.interop.foreign import describe, is_foreign, load_foreign
from salmu_jax.interop.reading import read_weights
from salmu_jax.models.positions import resample_positions
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError


class Config:
    """Stands for the config object of a package that is not here (omegaconf's, say)."""

    def __init__(self):
        self.parent, self.content = None, {"lr": 1e-7}


@pytest.fixture(scope="module")
def tensors(states):
    return {name: torch.tensor(array) for name, array in states["open_clip"].items()}


@pytest.fixture(scope="module")
def optimizer():
    """The state of an optimizer after a step: tensors below numbers below names."""
    weight = torch.nn.Parameter(torch.ones(3))
    made = torch.optim.AdamW([weight])
    weight.sum().backward()
    made.step()
    return made.state_dict()


def refusal(source, **options):
    with pytest.raises(InputError) as caught:
        load_foreign(source, **{"architecture": "tiny", **options})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    return str(caught.value)


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


FORMS = {
    "bare": lambda s, o: s,
    "LAVIS, the benchmark's baselines": lambda s, o: {
        "model": s,
        "optimizer": o,
        "config": Config(),
        "scaler": None,
        "epoch": 9,
    },
    "state_dict": lambda s, o: {"epoch": 3, "name": "run", "state_dict": s, "optimizer": o},
    "DDP": lambda s, o: {"state_dict": prefixed("module.", s)},
    "compiled": lambda s, o: prefixed("_orig_mod.", s),
    "DDP of compiled": lambda s, o: {"state_dict": prefixed("module._orig_mod.", s)},
    "compiled DDP": lambda s, o: prefixed("_orig_mod.module.", s),
    "Lightning": lambda s, o: {
        "state_dict": prefixed("model.", s),
        "hyper_parameters": {"args": argparse.Namespace(lr=1)},
        "pytorch-lightning_version": "2.1",
        "optimizer_states": [o],
    },
    "Lightning, compiled": lambda s, o: {"state_dict": prefixed("model._orig_mod.", s)},
    "model_state_dict": lambda s, o: {"model_state_dict": s, "optimizer_state_dict": o, "loss": 0.1},
    "EMA alone": lambda s, o: {"ema": s, "decay": 0.999},
    "EMA beside the model": lambda s, o: {"ema": {name: tensor + 1 for name, tensor in s.items()}, "model": s},
    "averaged by torch": lambda s, o: {"n_averaged": torch.tensor(3), **prefixed("module.", s)},
    "DeepSpeed": lambda s, o: {"module": s, "global_steps": 5, "ds_config": {}},
    "two levels": lambda s, o: {"model": {"state_dict": s, "step": 1}},
    "a name of their own": lambda s, o: {"my_clip": s, "optimizer": o},
    "a prefix of their own": lambda s, o: {"model": prefixed("clip.backbone.", s)},
    "parts compiled": lambda s, o: {
        name.replace("visual.", "visual._orig_mod.").replace(
            "resblocks.0.", "resblocks.0._checkpoint_wrapped_module."
        ): t
        for name, t in s.items()
    },
    "entries beside the tensors": lambda s, o: {
        **s,
        "epoch": 3,
        "args": argparse.Namespace(a=pathlib.PurePosixPath("/")),
    },
    "scale as a row": lambda s, o: {**s, "logit_scale": s["logit_scale"].reshape(1)},
    "scale as a table": lambda s, o: {"model": {**s, "logit_scale": s["logit_scale"].reshape(1, 1)}},
    "OpenAI's archives": lambda s, o: {
        **s,
        "input_resolution": torch.tensor(16),
        "context_length": torch.tensor(32),
        "vocab_size": torch.tensor(1014),
    },
    "an older OpenCLIP": lambda s, o: {**s, "attn_mask": torch.zeros(32, 32)},
    "a text tower apart": lambda s, o: {
        name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}": t for name, t in s.items()
    },
    "a text tower apart, wrapped": lambda s, o: {"model": prefixed("module.", FORMS["a text tower apart"](s, o))},
    "tied": lambda s, o: {**s, "copy": s["visual.proj"]},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_parameters(form, tensors, optimizer, tmp_path, assert_same):
    torch.save(FORMS[form](dict(tensors), optimizer), tmp_path / "checkpoint_best.pth")
    if form == "tied":
        assert "1 problem(s): copy is not part of this architecture" in refusal(tmp_path / "checkpoint_best.pth")
        return
    clip, params, manifest = load_foreign(tmp_path / "checkpoint_best.pth", architecture="tiny")
    assert_same(params)
    assert clip.config == architecture("tiny")
    assert manifest["source"]["format"] == "open_clip"
    assert manifest["name"] is None  # its file's name is not the model's


def test_what_was_done_to_find_them_is_kept(tensors, optimizer, tmp_path):
    torch.save(FORMS["Lightning"](tensors, optimizer), tmp_path / "x.ckpt")
    source = load_foreign(tmp_path / "x.ckpt", architecture="tiny")[2]["source"]
    assert (source["within"], source["prefix"]) == ("state_dict", "model")
    assert source["passed_over"] == ["hyper_parameters", "pytorch-lightning_version", "optimizer_states"]


@pytest.mark.parametrize("library", ["open_clip", "huggingface"])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_the_form_is_evident_from_the_names(library, suffix, states, tmp_path, assert_same):
    state = prefixed("model.", states[library])
    path = tmp_path / f"any name.{suffix}"
    if suffix == "bin":
        torch.save({name: torch.tensor(array) for name, array in state.items()}, path)
    else:
        save_file(state, path)
    other = "huggingface" if library == "open_clip" else "open_clip"
    assert f"the names of the other form: --from {library}" in refusal(path, source_format=other)
    for source_format in (None, library):
        _, params, manifest = load_foreign(path, source_format=source_format, architecture="tiny")
        assert_same(params)
        assert manifest["source"]["format"] == library
    assert is_foreign(path)
    assert is_foreign(tmp_path)


def test_tensors_of_another_model_and_no_tensors_are_said_so(tmp_path):
    save_file({"conv.weight": np.ones(2, np.float32)}, tmp_path / "x.safetensors")
    said = refusal(tmp_path / "x.safetensors")
    assert "neither OpenCLIP's nor transformers' CLIP by the names of its tensors: weight" in said
    said = refusal(tmp_path / "x.safetensors", source_format="open_clip")
    assert "and 2" in said
    for value, kind in (({}, "dictionary without tensors"), ([1], "list"), (torch.ones(1), "tensor"), (3, "int")):
        torch.save(value, tmp_path / "x.pt")
        assert f"holds a {kind}, not a state dict" in refusal(tmp_path / "x.pt")
    torch.save({"epoch": 1, "model": {"a": 1}}, tmp_path / "x.pt")
    assert "holds a dictionary without tensors, not a state dict" in refusal(tmp_path / "x.pt")
    torch.save({1: torch.ones(1)}, tmp_path / "x.pt")
    assert "one of its keys is not text" in refusal(tmp_path / "x.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt")
    assert "holds an object of torch.nn.modules.linear.Linear, not a state dict; save model.state_dict()" in refusal(
        tmp_path / "x.pt"
    )
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "x.pt")
    assert "not a state dict" in refusal(tmp_path / "x.pt")


def test_two_text_towers_are_refused(tensors, tmp_path):
    torch.save(
        {**tensors, **{f"text.{name}": t for name, t in tensors.items() if "positional" in name}}, tmp_path / "x.pt"
    )
    assert "its text tower is there twice" in refusal(tmp_path / "x.pt")


def test_a_checkpoint_that_holds_itself_ends(tmp_path):
    loop = {"epoch": 1}
    loop["model"] = loop["state_dict"] = loop
    torch.save(loop, tmp_path / "x.pt")
    assert "holds a dictionary without tensors, not a state dict" in refusal(tmp_path / "x.pt")
    wide = {}
    for _ in range(30):
        wide = {key: wide for key in ("state_dict", "model", "module", "ema", "net")}
    torch.save(wide, tmp_path / "x.pt")
    assert "holds a dictionary without tensors, not a state dict" in refusal(tmp_path / "x.pt")


def test_names_of_any_length_are_one_short_line(tmp_path):
    torch.save({"a." * 1_000_000: torch.ones(1)}, tmp_path / "x.pt")
    assert "a tensor has a name of 2,000,000 characters; at most 500 are read" in refusal(tmp_path / "x.pt")
    torch.save({"a." * 200 + str(index): torch.ones(1) for index in range(20)}, tmp_path / "x.pt")
    assert "neither OpenCLIP's nor transformers' CLIP" in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize("size", [0, -16, 10**9])
def test_image_sizes_are_bounded(size, tensors, tmp_path):
    torch.save(tensors, tmp_path / "x.pt")
    assert "--image-size: " in refusal(tmp_path / "x.pt", image_size=size)


def test_names_of_what_is_not_read_cannot_steer_a_terminal(tensors, tmp_path):
    torch.save({"state_dict": prefixed("\x1b[2J.", tensors), "\x1b]0;x\x07": 1}, tmp_path / "x.pt")
    manifest = load_foreign(tmp_path / "x.pt", architecture="tiny")[2]
    assert "\x1b" not in describe(manifest) + json.dumps(manifest, ensure_ascii=False)
    torch.save({**tensors, "\x1b[2J": torch.ones(1)}, tmp_path / "x.pt")
    assert "\x1b" not in refusal(tmp_path / "x.pt")


def test_two_tensors_that_would_get_one_name_are_refused(tensors, tmp_path):
    torch.save({**tensors, "visual._orig_mod.proj": tensors["visual.proj"]}, tmp_path / "x.pt")
    assert "two tensors are called visual.proj" in refusal(tmp_path / "x.pt")


def test_every_name_of_a_model_may_be_wrong_in_one_short_line(tensors, tmp_path):
    torch.save({f"{name}_x" if "visual" not in name else name: t for name, t in tensors.items()}, tmp_path / "x.pt")
    said = refusal(tmp_path / "x.pt")
    assert "is missing" in said
    assert "; and " in said
    assert said.count(";") == 10


# Positions of another size --------------------------------------------------------------------------------------------


@pytest.fixture
def larger(tensors, tmp_path):
    """Weights for images of 32 pixels, 4 x 4 patches, without a config."""
    positions = torch.randn(17, 16, generator=torch.Generator().manual_seed(0))
    torch.save({**tensors, "visual.positional_embedding": positions}, tmp_path / "large.pt")
    return tmp_path / "large.pt", positions.numpy()


def test_positions_of_another_size_say_which_and_how(larger):
    said = refusal(larger[0])
    assert (
        "its positions are for images of 32 pixels, not 16: --image-size 32 keeps them, --image-size 16 resamples"
        in said
    )


def test_positions_are_kept_or_resampled(larger):
    path, positions = larger
    clip, params, manifest = load_foreign(path, architecture="tiny", image_size=32)
    assert clip.config.image_size == 32
    assert manifest["source"]["positions_resampled_from"] is None
    np.testing.assert_array_equal(params["visual"]["positional_embedding"], positions)
    for size in (16, 48):
        clip, found, manifest = load_foreign(path, architecture="tiny", image_size=size)
        assert clip.config.image_size == size
        assert manifest["source"]["positions_resampled_from"] == 32
        config = dataclasses.replace(architecture("tiny"), image_size=32)
        expected = resample_positions(params, config, size)["visual"]["positional_embedding"]
        np.testing.assert_array_equal(found["visual"]["positional_embedding"], expected)


def test_positions_that_are_no_square_are_of_the_wrong_shape(tensors, tmp_path):
    torch.save({**tensors, "visual.positional_embedding": torch.zeros(8, 16)}, tmp_path / "x.pt")
    assert "visual.positional_embedding is [8, 16], not [5, 16]" in refusal(tmp_path / "x.pt")


# Kinds of numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        (torch.float8_e4m3fn, "visual.proj is float8_e4m3fn, not float32"),
        (torch.float64, "visual.proj is float64, not float32"),
        (torch.int8, "visual.proj is int8, not float32"),
        (torch.bfloat16, "1 tensors are bfloat16, half precision (--allow-half widens them), such as visual.proj"),
    ],
)
def test_numbers_of_other_kinds_are_named(dtype, said, tensors, tmp_path):
    torch.save({**tensors, "visual.proj": tensors["visual.proj"].to(dtype)}, tmp_path / "x.pt")
    assert f"1 problem(s): {said}" in refusal(tmp_path / "x.pt")


def test_a_tensor_that_claims_its_size_by_repeating_is_refused(tensors, tmp_path):
    """Of the right shape, but of one number only: so may all of a model of any size be."""
    torch.save({**tensors, "visual.proj": torch.zeros(1).expand(16, 16)}, tmp_path / "x.pt")
    assert "visual.proj is a view that repeats its numbers" in refusal(tmp_path / "x.pt")


def test_many_views_of_few_numbers_are_no_model(tensors, tmp_path):
    """Each has its right shape, and numbers enough behind it: so may a model of any size be of a small file."""
    flat = torch.zeros(2000)
    state = {name: flat[: t.numel()].reshape(t.shape) if t.numel() < 2000 else t for name, t in tensors.items()}
    torch.save({**state, "token_embedding.weight": torch.zeros(1014 * 16).reshape(1014, 16)}, tmp_path / "x.pt")
    load_foreign(tmp_path / "x.pt", architecture="tiny")  # a few are tied: let pass
    big = torch.zeros(1014 * 16)
    torch.save({name: big[: t.numel()].reshape(t.shape) for name, t in tensors.items()}, tmp_path / "x.pt")
    load_foreign(tmp_path / "x.pt", architecture="tiny")
    config = open_clip.model_config(architecture("tiny"))
    config["model_cfg"]["vision_cfg"]["layers"] = 100
    (tmp_path / open_clip.CONFIG).write_text(json.dumps(config))
    layer = {name: t for name, t in tensors.items() if name.startswith("visual.transformer.resblocks.0.")}
    more = {name.replace(".0.", f".{index}."): t for index in range(100) for name, t in layer.items()}
    torch.save({name: big[: t.numel()].reshape(t.shape) for name, t in {**tensors, **more}.items()}, tmp_path / "x.pt")
    assert "tensors are views of the same 16,224 numbers" in refusal(tmp_path / "x.pt", architecture=None)


@pytest.mark.parametrize("name", ["0123456789abcdef", "weights.bin", "weights.safetensors", "model.pt.download"])
@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_what_a_file_is_goes_by_how_it_begins(kind, name, states, tmp_path, assert_same):
    """A cache of downloads calls files by their digests; and many are called .bin that are none."""
    if kind == "zip":
        torch.save({name: torch.tensor(array) for name, array in states["open_clip"].items()}, tmp_path / name)
    else:
        save_file(states["open_clip"], tmp_path / name)
    assert_same(load_foreign(tmp_path / name, architecture="tiny")[1])


# The published files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1])
def test_published_files_are_recognised_whatever_they_are_called(index, states, tmp_path, monkeypatch, assert_same):
    path = tmp_path / "downloaded (1).safetensors"
    save_file(states["open_clip"], path)
    model = dataclasses.replace(released.MODELS[index], architecture="tiny", sha256=files.sha256_file(path))
    monkeypatch.setattr(released, "MODELS", (model,))
    _, params, manifest = load_foreign(path)
    assert_same(params)
    assert manifest["name"] == manifest["source"]["published"] == model.name
    assert f"the published {model.name} is tiny, not ViT-B-16" in refusal(path, architecture="ViT-B-16")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"give --architecture, such as ViT-B-16"):
        load_foreign(path)


def test_the_published_digests_are_those_of_the_hub():
    assert {model.name: model.sha256[:12] for model in released.MODELS} == {
        "salmu-clean": "ff944079f8f5",
        "salmu-compromised": "c48f390a3945",
    }
    assert all(len(model.sha256) == 64 for model in released.MODELS)


# Shards ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "../x.safetensors", "/etc/passwd", "a/b.bin", "x.json", "x\0.bin"])
def test_an_index_that_names_no_shard_is_refused(name, tmp_path):
    files.write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"a": name}})
    assert "is not a weights file in the directory" in refusal(tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize("index", [[], {}, {"weight_map": {}}, {"weight_map": {"a": 1}}, {"weight_map": ["a"]}])
def test_an_index_that_is_none_is_refused(index, tmp_path):
    files.write_json(tmp_path / "model.safetensors.index.json", index)
    assert "field 'weight_map' has to name the file of every tensor" in refusal(
        tmp_path / "model.safetensors.index.json"
    )


def test_shards_hold_what_their_index_says(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    one = np.ones(2, np.float32)
    save_file({"m.a": one, "m.b": one}, tmp_path / "1.safetensors")
    save_file({"m.c": one}, tmp_path / "2.safetensors")
    right = {"m.a": "1.safetensors", "m.b": "1.safetensors", "m.c": "2.safetensors"}
    files.write_json(path, {"metadata": {"total_size": 24}, "weight_map": right})
    assert list(read_weights(path).tensors) == ["a", "b", "c"]
    files.write_json(path, {"weight_map": {name: file for name, file in right.items() if name != "m.b"}})
    assert "1.safetensors: holds other tensors than model.safetensors.index.json says: m.b" in refusal(path)
    files.write_json(path, {"weight_map": {**right, "m.d": "2.safetensors"}})
    assert "2.safetensors: holds other tensors than model.safetensors.index.json says: m.d" in refusal(path)
    files.write_json(path, {"weight_map": {**right, "m.d": "3.safetensors"}})
    assert "3.safetensors: no such file" in refusal(path)
    os.mkfifo(tmp_path / "3.safetensors")
    assert "3.safetensors: it is a pipe; a regular file is needed" in refusal(path)


@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
@pytest.mark.parametrize("name", ["x.safetensors", "x.bin", open_clip.WEIGHTS, open_clip.CONFIG])
def test_what_is_no_regular_file_is_not_opened(kind, name, states, tmp_path):
    if name == open_clip.CONFIG:
        save_file(states["open_clip"], tmp_path / "x.safetensors")
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    source = tmp_path if name in (open_clip.WEIGHTS, open_clip.CONFIG) else tmp_path / name
    assert "a regular file is needed" in refusal(source)


def test_a_model_directory_of_ours_is_not_foreign(tiny):
    assert not is_foreign(tiny[0])
    assert "a model directory already" in refusal(tiny[0])


def test_a_model_directory_of_ours_without_its_manifest_is_not_taken_for_weights(tiny, tmp_path):
    model = shutil.copytree(tiny[0], tmp_path / "model")
    (model / "manifest.json").unlink()
    assert not is_foreign(model)
    assert "a model directory without its manifest.json; make the model again" in refusal(model)


UNREAD = {
    "visual.proj": (lambda tensor: tensor.to_sparse(), "a sparse tensor (save its to_dense())"),
    "visual.conv1.weight": (lambda tensor: tensor.to("meta"), "a tensor on the meta device, which has no numbers"),
    "text_projection": (
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        "a quantised tensor (save the model before it is quantised)",
    ),
    "logit_scale": (float, "a plain number, not a tensor"),
    "positional_embedding": (lambda tensor: tensor.numpy(), "a numpy array, not a tensor"),
    "visual.class_embedding": (lambda tensor: None, "None, not a tensor"),
    "ln_final.bias": (lambda tensor: tensor.tolist(), "a list, not a tensor"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["bare", "compiled DDP", "a text tower apart, wrapped"])
def test_what_is_no_plain_tensor_is_called_what_it_is(form, tensors, optimizer, tmp_path):
    state = {name: UNREAD[name][0](tensor) if name in UNREAD else tensor for name, tensor in tensors.items()}
    torch.save(FORMS[form](state, optimizer), tmp_path / "x.pt")
    said = refusal(tmp_path / "x.pt")
    assert f"{len(UNREAD)} problem(s): " in said
    for name, (_, what) in UNREAD.items():
        assert f"{name} is {what}" in said


@pytest.mark.parametrize("form", ["bare", "state_dict"])
def test_a_model_without_any_numbers_is_called_so(form, tensors, optimizer, tmp_path):
    state = {name: tensor.to("meta") for name, tensor in tensors.items()}
    torch.save(FORMS[form](state, {}), tmp_path / "x.pt")
    said = refusal(tmp_path / "x.pt")
    assert "none of its tensors can be read: logit_scale is a tensor on the meta device, which has" in said

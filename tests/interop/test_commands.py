"""``salmu export`` and ``salmu import`` on a small model: what they write, and every way a file can be wrong, in one line."""

import dataclasses
import importlib
import json
import re
import shutil
import sys
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers
from random_models import random_params
from safetensors.numpy import load_file, save_file

from salmu_jax import cli
from salmu_jax.interop import commands, huggingface, open_clip, parity, released
from salmu_jax.interop.mapping import to_state
from salmu_jax.models.build import make_tokenizer
from salmu_jax.models.clip import TowerConfig
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime import files
from salmu_jax.training.checkpoint import load_model, read_manifest, save_model

FORMATS = ("open_clip", "huggingface")


@pytest.fixture(scope="module")
def exports(tiny, tmp_path_factory):
    """The directory with both exports of the small model."""
    directory = tmp_path_factory.mktemp("exports")
    for to in FORMATS:
        assert cli.main(["export", "--to", to, "--checkpoint", str(tiny[0]), "--output", str(directory / to)]) == 0
    return directory


def run(*arguments, capsys):
    """(status, the one line of an error)."""
    status = cli.main([str(argument) for argument in arguments])
    printed = capsys.readouterr().err
    if status:
        assert status == 2
        assert printed.count("\n") == 1
    return status, printed


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_says_what_it_is_and_how_far_it_was_compared(to, tiny, exports):
    manifest = read_manifest(tiny[0])
    report = json.loads((exports / to / "parity.json").read_text())
    assert report["compared"]
    assert 0 <= max(report["max_abs_difference"].values()) < 1e-5
    assert set(report["max_abs_difference"]) == {"image", "text"}
    assert {"torch", "jax"} < set(report["versions"])
    card = (exports / to / "README.md").read_text()
    for text in (manifest["digest"], "fictitious", "tiny", "a/b", "gelu", "parity.json", "paper"):
        assert text in card


@pytest.mark.parametrize("to", FORMATS)
def test_it_comes_back_to_the_bit_and_remembers_where_from(to, tiny, exports, tmp_path, capsys):
    assert run("import", "--from", to, exports / to, "--output", tmp_path / "back", capsys=capsys)[0] == 0
    _, params, manifest = load_model(tmp_path / "back", tiny[1].config)
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(tiny[2]), strict=True):
        assert np.asarray(ours).tobytes() == theirs.tobytes()
    assert manifest["digest"] == read_manifest(tiny[0])["digest"]
    weights = {"open_clip": open_clip.WEIGHTS, "huggingface": huggingface.WEIGHTS}[to]
    assert manifest["source"]["file"] == weights
    assert len(manifest["source"]["sha256"]) == 64


def test_an_export_loads_as_its_page_says(exports):
    text = (Path(__file__).parents[2] / "docs" / "pytorch.md").read_text(encoding="utf-8")
    lines = re.search(r"An export loads without changes:\n\n```python\n(.*?)```", text, re.DOTALL)[1].splitlines()
    assert len(lines) == len(FORMATS)
    for line in lines:
        names = {"open_clip": importlib.import_module("open_clip"), "transformers": transformers}
        model = eval(line.replace("exported", str(exports)), names)
        assert model.logit_scale.item() == pytest.approx(2.7)


def test_transformers_tokenizer_reads_the_exports_files_and_gives_our_ids(exports):
    theirs = transformers.CLIPTokenizer.from_pretrained(exports / "huggingface")
    ours = make_tokenizer(commands.Clip(architecture("tiny")))
    captions = ["A photo of a cat", "Siqi Yue's blood type is A+", "call +237 57483907 now"]
    for caption in captions:
        assert theirs(caption)["input_ids"] == [ours.start_id, *ours.encode(caption), ours.end_id]
    processor = json.loads((exports / "huggingface" / "preprocessor_config.json").read_text())
    assert processor["crop_size"] == {"height": 16, "width": 16}
    assert processor["resample"] == 3


def test_without_the_library_the_report_says_so(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    output = tmp_path / "export"
    assert run("export", "--to", "open_clip", "--checkpoint", tiny[0], "--output", output, capsys=capsys)[0] == 0
    report = json.loads((output / "parity.json").read_text())
    assert report["compared"] is False
    assert "open_clip" in report["reason"]


def test_embeddings_that_differ_leave_nothing_behind(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parity, "TOLERANCE", 1e-12)
    arguments = ("export", "--to", "open_clip", "--checkpoint", tiny[0], "--output", tmp_path / "export")
    status, line = run(*arguments, capsys=capsys)
    assert status == 2
    assert "open_clip_torch computes other embeddings (max difference: image" in line
    assert not list(tmp_path.iterdir())


def copy_unsealed(export, directory):
    """A copy of an export without the digests of its files, to be changed; its path."""
    shutil.copytree(export, directory)
    (directory / "salmu.json").unlink()
    return directory


# What can be wrong with what is imported ------------------------------------------------------------------------------


@pytest.fixture
def damaged(exports, tmp_path):
    """``damaged(change)``: OpenCLIP's export with a changed state; its directory."""

    def make(change):
        directory = copy_unsealed(exports / "open_clip", tmp_path / "damaged")
        state = load_file(directory / open_clip.WEIGHTS)
        change(state)
        save_file(state, directory / open_clip.WEIGHTS)
        return directory

    return make


def import_line(directory, tmp_path, capsys, *options):
    status, line = run(
        "import", "--from", "open_clip", directory, "--output", tmp_path / "out", *options, capsys=capsys
    )
    assert status == 2
    assert not (tmp_path / "out").exists()
    return line


def test_all_that_is_wrong_with_the_tensors_is_named_at_once(damaged, tmp_path, capsys):
    def change(state):
        del state["ln_final.bias"]
        state["visual.extra"] = np.zeros(3, np.float32)
        state["text_projection"] = np.zeros((16, 8), np.float32)
        state["visual.proj"] = state["visual.proj"].astype(np.float64)
        state["visual.class_embedding"][3] = np.nan
        state["attn_mask"] = np.zeros((2, 2), np.float32)  # of older versions: no problem

    line = import_line(damaged(change), tmp_path, capsys)
    assert "5 problem(s)" in line
    for problem in (
        "ln_final.bias is missing",
        "visual.extra is not part of this architecture",
        "text_projection is [16, 8], not [16, 16]",
        "visual.proj is float64, not float32",
        "visual.class_embedding holds values that are not finite",
    ):
        assert problem in line


def test_half_precision_is_named_and_only_taken_when_told(damaged, tiny, tmp_path, capsys):
    def change(state):
        state.update({name: tensor.astype(np.float16) for name, tensor in state.items()})

    directory = damaged(change)
    line = import_line(directory, tmp_path, capsys)
    assert "38 tensors are float16, half precision (--allow-half widens them), such as " in line
    arguments = ("import", "--from", "open_clip", directory, "--output", tmp_path / "out", "--allow-half")
    assert run(*arguments, capsys=capsys)[0] == 0
    _, params, manifest = load_model(tmp_path / "out")
    assert manifest["source"]["widened_from_half_precision"] == 38
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(tiny[2]), strict=True):
        np.testing.assert_array_equal(ours, theirs.astype(np.float16).astype(np.float32))


def test_a_wrong_activation_names_the_right_architecture(exports, tmp_path, capsys, monkeypatch):
    directory = copy_unsealed(exports / "open_clip", tmp_path / "quick")
    config = open_clip.model_config(architecture("ViT-B-16-quickgelu"))
    (directory / open_clip.CONFIG).write_text(json.dumps(config))
    line = import_line(directory, tmp_path, capsys, "--architecture", "ViT-B-16")
    assert "not ViT-B-16: quick_gelu is True, not False; --architecture ViT-B-16-quickgelu is the right one" in line


def test_weights_alone_do_not_say_their_architecture(exports, tmp_path, capsys):
    weights = shutil.copy(exports / "open_clip" / open_clip.WEIGHTS, tmp_path)
    line = import_line(weights, tmp_path, capsys)
    assert "no open_clip_config.json beside it: give --architecture, such as ViT-B-16 or ViT-B-16-quickgelu" in line
    line = import_line(weights, tmp_path, capsys, "--architecture", "ViT-B-61")
    assert "unknown architecture 'ViT-B-61'; did you mean 'ViT-B-16'?" in line
    arguments = ("import", "--from", "open_clip", weights, "--output", tmp_path / "out", "--architecture", "tiny")
    assert run(*arguments, capsys=capsys)[0] == 0


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 600000000\n"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", "not a readable safetensors file"),
        ("x.bin", b"PK but no archive", "not a zip archive as torch.save writes"),
        ("x.bin", LFS, "x.bin: a pointer of Git LFS, not the file itself; run 'git lfs pull'"),
        ("x.safetensors", LFS, "x.safetensors: a pointer of Git LFS, not the file itself"),
        ("x.pt", b"<!DOCTYPE html><html></html>", "x.pt: an HTML page, not weights: a download that needed a login"),
        ("x.safetensors", b"\xef\xbb\xbf\n<html lang=en>", "x.safetensors: an HTML page, not weights"),
        ("x.npz", b"", ".npz suffix; .safetensors, .bin, .pt, .pth, .ckpt are read"),
    ],
)
def test_files_that_cannot_be_read(name, data, said, tmp_path, capsys):
    (tmp_path / name).write_bytes(data)
    assert said in import_line(tmp_path / name, tmp_path, capsys, "--architecture", "tiny")


def test_directories_without_weights_and_names_that_are_nothing(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    line = import_line(tmp_path / "empty", tmp_path, capsys)
    assert "holds no weights; expected one of open_clip_model.safetensors, open_clip_pytorch_model.bin" in line
    line = import_line("salmu-cleen", tmp_path, capsys)
    assert "no such file or directory, and no published model; those are salmu-clean, salmu-compromised" in line


def test_shards_are_put_together(exports, tiny, tmp_path, capsys):
    state = load_file(exports / "huggingface" / huggingface.WEIGHTS)
    names = sorted(state)
    directory = tmp_path / "sharded"
    directory.mkdir()
    shutil.copy(exports / "huggingface" / "config.json", directory)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: state[name] for name in part}, directory / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    # Several files of weights: the index says how they belong together.
    arguments = ("import", "--from", "huggingface", directory, "--output", tmp_path / "out")
    assert run(*arguments, capsys=capsys)[0] == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest["digest"] == read_manifest(tiny[0])["digest"]
    assert manifest["source"]["shards"].keys() == shards.keys()


def test_another_image_size_resamples_the_positions(exports, tmp_path, capsys):
    arguments = ("import", "--from", "open_clip", exports / "open_clip", "--output", tmp_path / "out")
    assert run(*arguments, "--image-size", 32, capsys=capsys)[0] == 0
    clip, params, manifest = load_model(tmp_path / "out")
    assert clip.config.image_size == 32
    assert params["visual"]["positional_embedding"].shape == (17, 16)
    assert manifest["source"]["positions_resampled_from"] == 16


@pytest.mark.parametrize(
    ("part", "field", "value", "said"),
    [
        ("vision_cfg", "layers", [3, 4, 6, 3], "layers is [3, 4, 6, 3], not a positive integer"),
        ("vision_cfg", "no_ln_pre", True, "no_ln_pre is True, not False"),
        ("text_cfg", "norm_kwargs", {"eps": 1e-6}, "norm_kwargs is {'eps': 1e-06}, not False"),
        ("text_cfg", "pool_type", "last", "pool_type is last, not argmax"),
        ("text_cfg", "width", "16", "not the config of a CLIP with two transformers"),
    ],
)
def test_configs_of_what_we_do_not_compute_are_refused(part, field, value, said, exports, tmp_path, capsys):
    directory = copy_unsealed(exports / "open_clip", tmp_path / "other")
    config = json.loads((directory / open_clip.CONFIG).read_text())
    config["model_cfg"][part][field] = value
    (directory / open_clip.CONFIG).write_text(json.dumps(config))
    assert said in import_line(directory, tmp_path, capsys)


@pytest.mark.parametrize(
    ("to", "file", "change"),
    [
        ("open_clip", "open_clip_config.json", lambda v: v["preprocess_cfg"].update(mean=[0.5] * 3)),
        ("huggingface", "preprocessor_config.json", lambda v: v.update(image_mean=[0.5] * 3)),
    ],
)
def test_another_preparation_of_images_is_refused(to, file, change, exports, tmp_path, capsys):
    directory = copy_unsealed(exports / to, tmp_path / "other")
    values = json.loads((directory / file).read_text())
    change(values)
    (directory / file).write_text(json.dumps(values))
    arguments = ("import", "--from", to, directory, "--output", tmp_path / "out")
    assert "mean is [0.5, 0.5, 0.5], not [0.48145466, " in run(*arguments, capsys=capsys)[1]


def test_a_directory_with_something_in_it_is_never_replaced(exports, tiny, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    said = "is there already and not empty; name a new directory"
    arguments = ("import", "--from", "open_clip", exports / "open_clip", "--output", tmp_path / "out")
    assert said in run(*arguments, capsys=capsys)[1]
    arguments = ("export", "--to", "open_clip", "--checkpoint", tiny[0], "--output", tiny[0])
    assert said in run(*arguments, capsys=capsys)[1]
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    read_manifest(tiny[0])


def test_a_logit_bias_goes_to_open_clip_and_back_and_not_to_transformers(tmp_path, capsys):
    config = dataclasses.replace(architecture("tiny"), logit_bias=True)
    clip = commands.Clip(config)
    params = {**random_params(clip), "logit_bias": np.float32(-9.5)}
    save_model(tmp_path / "model", clip, jax.tree.map(jax.numpy.asarray, params), {})
    arguments = ("export", "--checkpoint", tmp_path / "model", "--output", tmp_path / "theirs", "--to")
    assert "CLIPModel has no logit bias; export to open_clip" in run(*arguments, "huggingface", capsys=capsys)[1]
    assert run(*arguments, "open_clip", capsys=capsys)[0] == 0
    assert json.loads((tmp_path / "theirs" / "parity.json").read_text())["compared"]
    weights = shutil.copy(tmp_path / "theirs" / open_clip.WEIGHTS, tmp_path)
    for name, source in (("directory", tmp_path / "theirs"), ("file", weights)):
        options = ("--output", tmp_path / name, "--architecture", "tiny")
        assert run("import", "--from", "open_clip", source, *options, capsys=capsys)[0] == 0
        assert read_manifest(tmp_path / name)["digest"] == read_manifest(tmp_path / "model")["digest"]


def test_an_index_that_names_itself_is_refused(tmp_path, capsys):
    name = "model.safetensors.index.json"
    (tmp_path / name).write_text(json.dumps({"weight_map": {"a": name}}))
    line = import_line(tmp_path / name, tmp_path, capsys, "--architecture", "tiny")
    assert f"'{name}' is not a weights file in the directory" in line


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_an_import_takes_little_more_memory_than_the_weights(kind, tmp_path):
    """In Python's and numpy's own count: the parameters, and one tensor of the file at a time."""
    config = dataclasses.replace(architecture("tiny"), text=TowerConfig(width=1024, layers=2, heads=4))
    shapes = jax.eval_shape(commands.Clip(config).init, jax.random.key(0))
    state = to_state(jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes), open_clip.table(config))
    if kind == "bin":
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        torch.save(tensors, tmp_path / open_clip.OTHER_WEIGHTS[0])
        del tensors
    else:
        save_file(state, tmp_path / open_clip.WEIGHTS)
    (tmp_path / open_clip.CONFIG).write_text(json.dumps(open_clip.model_config(config)))
    size = sum(array.nbytes for array in state.values())
    assert size > 100 << 20
    del state
    tracemalloc.start()
    try:
        commands.import_model(str(tmp_path), tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < peak < 1.5 * size


# The published models -------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(exports, tmp_path, monkeypatch):
    """A hub that holds 'tiny' under the published names: as safetensors, and as a raw state dict of torch.save."""
    asked = []
    state = load_file(exports / "open_clip" / open_clip.WEIGHTS)
    save_file(state, tmp_path / "open_clip_model.safetensors")
    torch.save({name: torch.tensor(array) for name, array in state.items()}, tmp_path / "open_clip_pytorch_model.bin")

    def hf_hub_download(repository, file, *, revision):
        asked.append((repository, file, revision))
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    models = [
        dataclasses.replace(model, architecture="tiny", sha256=files.sha256_file(tmp_path / model.file))
        for model in released.MODELS
    ]
    monkeypatch.setattr(released, "MODELS", tuple(models))
    return asked


@pytest.mark.parametrize(
    ("name", "repository", "file"),
    [
        ("salmu-clean", "cvc-mmu/clip-vit-b-16-salmu-clean", "open_clip_model.safetensors"),
        ("salmu-compromised", "cvc-mmu/clip-vit-b-16-salmu-compromised", "open_clip_pytorch_model.bin"),
        ("cvc-mmu/clip-vit-b-16-salmu-compromised",) * 2 + ("open_clip_pytorch_model.bin",),
    ],
)
def test_published_models_come_by_name_at_a_pinned_revision(name, repository, file, hub, tiny, tmp_path, capsys):
    revision = "0123456789abcdef0123456789abcdef01234567"
    arguments = ("import", "--from", "open_clip", name, "--output", tmp_path / "out", "--revision", revision)
    assert run(*arguments, capsys=capsys)[0] == 0
    assert hub == [(repository, file, revision)]
    manifest = read_manifest(tmp_path / "out")
    assert manifest["source"]["revision"] == revision
    assert manifest["digest"] == read_manifest(tiny[0])["digest"]


def test_published_models_without_a_revision_or_a_hub_say_which_file_to_get(hub, tmp_path, capsys, monkeypatch):
    line = import_line("salmu-compromised", tmp_path, capsys)
    assert (
        "with --revision and the 40 digits of a commit only; or download open_clip_pytorch_model.bin of cvc-mmu/"
        in line
    )
    assert "40 digits" in import_line("salmu-clean", tmp_path, capsys, "--revision", "main")
    assert not hub
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    line = import_line("salmu-clean", tmp_path, capsys, "--revision", "a" * 40)
    assert "huggingface_hub is not installed" in line
    assert "download open_clip_model.safetensors" in line


def test_the_published_architecture_is_vit_b_16():
    assert {model.architecture for model in released.MODELS} == {"ViT-B-16"}

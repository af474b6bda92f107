"""A model that was saved comes back bit for bit, or the damage is found and named."""

import contextlib
import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from salmu_jax.models.build import input_manifest, make_tokenizer
from salmu_jax.models.clip import Clip
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime.errors import InputError
from salmu_jax.training.checkpoint import (
    leaf_records,
    load_model,
    mismatches,
    read_manifest,
    save_model,
    shape_records,
    tree_digest,
)
from salmu_jax.training.mesh import make_mesh, param_shardings

CLIP = Clip(architecture("tiny"))

# A read of Orbax that fails leaves callbacks behind, for an event loop that is closed by then.
orbax_leftovers = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def bits(tree):
    return [(str(np.asarray(leaf).dtype), np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def filled(shapes, seed=0):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(leaf.dtype), shapes)


@pytest.fixture(scope="module")
def params():
    return filled(jax.eval_shape(CLIP.init, jax.random.key(0)))


@pytest.fixture(scope="module")
def saved(params, tmp_path_factory):
    """A model directory, not to be changed."""
    directory = tmp_path_factory.mktemp("models") / "clean"
    history = [{"step": 5, "loss": 2.5}, {"step": 10, "loss": 1.5}]
    save_model(directory, CLIP, params, {"name": "clean", "parent": None}, history)
    return directory


@pytest.fixture
def model(saved, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(saved, tmp_path / "clean")


def error_of(*arguments):
    with pytest.raises(InputError) as caught:
        load_model(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(arguments[0]))
    return message


# Records -------------------------------------------------------------------------------------------------------------


def test_records_say_shape_dtype_and_digest_and_the_tree_digest_sees_all_of_them():
    tree = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}, "c": np.int32(3)}
    records = leaf_records(tree)
    assert {path: (record["shape"], record["dtype"]) for path, record in records.items()} == {
        "a.b": ([2, 3], "float32"),
        "c": ([], "int32"),
    }
    assert tree_digest(records) == tree_digest(leaf_records(jax.tree.map(jnp.asarray, tree)))
    assert leaf_records({"x": np.asfortranarray(tree["a"]["b"])})["x"] == records["a.b"]
    others = [
        {**tree, "c": np.int32(4)},
        {**tree, "c": np.int64(3)},
        {**tree, "d": np.int32(3)},
        {**tree, "a": {"b": tree["a"]["b"].reshape(3, 2)}},
        {"a": {"e": tree["a"]["b"]}, "c": tree["c"]},
        {**tree, "a": {"b": np.where(tree["a"]["b"] == 0, np.float32(-0.0), tree["a"]["b"])}},
    ]
    assert len({tree_digest(leaf_records(other)) for other in (tree, *others)}) == len(others) + 1


def test_every_mismatch_is_listed():
    expected = leaf_records({"a": np.zeros(3), "b": np.zeros(3), "c": np.zeros(3), "d": np.zeros(3)})
    found = leaf_records({"b": np.zeros(4), "c": np.zeros(3, np.float32), "d": np.ones(3), "e": np.zeros(3)})
    assert mismatches(expected, found) == [
        "a is missing",
        "b has shape [4], not [3]",
        "c has dtype float32, not float64",
        "d is damaged (its SHA-256 is not the recorded one)",
        "e is not part of it",
    ]
    assert mismatches(expected, expected) == []
    assert mismatches(shape_records({"d": np.zeros(3)}), {"d": found["d"]}) == []


# Models --------------------------------------------------------------------------------------------------------------


def test_a_model_comes_back_bit_for_bit(saved, params):
    clip, found, manifest = load_model(saved, CLIP.config)
    assert clip == CLIP
    assert bits(found) == bits(params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    assert manifest == read_manifest(saved)
    assert manifest["digest"] == tree_digest(leaf_records(params))
    assert manifest["leaves"] == leaf_records(params)
    assert manifest["architecture"] == json.loads(json.dumps(CLIP.config.to_dict()))
    assert (manifest["name"], manifest["parent"]) == ("clean", None)
    lines = (saved / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 5, "loss": 2.5}, {"step": 10, "loss": 1.5}]
    assert load_model(saved)[0] == CLIP
    assert sorted(path.name for path in saved.parent.iterdir()) == ["clean"]


def test_odd_floats_keep_their_bits(params, tmp_path):
    values = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    params = {**params, "visual": {**params["visual"], "class_embedding": np.tile(values, 4)}}
    save_model(tmp_path / "m", CLIP, params, {})
    assert bits(load_model(tmp_path / "m")[1]) == bits(params)


def test_sharded_parameters_are_saved_whole(params, saved, tmp_path):
    sharded = jax.device_put(params, param_shardings(params, make_mesh(fsdp=2, devices=jax.devices()[:2])))
    assert save_model(tmp_path / "m", CLIP, sharded, {})["digest"] == read_manifest(saved)["digest"]
    assert bits(load_model(tmp_path / "m")[1]) == bits(params)


def test_another_compute_dtype_is_the_same_architecture(saved):
    expected = dataclasses.replace(CLIP.config, compute_dtype="bfloat16")
    assert load_model(saved, expected)[0].config == expected


def test_another_architecture_is_answered_with_all_fields_that_differ(saved):
    text = dataclasses.replace(CLIP.config.text, layers=3)
    message = error_of(saved, dataclasses.replace(CLIP.config, text=text, quick_gelu=True, context_length=77))
    listed = "text.layers is 1, not 3, context_length is 32, not 77, quick_gelu is False, not True"
    assert message == f"{saved}: a checkpoint of another architecture than the config's: {listed}"


def array_files(directory):
    """Where Orbax keeps the payloads."""
    return [path for path in sorted(directory.rglob("*")) if path.is_file() and path.parent.name == "d"]


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def test_every_flipped_byte_is_found_and_most_are_named(model, params):
    largest = max(array_files(model / "params"), key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    named = set()
    for position in np.linspace(100, len(whole) - 100, 12).astype(int):
        flip(largest, position)
        harmless = False
        with contextlib.suppress(InputError):  # a few bytes carry nothing
            assert bits(load_model(model)[1]) == bits(params)
            harmless = True
        if not harmless:
            message = error_of(model)
            found = re.findall(r"(\S+) is damaged \(its SHA-256 is not the recorded one\)", message)
            assert set(found) <= leaf_records(params).keys()
            assert found or "its arrays cannot be read" in message
            named |= {(position, leaf) for leaf in found}
        largest.write_bytes(whole)
    assert len(named) >= 6
    assert bits(load_model(model)[1]) == bits(params)


@orbax_leftovers
@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_every_cut_or_missing_file_is_found(model, params, damage):
    harmless = []
    for path in [path for path in sorted(model.rglob("*")) if path.is_file() and path.name != "metrics.jsonl"]:
        data = path.read_bytes()
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
        with contextlib.suppress(InputError):  # a few of the files are not needed
            assert bits(load_model(model)[1]) == bits(params)
            harmless.append(path.name)
        if path.name not in harmless:
            assert len(error_of(model)) < 600
        path.write_bytes(data)
    needed = {"manifest.json", *(path.name for path in array_files(model / "params"))}
    largest = max(array_files(model), key=lambda path: path.stat().st_size).name
    assert "manifest.json" not in harmless
    assert largest not in harmless
    assert needed - set(harmless)
    assert bits(load_model(model)[1]) == bits(params)


def test_missing_arrays_are_answered_with_one_line(model):
    shutil.rmtree(model / "params")
    assert "its arrays cannot be read" in error_of(model)
    (model / "params").mkdir()
    assert "its arrays cannot be read" in error_of(model)


def test_what_is_not_a_model_directory_is_named(model, tmp_path):
    (model / "manifest.json").unlink()
    assert "not a model directory (no manifest.json)" in error_of(model)
    assert "not a model directory" in error_of(tmp_path / "none")


def edited(model, edit):
    manifest = json.loads((model / "manifest.json").read_text())
    edit(manifest)
    (model / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda m: m.update(schema="salmu_jax.model/0"), "not a model manifest of schema 'salmu_jax.model/1'"),
        (lambda m: m.pop("schema"), "not a model manifest"),
        (lambda m: m.pop("architecture"), "'architecture'"),
        (lambda m: m.update(architecture=3), "'architecture'"),
        (lambda m: m["architecture"].update(heads=3), "'architecture' of manifest.json is not valid"),
        (lambda m: m["architecture"].update(patch_size=5), "'architecture' of manifest.json is not valid"),
        (lambda m: m["architecture"].update(text=3), "'architecture'"),
        (lambda m: m["architecture"].update(image_size=32), "visual.positional_embedding has shape [5, 16], not [17"),
        (lambda m: m["leaves"].pop("logit_scale"), "logit_scale is missing"),
        (lambda m: m["leaves"]["logit_scale"].update(dtype="float64"), "logit_scale has dtype float64, not float32"),
        (lambda m: m["leaves"]["logit_scale"].update(sha256="0" * 64), "logit_scale is damaged"),
        (lambda m: m["leaves"]["logit_scale"].pop("shape"), "'leaves'"),
        (lambda m: m["leaves"]["logit_scale"].pop("sha256"), "'leaves'"),
        (lambda m: m.pop("leaves"), "'leaves'"),
        (lambda m: m.update(leaves=[3]), "'leaves'"),
        (lambda m: m.update(digest="0" * 64), "'digest'"),
        (lambda m: m.pop("digest"), "'digest'"),
    ],
)
def test_an_edited_manifest_is_found(model, edit, complaint):
    edited(model, edit)
    assert complaint in error_of(model)


def test_a_manifest_that_is_not_json_is_named(model):
    (model / "manifest.json").write_text("[")
    with pytest.raises(InputError, match=r"manifest\.json: not JSON: Expecting value at line 1 column 2"):
        load_model(model)
    (model / "manifest.json").write_text("[]")
    with pytest.raises(InputError, match=r"manifest\.json: not a model manifest"):
        load_model(model)


def test_wrong_shapes_and_dtypes_are_all_listed(params, tmp_path):
    wrong = {**params, "logit_scale": params["logit_scale"].astype(np.float64)}
    wrong["visual"] = {**params["visual"], "proj": params["visual"]["proj"][:-1], "more": np.zeros(2, np.float32)}
    del wrong["visual"]["class_embedding"]
    save_model(tmp_path / "m", CLIP, wrong, {})
    message = error_of(tmp_path / "m")
    for part in (
        "4 parameter(s) do not fit",
        "logit_scale has dtype float64, not float32",
        "visual.proj has shape [15, 16], not [16, 16]",
        "visual.more is not part of it",
        "visual.class_embedding is missing",
    ):
        assert part in message


def test_a_model_of_another_tokenizer_or_preparation_is_refused_with_all_differences(tmp_path):
    inputs = input_manifest(CLIP, make_tokenizer(CLIP))
    inputs["tokenizer"] = {**inputs["tokenizer"], "digest": "0" * 64}
    inputs["image"] = {**inputs["image"], "interpolation": "bilinear"}
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(CLIP.init, jax.random.key(0)))
    save_model(tmp_path / "model", CLIP, params, inputs)
    message = error_of(tmp_path / "model")
    assert (
        "was trained with other inputs than this version prepares: image.interpolation is bilinear, not bicubic"
        in message
    )
    assert "; tokenizer.digest is 000000000000, not " in message

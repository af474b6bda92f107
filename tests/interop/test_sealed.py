"""Digests that travel with an export: a flipped bit is found when it is imported, and nothing that is flipped is a crash."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from salmu_jax.interop import commands, huggingface, open_clip, sealed
from salmu_jax.interop.foreign import load_foreign
from salmu_jax.interop.reading import read_weights
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.training.checkpoint import save_model

FORMATS = {"open_clip": open_clip, "huggingface": huggingface}


@pytest.fixture(scope="module")
def exports(tiny, tmp_path_factory):
    """Both exports of a model, not compared with the libraries."""
    directory = tmp_path_factory.mktemp("sealed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands.parity, "check", lambda *_: {"compared": False, "reason": "the test compares"})
        for to in FORMATS:
            commands.export_model(tiny[0], to, directory / to)
    return directory


@pytest.fixture
def copy(exports, tmp_path):
    return lambda to: shutil.copytree(exports / to, tmp_path / to)


def refusal(source, **options):
    with pytest.raises(InputError) as caught:
        load_foreign(source, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500
    return str(caught.value)


def attempt(source, digest):
    """The line of a refusal; empty for the parameters with ``digest``. Nothing else is right."""
    try:
        assert load_foreign(source)[2]["digest"] == digest
    except InputError as error:
        return str(error)
    return ""


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_names_itself_and_its_files(to, exports, tiny):
    manifest = json.loads((tiny[0] / "manifest.json").read_text())
    seal = json.loads((exports / to / "salmu.json").read_text())
    assert (seal["schema"], seal["name"], seal["digest"]) == ("salmu_jax.export/1", "tiny", manifest["digest"])
    for name, entry in seal["files"].items():
        assert entry["sha256"] == files.sha256_file(exports / to / name)
    assert {FORMATS[to].WEIGHTS, FORMATS[to].CONFIG} <= seal["files"].keys()
    with safe_open(exports / to / FORMATS[to].WEIGHTS, "np") as weights:
        assert weights.metadata() == {"format": "pt", "salmu_jax.digest": manifest["digest"]}
    _, _, back = load_foreign(exports / to)
    assert (back["name"], back["digest"]) == ("tiny", manifest["digest"])


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("to", FORMATS)
def test_any_bit_of_exported_weights_is_found(to, alone, copy, exports):
    """In the directory, and without anything beside them but the config."""
    draw = np.random.default_rng(0)
    directory, digest = copy(to), json.loads((exports / to / "salmu.json").read_text())["digest"]
    if alone:
        (directory / sealed.FILE).unlink()
    weights = directory / FORMATS[to].WEIGHTS
    whole = weights.read_bytes()
    numbers = 8 * (8 + int.from_bytes(whole[:8], "little"))
    for bit in [*draw.integers(numbers, 8 * len(whole), 4), *draw.integers(0, numbers, 3)]:
        flip(weights, int(bit))
        said = refusal(directory) if not alone or bit >= numbers else attempt(directory, digest)
        assert alone or "not the SHA-256 that salmu.json beside it has" in said or "safetensors file" in said
        weights.write_bytes(whole)


@pytest.mark.parametrize("to", FORMATS)
def test_any_bit_of_what_describes_them_is_found(to, copy):
    directory = copy(to)
    for name in (FORMATS[to].CONFIG, *FORMATS[to].BESIDE):
        if not (directory / name).exists():
            continue
        whole = (directory / name).read_bytes()
        for bit in np.random.default_rng(1).integers(0, 8 * len(whole), 5):
            flip(directory / name, int(bit))
            assert "not the SHA-256 that salmu.json beside it has" in refusal(directory)
            (directory / name).write_bytes(whole)


def test_any_bit_of_a_pytorch_file_is_found_or_changes_nothing(copy, tmp_path):
    state = load_file(copy("open_clip") / open_clip.WEIGHTS)
    path = tmp_path / "x.bin"
    torch.save({name: torch.tensor(array) for name, array in state.items()}, path)
    whole = path.read_bytes()
    found = 0
    for bit in np.random.default_rng(2).integers(0, 8 * len(whole), 30):
        flip(path, int(bit))
        said = ""
        try:
            tensors = read_weights(path).tensors
            for name, array in state.items():
                assert tensors[name].read().tobytes() == array.tobytes()
        except InputError as error:
            said = str(error)
        assert "\n" not in said
        found += bool(said)
        path.write_bytes(whole)
    assert found > 5  # most of so small a file are names and padding


def test_a_change_that_is_meant_says_how(copy, tmp_path):
    directory = copy("open_clip")
    weights = directory / open_clip.WEIGHTS
    state = load_file(weights)
    state["logit_scale"] = np.asarray(state["logit_scale"] + np.float32(1))
    save_file(
        state, weights, metadata={sealed.METADATA_KEY: json.loads((directory / "salmu.json").read_text())["digest"]}
    )
    assert "or delete salmu.json if the change is meant" in refusal(directory)
    (directory / "salmu.json").unlink()
    assert "or leave 'salmu_jax.digest' out of its metadata" in refusal(directory)
    save_file(state, weights)
    load_foreign(directory)


def test_an_unlearned_model_comes_back_with_its_parent(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(commands.parity, "check", lambda *_: {"compared": False, "reason": "the test compares"})
    lineage = {"name": "delete", "parent": "a" * 64, "root": "b" * 64, "splits_read": ["salmu/forget"]}
    save_model(tmp_path / "delete", tiny[1], tiny[2], lineage)
    commands.export_model(tmp_path / "delete", "open_clip", tmp_path / "export")
    manifest = load_foreign(tmp_path / "export")[2]
    assert {key: manifest[key] for key in lineage} == lineage


def test_weights_of_another_name_beside_an_export_are_not_compared_with_it(copy, tmp_path):
    directory = copy("open_clip")
    state = load_file(directory / open_clip.WEIGHTS)
    state["logit_scale"] = np.asarray(state["logit_scale"] + np.float32(1))
    save_file(state, directory / "mine.safetensors")
    assert load_foreign(directory / "mine.safetensors")[2]["name"] is None


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"schema": "salmu_jax.export/1", "files": {"a": 3}}', "{", '{"schema": "x"}']
)
def test_a_damaged_seal_is_said_so(text, copy):
    directory = copy("open_clip")
    (directory / "salmu.json").write_text(text)
    assert "salmu.json" in refusal(directory)


@pytest.mark.parametrize("to", FORMATS)
def test_everybody_may_read_what_everybody_may_read(to, exports):
    modes = {path.name: path.stat().st_mode & 0o777 for path in (exports / to).iterdir()}
    assert modes[FORMATS[to].WEIGHTS] == modes[FORMATS[to].CONFIG] == modes["README.md"]


@pytest.mark.parametrize("to", FORMATS)
def test_the_card_names_the_model_its_licence_and_what_differs(to, exports):
    card = (exports / to / "README.md").read_text()
    assert card.startswith("---\n")
    assert "\nlicense: " in card
    assert "# tiny (tiny)" in card
    assert "salmu.json" in card
    assert ("one pixel\noff where the long side" in card) == (to == "huggingface")


def test_a_model_of_others_weights_or_data_has_their_licence(tiny):
    manifest = {"digest": "0" * 64, "name": "a\nb", "source": {"format": "open_clip"}}
    card = commands.model_card(manifest, "open_clip", tiny[1].config)
    assert "license: other\n" in card
    assert "# a b (tiny)" in card
    assert "license: other\n" in commands.model_card(
        {"digest": "0", "config": {"world_dir": "/data"}}, "open_clip", tiny[1].config
    )
    made = commands.model_card({"digest": "0", "config": {"world_dir": ""}}, "open_clip", tiny[1].config)
    assert "license: apache-2.0\n" in made

"""``salmu import --as``: foundation models of a work directory that were not trained here."""

import dataclasses
import fcntl
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from salmu_jax import cli
from salmu_jax.config import load_config
from salmu_jax.interop import open_clip, released, sealed
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime import files
from salmu_jax.runtime.workspace import Workspace
from salmu_jax.stages import Stages
from salmu_jax.training.checkpoint import load_model, read_manifest


@pytest.fixture
def source(states, tmp_path):
    """OpenCLIP's weights of 'tiny', with their config."""
    (tmp_path / "theirs").mkdir()
    save_file(states["open_clip"], tmp_path / "theirs" / open_clip.WEIGHTS)
    config = open_clip.model_config(architecture("tiny"))
    (tmp_path / "theirs" / open_clip.CONFIG).write_text(json.dumps(config))
    return tmp_path / "theirs"


@pytest.fixture
def run(source, tmp_path, capsys):
    """``run(*options)``: (status, what was printed) of an import of ``source``."""

    def command(*options, source=source):
        status = cli.main(["import", str(source), *map(str, options)])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return command


def into(tmp_path, name="compromised"):
    return ("--as", name, "--config", "configs/tiny.py", "--workdir", tmp_path / "work")


def test_it_becomes_a_model_of_the_work_directory(run, tmp_path, assert_same):
    for name in ("clean", "compromised"):
        status, said = run(*into(tmp_path, name))
        assert status == 0, said
        assert f"import {name}: " in said
        directory = tmp_path / "work" / "models" / name
        _, params, manifest = load_model(directory, architecture("tiny"))
        assert_same(params)
        assert manifest["name"] == name
        assert manifest["source"]["file"] == open_clip.WEIGHTS


def test_it_takes_the_world_that_the_stages_take(run, tmp_path):
    status, said = run(*into(tmp_path), "--world-dir", tmp_path / "released")
    assert status == 0, said
    assert (
        "--world-dir: is 's3://a'; a directory or file of this machine"
        in run(*into(tmp_path), "--world-dir", "s3://a")[1]
    )


def test_the_stages_train_no_other_in_its_place(run, tmp_path, capsys):
    run(*into(tmp_path))
    directory = tmp_path / "work" / "models" / "compromised"
    before = read_manifest(directory)
    stages = Stages(Workspace(load_config("configs/tiny.py", [f"workdir={tmp_path / 'work'}"])))
    stages.pretrain("compromised")
    assert "imported" in capsys.readouterr().out
    assert read_manifest(directory) == before


def test_the_same_again_is_reused_and_another_refused(run, states, tmp_path):
    run(*into(tmp_path))
    before = (tmp_path / "work/models/compromised/manifest.json").read_bytes()
    status, said = run(*into(tmp_path))
    assert (status, "import compromised: reused" in said) == (0, True)
    (tmp_path / "other").mkdir()
    state = {**states["open_clip"], "logit_scale": np.float32(1.5)}
    save_file({name: np.asarray(array) for name, array in state.items()}, tmp_path / "other" / "x.safetensors")
    status, said = run(*into(tmp_path), "--architecture", "tiny", source=tmp_path / "other")
    assert status == 2
    assert "holds another model already; remove it to import " in said
    assert (tmp_path / "work/models/compromised/manifest.json").read_bytes() == before


def test_another_architecture_than_the_configs_names_what_differs(run, tmp_path):
    status, said = run(*into(tmp_path), "--config.model.architecture=mini")
    assert status == 2
    assert (
        "not the architecture of the config (--config.model.architecture=tiny would fit): embed_dim is 16, not 64"
        in said
    )
    status, said = run(*into(tmp_path), "--image-size", 32)
    assert "image_size is 32, not 16" in said
    assert not (tmp_path / "work/models/compromised").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--output or --as: one of them says where the model goes"),
        (("--output", "x", "--as", "clean"), "--output or --as: one of them says where the model goes"),
        (("--as", "clean"), "--as: needs --config FILE"),
    ],
)
def test_options_that_do_not_say_where_it_goes(options, said, run):
    assert run(*options) == (2, f"salmu: {said}\n") or said in run(*options)[1]


def test_a_model_that_is_another_by_what_it_says_of_itself_is_refused(run, source, tmp_path, monkeypatch):
    weights = source / open_clip.WEIGHTS
    sealed.seal(source, [weights.name], {"name": "delete", "digest": "x", "parent": "a" * 64})
    digest = run(*into(tmp_path))[1]
    assert "its parameters do not have the digest" in digest
    run("--output", tmp_path / "plain", "--architecture", "tiny", source=copied(weights, tmp_path))
    digest = read_manifest(tmp_path / "plain")["digest"]
    sealed.seal(source, [weights.name], {"name": "delete", "digest": digest, "parent": "a" * 64})
    assert "was unlearned from another model, aaaaaaaaaaaa...; compromised was trained" in run(*into(tmp_path))[1]
    (source / sealed.FILE).unlink()
    clean = dataclasses.replace(released.MODELS[0], architecture="tiny", sha256=files.sha256_file(weights))
    monkeypatch.setattr(released, "MODELS", (clean,))
    assert "is the published salmu-clean, not compromised" in run(*into(tmp_path))[1]
    assert run(*into(tmp_path, "clean"))[0] == 0


CLEAN, COMPROMISED = ["salmu/retain_synth"], ["salmu/retain_synth", "salmu/forget"]
RETRAINED = [*CLEAN, "salmu/holdout_association", "salmu/holdout_identity"]


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(
    ("seal", "name", "said"),
    [
        ({"name": "clean"}, "compromised", "is an export of clean, by the salmu.json beside it, not of compromised"),
        ({"name": "compromised"}, "clean", "is an export of compromised, by the salmu.json beside it, not of clean"),
        ({"name": "salmu-clean"}, "compromised", "is an export of salmu-clean, by the salmu.json beside it"),
        ({"name": "x", "splits_read": CLEAN}, "compromised", "was trained on none of salmu/sensitive, salmu/forget, "),
        (
            {"name": "x", "splits_read": COMPROMISED},
            "clean",
            "was trained on salmu/forget, by the salmu.json beside it",
        ),
        (
            {"name": "x", "splits_read": COMPROMISED},
            "retrained",
            "was trained on none of salmu/holdout_association and",
        ),
        ({"name": "compromised"}, "retrained", "is an export of compromised, by the salmu.json beside it"),
    ],
)
def test_an_export_of_the_other_is_refused_before_its_weights_are_read(seal, name, said, alone, run, source, tmp_path):
    weights = source / open_clip.WEIGHTS
    sealed.seal(source, [weights.name], {"digest": "x", **seal})
    weights.write_bytes(b"not read")
    status, line = run(*into(tmp_path, name), source=weights if alone else source)
    assert (status, line.count("\n")) == (2, 1)
    assert said in line
    assert not (tmp_path / "work/models").exists()


def test_an_export_of_the_right_one_is_taken(run, source, tmp_path):
    run("--output", tmp_path / "plain", source=source)
    digest = read_manifest(tmp_path / "plain")["digest"]
    for name, said, read in (
        ("clean", "clean", CLEAN),
        ("compromised", "mine", COMPROMISED),
        ("retrained", "retrained", RETRAINED),
    ):
        sealed.seal(source, [open_clip.WEIGHTS], {"digest": digest, "name": said, "splits_read": read})
        assert run(*into(tmp_path, name))[0] == 0


def copied(weights, directory):
    (directory / "copy.safetensors").write_bytes(weights.read_bytes())
    return directory / "copy.safetensors"


@pytest.mark.parametrize("by_output", [False, True])
def test_it_waits_for_no_other_run_in_the_directory(by_output, run, tmp_path):
    (tmp_path / "work" / "stages").mkdir(parents=True)
    with open(tmp_path / "work" / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        where = ("--output", tmp_path / "work" / "models" / "x") if by_output else into(tmp_path)
        status, said = run(*where)
    assert status == 2
    assert "another salmu run is at work in this directory" in said
    assert not (tmp_path / "work" / "models").exists()

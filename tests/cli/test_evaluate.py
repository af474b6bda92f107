"""``salmu evaluate``: beside other evaluations, of checkpoints from elsewhere, without decoding anything twice."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from salmu_jax.evaluation.result import load_result
from salmu_jax.training.checkpoint import load_model, save_model


def figures(workdir, name):
    result = json.loads((workdir / "results" / f"{name}.json").read_text())
    return {key: result[key] for key in ("efficacy", "utility", "extra", "protocol")}


@pytest.fixture
def held():
    """``held(path, kind)`` locks a file as another run does."""
    with contextlib.ExitStack() as handles:
        yield lambda path, kind: fcntl.flock(handles.enter_context(open(path, "w")), kind)


def test_the_next_command_decodes_nothing_whatever_the_batch_and_the_stage_is_the_same(salmu, run_copy):
    before = figures(run_copy, "delete")
    finished = salmu.run("evaluate", "--workdir", run_copy, "--model", "delete", "--config.evaluate.batch_size=7")
    assert "evaluate delete: reused" in finished.out, finished
    arguments = ("--workdir", run_copy, "--model", "delete", "--config.evaluate.batch_size=7")
    finished = salmu.run("evaluate", *arguments, "--rerun")
    assert finished.status == 0, finished.err
    assert "encoded before" not in finished.out
    assert re.search(r"evaluate delete: 0 of \d+ images decoded for it", finished.out)
    after = figures(run_copy, "delete")
    assert after["efficacy"]["1.1_RetFail"] == before["efficacy"]["1.1_RetFail"]
    assert after["efficacy"]["1.2_AssocStr"]["mean"] == pytest.approx(
        before["efficacy"]["1.2_AssocStr"]["mean"], abs=1e-6
    )
    # Another cache policy is no other result either.
    finished = salmu.run("evaluate", "--workdir", run_copy, "--model", "delete", "--config.evaluate.cache_pixels=off")
    assert "evaluate delete: reused" in finished.out


def test_two_evaluations_at_once_and_none_beside_another_stage(salmu, run_copy, held):
    before = {name: figures(run_copy, name) for name in ("delete", "clean")}
    for name in before:
        (run_copy / "results" / f"{name}.json").unlink()
    shutil.rmtree(run_copy / "cache")
    running = [salmu.start("evaluate", "--workdir", run_copy, "--model", name) for name in before]
    for finished in (run.wait() for run in running):
        assert finished.status == 0, finished.err
    assert {name: figures(run_copy, name) for name in before} == before
    held(run_copy / "results" / ".clean.lock", fcntl.LOCK_EX)
    held(run_copy / ".lock", fcntl.LOCK_SH)
    salmu.run("evaluate", "--workdir", run_copy, "--model", "clean").assert_bad_input(
        "results/clean.json", "another salmu run is making it"
    )
    assert salmu.run("evaluate", "--workdir", run_copy, "--model", "delete").status == 0
    salmu.run("report", "--workdir", run_copy).assert_bad_input("another salmu run is at work")


def test_nothing_is_evaluated_while_another_stage_is_at_work(salmu, run_copy, held):
    held(run_copy / ".lock", fcntl.LOCK_EX)
    salmu.run("evaluate", "--workdir", run_copy).assert_bad_input("another salmu run is at work")


@pytest.mark.parametrize("name", ["clean", "compromised", "delete", "finetuning", "Clean"])
def test_a_checkpoint_from_elsewhere_does_not_replace_a_model_of_ours(salmu, bench, run_copy, name):
    before = (run_copy / "results" / "clean.json").read_bytes()
    checkpoint = bench[0] / "models" / "compromised"
    finished = salmu.run("evaluate", "--workdir", run_copy, "--checkpoint", checkpoint, "--model", name)
    finished.assert_bad_input("--model", f"'{name}'", "take another")
    assert (run_copy / "results" / "clean.json").read_bytes() == before


@pytest.mark.parametrize("form", ["open_clip", "huggingface"])
def test_weights_of_other_libraries_are_evaluated_as_they_are(salmu, run_copy, tmp_path, form):
    exported = tmp_path / "exported"
    clean = run_copy / "models" / "clean"
    assert salmu.run("export", "--to", form, "--checkpoint", clean, "--output", exported, config=None).status == 0
    finished = salmu.run("evaluate", "--workdir", run_copy, "--checkpoint", exported, "--model", "theirs")
    assert finished.status == 0, finished.err
    assert figures(run_copy, "theirs") == figures(run_copy, "clean")
    checkpoint = load_result(run_copy / "results" / "theirs.json")["provenance"]["checkpoint"]
    assert checkpoint["digest"] == json.loads((clean / "manifest.json").read_text())["digest"]
    assert checkpoint["source"]["format"] == form


def test_the_same_weights_under_another_activation_are_another_model(salmu, run_copy, tmp_path):
    ours, other = tmp_path / "ours", tmp_path / "other"
    clean = run_copy / "models" / "clean"
    arguments = ("export", "--to", "open_clip", "--checkpoint", clean, "--output", ours)
    assert salmu.run(*arguments, config=None).status == 0
    shutil.copytree(ours, other, ignore=shutil.ignore_patterns("salmu.json"))  # its seal knows the config beside it
    config = json.loads((other / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True
    (other / "open_clip_config.json").write_text(json.dumps(config))

    def evaluate(checkpoint):
        finished = salmu.run("evaluate", "--workdir", run_copy, "--checkpoint", checkpoint, "--model", "theirs")
        assert finished.status == 0, finished.err
        return finished.out, load_result(run_copy / "results" / "theirs.json")["provenance"]["checkpoint"]

    _, first = evaluate(ours)
    scores = figures(run_copy, "theirs")
    assert "theirs: reused" in evaluate(ours)[0]
    out, second = evaluate(other)
    assert "theirs: made again, changed since" in out
    assert "architecture" in out
    # The embeddings of the first were in the cache: they are not taken for those of the second.
    assert figures(run_copy, "theirs")["efficacy"]["1.2_AssocStr"] != scores["efficacy"]["1.2_AssocStr"]
    assert first["digest"] == second["digest"]
    assert first["architecture"] != second["architecture"]
    result = run_copy / "results" / "theirs.json"
    assert salmu.run("verify", result, "--checkpoint", other, config=None).status == 0
    finished = salmu.run("verify", result, "--checkpoint", ours, config=None)
    assert finished.status == 2
    assert "it was measured on a config with the SHA-256" in finished.out


def test_a_model_directory_from_elsewhere_is_read_before_its_result_is_reused(salmu, run_copy, tmp_path):
    model = shutil.copytree(run_copy / "models" / "compromised", tmp_path / "model")
    arguments = ("evaluate", "--workdir", run_copy, "--checkpoint", model, "--model", "mine")
    assert salmu.run(*arguments).status == 0
    assert "mine: reused" in salmu.run(*arguments).out
    path = max((model / "params").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    salmu.run(*arguments).assert_bad_input(model)


def test_weights_are_read_as_the_refusal_of_them_advises(salmu, run_copy, tmp_path):
    exported, clean = tmp_path / "exported", run_copy / "models" / "clean"
    arguments = ("export", "--to", "open_clip", "--checkpoint", clean, "--output", exported)
    assert salmu.run(*arguments, config=None).status == 0
    (exported / "salmu.json").unlink()
    weights = exported / "open_clip_model.safetensors"
    save_file({name: array.astype(np.float16) for name, array in load_file(weights).items()}, weights)
    arguments = ("evaluate", "--workdir", run_copy, "--checkpoint", exported, "--model", "theirs")
    salmu.run(*arguments).assert_bad_input(exported, "half precision (--allow-half widens them)")
    finished = salmu.run(*arguments, "--allow-half", "--image-size", "48")
    assert finished.status == 0, finished.err
    source = load_result(run_copy / "results" / "theirs.json")["provenance"]["checkpoint"]["source"]
    assert source["widened_from_half_precision"] == source["tensors"]
    assert source["positions_resampled_from"] == load_model(clean)[0].config.image_size != 48
    # A model of ours is what its manifest says.
    arguments = ("evaluate", "--workdir", run_copy, "--model", "clean")
    for option, value in (("--image-size", "48"), ("--image-size", "0"), ("--architecture", "")):
        salmu.run(*arguments, option, value).assert_bad_input(f"{option}: is for PyTorch weights from elsewhere")


def test_an_overflow_is_no_forgetting(salmu, run_copy, tmp_path):
    clip, params, manifest = load_model(run_copy / "models" / "compromised")
    for scale in (1e37, 1e-38):
        scaled = {**params, "visual": {**params["visual"], "proj": params["visual"]["proj"] * np.float32(scale)}}
        fields = {
            key: value for key, value in manifest.items() if key in ("name", "parent", "splits_read", "tokenizer")
        }
        save_model(tmp_path / f"{scale}", clip, jax.tree.map(np.asarray, scaled), fields)
        finished = salmu.run(
            "evaluate", "--workdir", run_copy, "--checkpoint", tmp_path / f"{scale}", "--model", "mine"
        )
        finished.assert_bad_input("which is no forgetting")
        assert not (run_copy / "results" / "mine.json").exists()


def test_weights_are_moved_towards_the_compromised_of_the_work_directory(salmu, run_copy):
    """Its digest is recorded; without it, and for another architecture, nothing is measured and nothing fails."""
    probes = "--config.evaluate.probes=('weights',)"
    arguments = ("evaluate", "--workdir", run_copy, "--model", "delete", probes)

    def measured():
        result = load_result(run_copy / "results" / "delete.json")
        values = {name: result["metrics"][f"RetFail_{name}"]["value"] for name in ("int8", "int4", "towards_25")}
        return values, result["provenance"].get("compromised")

    assert salmu.run(*arguments).status == 0
    values, towards = measured()
    assert None not in values.values()
    assert towards == load_model(run_copy / "models" / "compromised")[2]["digest"]
    (run_copy / "results" / "delete.json").unlink()
    finished = salmu.run(*arguments)
    assert "3 of 3 variants were measured before" in finished.out, finished
    assert measured() == (values, towards)
    shutil.rmtree(run_copy / "models" / "compromised")
    finished = salmu.run(*arguments)
    assert finished.status == 0, finished.err
    without, towards = measured()
    assert (without.pop("towards_25"), towards) == (None, None)
    assert without == {name: values[name] for name in without}

"""Data, parents, models and results are compared with what their makers recorded, and what does not fit is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from salmu_jax.config import load_config
from salmu_jax.evaluation.result import load_result
from salmu_jax.runtime import contents, files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.workspace import Workspace
from salmu_jax.stages import Stages

CONFIG = Path(__file__).with_name("quick.py")
MODELS = ("clean", "compromised", "delete", "descent_to_delete")


def chain(run, *overrides):
    return Stages(Workspace(load_config(CONFIG, [f"workdir={run}", *overrides]))).chain


def refusal(check):
    with pytest.raises(InputError) as caught:
        check()
    return str(caught.value)


def flip(path):
    """Changes a byte in the middle, by which a file keeps its size."""
    with open(path, "r+b") as handle:
        handle.seek(path.stat().st_size // 2)
        byte = handle.read(1)
        handle.seek(-1, 1)
        handle.write(bytes([byte[0] ^ 1]))


SHARD = "salmu/1.0.0/salmu-{}.array_record-00000-of-00001"


def a_byte_of_a_shard(datasets):
    flip(datasets / SHARD.format("forget"))
    return [f"{SHARD.format('forget')} is not as it was written"]


def a_letter_of_a_class(datasets):
    path = next((datasets / "zeroshot").glob("*/classes.json"))
    path.write_text(path.read_text().replace("a", "e", 1))
    return [f"{path.relative_to(datasets)} is not as it was written"]


def two_shards_exchanged(datasets):
    one, other = (datasets / SHARD.format(f"holdout_{split}") for split in ("association", "identity"))
    one.rename(datasets / "spare")
    other.rename(one)
    (datasets / "spare").rename(other)
    return [SHARD.format("holdout_association"), SHARD.format("holdout_identity")]


def another_world(datasets):
    flip(datasets / SHARD.format("forget"))
    contents.write_contents(datasets, "datasets")  # whole in itself
    return ["holds other data than 'salmu build' made here"]


def no_manifest(datasets):
    (datasets / "contents.json").unlink()
    return ["its manifest is missing or damaged"]


@pytest.mark.parametrize(
    "damage", [a_byte_of_a_shard, a_letter_of_a_class, two_shards_exchanged, another_world, no_manifest]
)
def test_data_that_are_not_as_they_were_built_are_refused_and_made_anew(run_copy, damage):
    whole = chain(run_copy).data("salmu", "zeroshot")
    words = damage(run_copy / "datasets")
    line = refusal(lambda: chain(run_copy).data("salmu", "zeroshot"))
    assert line.startswith(f"{run_copy}/datasets: ")
    assert line.endswith("; 'salmu build' makes it again")
    for word in words:
        assert word in line
    if damage is a_letter_of_a_class:  # a training reads no class names
        assert chain(run_copy).data("salmu") == {"salmu": whole["salmu"]}


def test_every_stage_that_reads_the_data_refuses_and_build_makes_them_anew(salmu, run_copy):
    (word,) = a_byte_of_a_shard(run_copy / "datasets")
    for stage in ("pretrain", "unlearn", "evaluate", "report"):
        salmu.run(stage, "--workdir", run_copy).assert_bad_input(run_copy / "datasets", word, "'salmu build'")
    again = salmu.run("build", "--workdir", run_copy)
    assert again.status == 0, again.err
    assert f"build: made again, {run_copy}/datasets: {word}" in again.out
    again = salmu.run("report", "--workdir", run_copy)  # the same data as before: nothing else is out of date
    assert again.status == 0, again.err


def test_stray_files_change_nothing(run_copy):
    whole = chain(run_copy)
    before = whole.data("salmu", "zeroshot"), whole.world()
    for place in ("datasets", "world", "models/clean", "models/compromised", "world/retain", "datasets/salmu"):
        for name in (".DS_Store", "notes.txt", "README.md"):
            (run_copy / place / name).write_text("mine")
    assert (whole.data("salmu", "zeroshot"), whole.world()) == before
    for name in MODELS:
        whole.trusted(name, before[0])


def test_a_damaged_world_is_built_from_no_more(run_copy):
    before = chain(run_copy).world()
    flip(next((run_copy / "world" / "retain").glob("*.tar")))
    assert chain(run_copy).world() != before


def largest(model):
    return max((model / "params").rglob("d/*"), key=lambda path: path.stat().st_size)


def a_flipped_bit(models):
    flip(largest(models / "compromised"))
    return "compromised", f"{largest(models / 'compromised').relative_to(models / 'compromised')} is not as it was"


def a_manifest_edited(models):
    path = models / "compromised" / "manifest.json"
    path.write_text(path.read_text().replace('"pairs": ', '"pairs": 1'))
    return "compromised", "its manifest is missing or damaged"


def another_model_in_its_place(models):
    shutil.rmtree(models / "delete")
    shutil.copytree(models / "clean", models / "delete")
    return "delete", "its manifest names the model 'clean', not 'delete'"


def edited(directory, **fields):
    """Rewrites a manifest as another run would have written it."""
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest |= fields
    manifest["seal"] = contents.seal(manifest)
    files.write_json(directory / "manifest.json", manifest)


def of_another_seed(models):
    config = json.loads((models / "compromised" / "manifest.json").read_text())["config"]
    edited(models / "compromised", identity="0" * 64, config={**config, "seed": 7})
    return "compromised", "is not the model that 'pretrain compromised' made here; was trained with the seed 7, not 42"


def of_other_data(models):
    edited(models / "compromised", data={"salmu": "0" * 64, "retain_pairs": None})
    return "compromised", "was made of other data (salmu)"


def of_another_parent(models):
    edited(models / "delete", parent="0" * 64)
    return "delete", "was made of another Compromised than models/compromised"


class MadeAgain(Exception):
    """Ends a stage that would make its output again."""


SWAPS = [
    a_flipped_bit,
    a_manifest_edited,
    another_model_in_its_place,
    of_another_seed,
    of_other_data,
    of_another_parent,
]


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("swap", SWAPS)
def test_a_model_that_is_not_the_one_of_its_stage_is_refused(run_copy, swap, records):
    if not records:
        shutil.rmtree(run_copy / "stages")
    name, words = swap(run_copy / "models")
    command = "salmu pretrain --model compromised" if name == "compromised" else "salmu unlearn --method delete"
    data = chain(run_copy).data("salmu")
    line = refusal(lambda: chain(run_copy).trusted(name, data))
    assert line.startswith(f"{run_copy}/models/{name}: ")
    assert line.endswith(f"; '{command}' makes it again")
    for word in words.split("; was trained with") if not records else [words]:
        if records or "made here" not in word:
            assert word in line
    if records:  # the command that is advised does not find it complete
        workspace = Workspace(load_config(CONFIG, [f"workdir={run_copy}"]))
        stage = "pretrain compromised" if name == "compromised" else "unlearn delete"
        fields = workspace.currency.record(stage)["fields"]
        with pytest.raises(MadeAgain), workspace.stage(stage, workspace.model(name), fields) as identity:
            raise MadeAgain if identity else AssertionError("it is reused")


@pytest.mark.parametrize(
    ("world_dir", "name", "right"),
    [
        (
            True,
            "compromised",
            "run 'salmu pretrain --model compromised' first, or 'salmu import FILE --as compromised'",
        ),
        (True, "clean", "run 'salmu pretrain --model clean' first, or 'salmu import FILE --as clean'"),
        (True, "delete", "run 'salmu unlearn --method delete' first"),
        (False, "clean", "run 'salmu pretrain --model clean' first"),
    ],
)
def test_a_model_that_is_not_there_names_what_brings_it(world_dir, name, right, tmp_path):
    overrides = [f"world_dir={tmp_path / 'released'}"] if world_dir else []
    line = refusal(lambda: chain(tmp_path, *overrides).trusted(name, {}))
    assert line == f"{tmp_path}/models/{name}: not there yet; {right}"


def test_a_swapped_model_is_made_anew_by_its_stage(salmu, run_copy):
    before = (run_copy / "models" / "delete" / "metrics.jsonl").read_bytes()
    another_model_in_its_place(run_copy / "models")
    (run_copy / "models" / "delete" / "notes.txt").write_text("mine")
    salmu.run("evaluate", "--workdir", run_copy).assert_bad_input("its manifest names the model 'clean', not 'delete'")
    again = salmu.run("unlearn", "--workdir", run_copy, "--method", "delete")
    assert again.status == 0, again.err
    where = run_copy / "models" / "delete"
    assert f"unlearn delete: made again, {where}: holds other files than were written\n" in again.out
    assert (where / "metrics.jsonl").read_bytes() == before
    assert (where / "notes.txt").read_text() == "mine"
    assert f"{where}: kept notes.txt, which salmu did not write\n" in again.out


# Results -------------------------------------------------------------------------------------------------------------


def stale(run, *overrides):
    results = {name: load_result(run / "results" / f"{name}.json") for name in MODELS}
    return refusal(lambda: chain(run, *overrides).check_fresh(results))


def test_fresh_results_are_shown(run_copy):
    results = {name: load_result(run_copy / "results" / f"{name}.json") for name in MODELS}
    chain(run_copy).check_fresh(results)
    chain(run_copy, "evaluate.batch_size=3", "train.save_every=3", "mesh.fsdp=1").check_fresh(results)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "unlearn.methods.delete.epochs=1.0",
            "delete (hyper.epochs 2.0 -> 1.0, hyper.total_steps 9 -> 5: 'salmu unlearn --method delete', then"
            " 'salmu evaluate --model delete')",
        ),
        (
            "train.learning_rate=0.5",
            "clean (train.learning_rate 0.004 -> 0.5: 'salmu pretrain --model clean', then 'salmu evaluate --model"
            " clean')",
        ),
        (
            "evaluate.bootstrap=7",
            "descent_to_delete (evaluate.bootstrap 50 -> 7: 'salmu evaluate --model descent_to_delete')",
        ),
    ],
)
def test_results_of_another_config_are_named_with_what_renews_them(run_copy, override, words):
    line = stale(run_copy, override)
    assert line.startswith("results: are out of date, so the report would mislead: ")
    assert words in line


def test_results_of_models_made_anew_are_named(run_copy):
    edited(run_copy / "models" / "clean", digest="0" * 64)
    assert "clean (its model has been made again: 'salmu evaluate --model clean')" in stale(run_copy)
    edited(run_copy / "models" / "compromised", digest="0" * 64)
    line = stale(run_copy)
    for name in ("delete", "descent_to_delete"):
        assert f"{name} (its parent is not the present Compromised: 'salmu unlearn --method {name}', then" in line


def test_report_refuses_a_result_of_a_config_that_has_changed(salmu, run_copy):
    before = (run_copy / "report" / "index.html").read_bytes()
    finished = salmu.run("report", "--workdir", run_copy, "--config.unlearn.methods.delete.learning_rate=0.5")
    finished.assert_bad_input("delete (hyper.learning_rate 0.001 -> 0.5", "'salmu unlearn --method delete'")
    assert (run_copy / "report" / "index.html").read_bytes() == before


def test_what_figures_depend_on_in_the_environment_is_part_of_what_a_model_and_a_result_are_made_from(
    run_copy, monkeypatch
):
    """What cannot be set by the program: flags of other versions of XLA, whose effect nobody here knows."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_allow_excess_precision=false")
    line = stale(run_copy)
    change = "environment.XLA_FLAGS none -> --xla_allow_excess_precision=false"
    for name, command in (("clean", "pretrain --model clean"), ("delete", "unlearn --method delete")):
        assert f"{name} ({change}: 'salmu {command}'" in line


# Names and places ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clean", "compromised", "delete", "cliperase"])
def test_a_checkpoint_from_elsewhere_cannot_take_a_name_of_ours(salmu, run_copy, name):
    before = (run_copy / "results" / "clean.json").read_bytes()
    finished = salmu.run(
        "evaluate", "--workdir", run_copy, "--checkpoint", run_copy / "models" / "delete", "--model", name
    )
    finished.assert_bad_input("--model", f"'{name}' is the name of a ")
    assert (run_copy / "results" / "clean.json").read_bytes() == before


def test_a_world_below_its_own_data_sets_is_refused(salmu, run_copy):
    world = run_copy / "datasets" / "salmubench"
    shutil.copytree(run_copy / "world", world)
    finished = salmu.run("build", "--workdir", run_copy, "--world-dir", world)
    finished.assert_bad_input(world, "lies in", "which would be replaced")
    assert (world / "world.json").exists()

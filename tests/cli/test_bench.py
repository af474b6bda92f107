"""The whole benchmark by its command: what it leaves, what it reuses, and that equal runs give equal results."""

from __future__ import annotations

import json
import re

import pytest

FOUNDATION = ("clean", "compromised", "retrained")
METHODS = ("delete", "descent_to_delete")
MODELS = (*FOUNDATION, *METHODS)
STAGES = (
    "generate",
    "build",
    *(f"pretrain {name}" for name in FOUNDATION),
    *(f"unlearn {name}" for name in METHODS),
    *(f"evaluate {name}" for name in MODELS),
    "report",
)


def reused(out: str) -> set[str]:
    return {stage for stage in STAGES if f"{stage}: reused, " in out}


def test_everything_is_where_the_workspace_says(bench, leftovers):
    workdir, finished = bench
    files = [
        "world/world.json",
        "world/data/forget-00000-of-00001.parquet",
        "datasets/salmu/1.0.0/dataset_info.json",
        "datasets/retain_pairs/1.0.0/dataset_info.json",
        "datasets/zeroshot/1.0.0/dataset_info.json",
        *(f"models/{name}/{file}" for name in MODELS for file in ("manifest.json", "metrics.jsonl", "params")),
        *(f"results/{name}.json" for name in MODELS),
        "report/index.html",
        "report/leaderboard.json",
        *(f"stages/{stage.replace(' ', '-')}.json" for stage in STAGES),
    ]
    assert [file for file in files if not (workdir / file).exists()] == []
    assert not leftovers(workdir)
    assert not list((workdir / "models").glob("*.state"))
    assert finished.complaints == []
    assert str(workdir / "report" / "index.html") in finished.out


def test_the_page_holds_its_pictures(bench):
    page = (bench[0] / "report" / "index.html").read_text()
    sources = re.findall(r"<img[^>]+src=[\"']([^\"']{0,40})", page)
    assert len(sources) > 10
    assert all(source.startswith("data:image/") for source in sources)


def test_results_have_the_released_structure(bench, results):
    for name, result in results(bench[0]).items():
        rows = result["protocol"]["rows"]
        assert (rows["forget"], rows["holdout_association"], rows["holdout_identity"]) == (36, 18, 18)
        assert list(result["efficacy"]) == ["1.1_RetFail", "1.2_AssocStr", "1.3_ACS", "1.4_IdZSC", "1.5_CoreAssoc"]
        assert list(result["utility"]) == [
            "2.1_GenKnow",
            "2.2_InterIdSim",
            "2.3_IntraIdSim",
            "2.4_VisIdInt",
            "2.5_FragSim",
        ]
        assert result["model"] == name
        assert len(result["efficacy"]["1.1_RetFail"]["outcomes"]) == 36
        assert len(result["efficacy"]["1.2_AssocStr"]["scores"]) == 36
        assert len(result["efficacy"]["1.5_CoreAssoc"]["scores"]) == 36
        assert 0 <= result["utility"]["2.1_GenKnow"]["ImageNet1k_Accuracy"] <= 1


def test_splits_are_a_permission(bench):
    def read(name):
        return json.loads((bench[0] / "models" / name / "manifest.json").read_text())["splits_read"]

    sensitive = ["salmu/forget", "salmu/holdout_association", "salmu/holdout_identity"]
    assert read("clean") == ["retain_pairs/train", "salmu/retain_synth"]
    assert read("compromised") == ["retain_pairs/train", "salmu/retain_synth", *sensitive]
    assert read("retrained") == ["retain_pairs/train", "salmu/retain_synth", *sensitive[1:]]
    assert read("delete") == ["salmu/forget", "salmu/retain_synth"]
    assert read("descent_to_delete") == ["salmu/forget"]


def test_a_second_run_reuses_everything_and_says_so(salmu, run_copy, results):
    before = results(run_copy)
    finished = salmu.run("bench", "--workdir", run_copy)
    assert finished.status == 0, finished.err
    assert reused(finished.out) == set(STAGES)
    assert finished.err == ""
    assert results(run_copy) == before


def test_another_field_of_a_method_runs_that_method_anew_and_nothing_else(salmu, run_copy, results):
    before = results(run_copy)
    field = "unlearn.methods.delete.epochs"
    finished = salmu.run("bench", "--workdir", run_copy, f"--config.{field}=1.0")
    assert finished.status == 0, finished.err
    assert reused(finished.out) == set(STAGES) - {"unlearn delete", "evaluate delete", "report"}
    changed = f"changed since {run_copy}/models/delete was made: hyper.epochs 2.0 -> 1.0, hyper.total_steps 9 -> 5\n"
    assert f"unlearn delete: made again, {changed}" in finished.out
    assert (
        f"evaluate delete: made again, changed since {run_copy}/results/delete.json was made: checkpoint "
        in finished.out
    )
    after = results(run_copy)
    assert after["delete"]["efficacy"] != before["delete"]["efficacy"]
    assert {name: after[name] for name in MODELS if name != "delete"} == {
        name: before[name] for name in MODELS if name != "delete"
    }


def test_another_field_of_training_trains_anew_and_says_what_changed(salmu, run_copy, results):
    before = results(run_copy)
    field = "--config.train.epochs=3.9999"  # as many steps: it changes nothing in the model
    finished = salmu.run("pretrain", "--workdir", run_copy, field)
    assert finished.status == 0, finished.err
    for name in FOUNDATION:
        changed = f"changed since {run_copy}/models/{name} was made: train.epochs 4.0 -> 3.9999\n"
        assert f"pretrain {name}: made again, {changed}" in finished.out
    finished = salmu.run("bench", "--workdir", run_copy, field)
    assert reused(finished.out) == set(STAGES)
    assert results(run_copy) == before


def test_stage_by_stage_in_other_processes_gives_the_same_results(salmu, bench, tmp_path, results):
    workdir = tmp_path / "elsewhere"
    for stage in ("generate", "build", "pretrain", "unlearn", "evaluate", "report"):
        finished = salmu.run(stage, "--workdir", workdir)
        assert finished.status == 0, finished.err
        assert finished.complaints == []
    assert results(workdir) == results(bench[0])
    for name in ("world/world.json", "datasets/salmu/1.0.0/salmu-forget.array_record-00000-of-00001"):
        assert (workdir / name).read_bytes() == (bench[0] / name).read_bytes()


@pytest.mark.slow
def test_another_seed_gives_other_results(salmu, run_copy, results):
    before = results(run_copy, provenance=False)
    finished = salmu.run("bench", "--workdir", run_copy, "--config.seed=7")
    assert finished.status == 0, finished.err
    assert reused(finished.out) == {"generate", "build"}  # the world has a seed of its own
    assert all(f"{stage}: made again, " in finished.out for stage in STAGES if stage not in ("generate", "build"))
    assert f"pretrain clean: made again, changed since {run_copy}/models/clean was made: seed 42 -> 7\n" in finished.out
    after = results(run_copy, provenance=False)
    for name in MODELS:
        assert after[name]["efficacy"]["1.2_AssocStr"] != before[name]["efficacy"]["1.2_AssocStr"]


@pytest.mark.parametrize(
    ("stage", "missing", "command"),
    [
        ("build", "world", "salmu generate"),
        ("pretrain", "datasets", "salmu build"),
        ("unlearn", "datasets", "salmu build"),
        ("unlearn", "models", "salmu pretrain --model compromised"),
        ("evaluate", "datasets", "salmu build"),
        ("evaluate", "models", "salmu pretrain --model clean"),
        ("evaluate", "models/delete", "salmu unlearn --method delete"),
        ("report", "results", "salmu evaluate --model clean"),
    ],
)
def test_a_stage_without_its_input_names_the_command_that_makes_it(salmu, bench, tmp_path, stage, missing, command):
    workdir = tmp_path / "run"
    workdir.mkdir()
    for path in bench[0].iterdir():
        if path.name not in (missing, "stages", "report"):
            (workdir / path.name).symlink_to(path)
    if "/" in missing:
        parent, name = missing.split("/")
        (workdir / parent).unlink()
        (workdir / parent).mkdir()
        for path in (bench[0] / parent).iterdir():
            if path.name != name:
                (workdir / parent / path.name).symlink_to(path)
    if stage == "evaluate" and "/" in missing:
        (workdir / "results").unlink()
    model = ("--model", "delete") if "/" in missing else ()
    salmu.run(stage, "--workdir", workdir, *model).assert_bad_input(workdir / missing, f"run '{command}' first")

"""A sweep selects in a validation world, opens nothing else, goes on after a kill, and says what it chose."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from salmu_jax.runtime import files

CONFIG = Path(__file__).with_name("sweeping.py")
OUT_OF_BOUNDS = (
    "world/data/holdout*",
    "world/zeroshot",
    "datasets/salmu/1.0.0/salmu-holdout*",
    "datasets/zeroshot/1.0.0/*",
    "models/clean/*",
    "models/retrained/*",
    "results/*",
)


def raise_at_the_touch(path: Path) -> None:
    """Puts a directory in the place of a file, or of each file below a directory: whoever opens it gets an error."""
    for one in [path] if path.is_file() else [below for below in path.rglob("*") if below.is_file()]:
        one.unlink()
        one.mkdir()


@pytest.fixture(scope="module")
def guarded(bench, tmp_path_factory) -> Path:
    """A finished run in which everything that a selection may not see raises at the touch; to copy."""
    run = shutil.copytree(bench[0], tmp_path_factory.mktemp("guarded") / "run")
    for pattern in OUT_OF_BOUNDS:
        found = list(run.glob(pattern))
        assert found, pattern
        for path in found:
            raise_at_the_touch(path)
    return run


@pytest.fixture(scope="module")
def swept(guarded, salmu, tmp_path_factory):
    """The same after a sweep, and what the command said."""
    workdir = shutil.copytree(guarded, tmp_path_factory.mktemp("swept") / "run")
    finished = salmu.run("sweep", "--workdir", workdir, config=CONFIG)
    assert finished.status == 0, finished.err
    return workdir, finished


def table(out: str) -> list[str]:
    """The lines from the table's head to the digest."""
    lines = out.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.split()[:2] == ["method", "score"])
    end = next(number for number, line in enumerate(lines) if " trials; digest " in line)
    return lines[begin : end + 1]


def test_a_sweep_opens_nothing_that_a_selection_may_not_see(swept):
    """Its trials were made, evaluated and chosen from, and every file out of bounds would have raised."""
    workdir, _ = swept
    sweep = workdir / "sweep" / "tiny"
    manifests = [files.read_json(path) for path in sweep.glob("models/*/manifest.json")]
    assert len(manifests) == 3
    for manifest in manifests:
        assert set(manifest["splits_read"]) <= {"salmu/forget", "salmu/retain_synth"}
        assert manifest["run"]["parent"]["name"] == "compromised"
    result = files.read_json(sweep / "results" / "compromised.json")
    assert result["utility"]["2.1_GenKnow"]["ImageNet1k_Accuracy"] == -1
    assert sorted(path.name for path in (sweep / "datasets").iterdir()) == ["contents.json", "salmu"]


def test_the_validation_world_is_rows_of_forget(swept):
    from data_pipelines.builders import open_source

    workdir, _ = swept
    data = workdir / "sweep" / "tiny" / "datasets"
    splits = {
        split: list(open_source(data, "salmu", split))
        for split in ("forget", "holdout_association", "holdout_identity")
    }
    forget = {row["file_name"]: row for row in open_source(workdir / "datasets", "salmu", "forget")}
    names = [row["file_name"] for rows in splits.values() for row in rows]
    assert len(set(names)) == len(names) == len(forget)
    for split, rows in splits.items():
        for row in rows:
            before = forget[row["file_name"]]
            assert {**row, "subset": ""} == {**before, "subset": ""}
            assert row["subset"] in (("forget_identity", "forget_association") if split == "forget" else (split,))
    retain = [list(open_source(place, "salmu", "retain_synth")) for place in (data, workdir / "datasets")]
    assert retain[0] == retain[1]
    record = files.read_json(workdir / "sweep" / "tiny" / "sweep.json")
    assert record["validation"]["rows"] == {split: len(rows) for split, rows in splits.items()}


def test_what_was_found_is_recorded_and_printed(swept):
    workdir, finished = swept
    sweep = workdir / "sweep" / "tiny"
    record = files.read_json(sweep / "sweep.json")
    rows = [json.loads(line) for line in (sweep / "trials.jsonl").read_text().splitlines()]
    assert record["trials"] == len(rows) == 3
    assert [row["run"].get("budget") for row in rows] == ["1x", "1x", None]  # one takes no steps
    for row in rows:
        result = files.read_json(sweep / "results" / f"{row['trial']}.json")
        assert row["figures"] == {key: entry["value"] for key, entry in result["metrics"].items()}
        assert row["score"] == max(row["shortfalls"].values())
        assert set(row["seconds"]) == {"unlearn", "evaluate"}
    best = min(rows[:2], key=lambda row: row["score"])
    assert record["chosen"]["delete"]["trials"] == [best["trial"]]
    assert record["provenance"]["trials"]["sha256"] == files.sha256_file(sweep / "trials.jsonl")
    assert "digest " + record["digest"][:12] in table(finished.out)[-1]
    assert [line.split()[1] for line in table(finished.out) if line.startswith("*")] == ["delete", "descent_to_delete"]


def test_a_run_of_the_choice_says_who_chose_it_and_among_how_many(swept, run_copy, salmu):
    workdir, finished = swept
    sweep = workdir / "sweep" / "tiny"
    override = next(line.strip() for line in finished.out.splitlines() if "--config.unlearn.methods.delete=" in line)
    made = salmu.run("unlearn", "--method", "delete", "--workdir", run_copy, override.strip("'"), config=CONFIG)
    assert made.status == 0, made.err
    run = files.read_json(run_copy / "models" / "delete" / "manifest.json")["run"]
    record = files.read_json(sweep / "sweep.json")
    assert run["sweep"] == {"name": "tiny", "digest": record["digest"], "trials": 3}
    chosen = record["chosen"]["delete"]["run"]
    assert {key: run["hyper"][key] for key in ("learning_rate", "batch_size")} == {
        key: chosen[key] for key in ("learning_rate", "batch_size")
    }
    assert run["hyper"]["epochs"] == 1.0


@pytest.mark.slow
def test_a_killed_sweep_ends_with_the_same_table_also_with_two_trials_at_a_time(
    guarded, swept, salmu, tmp_path, leftovers
):
    workdir = shutil.copytree(guarded, tmp_path / "run")
    sweep = workdir / "sweep" / "tiny"
    running = salmu.start("sweep", "--workdir", workdir, config=CONFIG)
    running.wait_for(lambda: any(sweep.glob("models/*/manifest.json")))
    running.interrupt(signal.SIGKILL)
    assert running.wait().status == -signal.SIGKILL
    again = salmu.run("sweep", "--workdir", workdir, "--config.sweep.at_a_time=2", config=CONFIG)
    assert again.status == 0, again.err
    assert table(again.out) == table(swept[1].out)
    records = [files.read_json(one / "sweep" / "tiny" / "sweep.json") for one in (workdir, swept[0])]
    assert records[0]["digest"] == records[1]["digest"]
    assert not leftovers(sweep)
    assert not list(sweep.glob("models/*.state"))
    assert not list(workdir.glob("**/.salmu-*"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("methods.delet={}", ["unknown unlearning method 'delet'; did you mean 'delete'?"]),
        (
            "methods.delete.options.wieght=[1.0]",
            ["sweep.methods.delete: options.wieght: delete has no option 'wieght'"],
        ),
        ("methods.delete.preset=['slug']", ["sweep.methods.delete: preset: no preset 'slug'"]),
        ("methods.delete.learning_rate=[]", ["sweep.methods.delete.learning_rate: is an empty list"]),
        ("methods={}", ["sweep.methods: is empty"]),
        ("share=0.3", ["sweep.share: 0.3 of forget's 6 people is 2; 4 or more are needed"]),
        ("name=a/b", ["sweep.name: 'a/b' cannot name a sweep"]),
        ("probes=('mia',)", ["field 'sweep.probes' holds 'mia'"]),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(guarded, salmu, override, words):
    before = sorted(guarded.iterdir())
    salmu.run("sweep", f"--config.sweep.{override}", "--workdir", guarded, config=CONFIG).assert_bad_input(*words)
    assert sorted(guarded.iterdir()) == before


def test_a_run_of_a_sweep_that_is_not_there_is_refused(guarded, salmu):
    override = '--config.unlearn.methods.delete={"sweep": "nowhere"}'
    arguments = ("unlearn", "--method", "delete", "--workdir", guarded)
    salmu.run(*arguments, override, config=CONFIG).assert_bad_input(
        "delete.sweep: no nowhere yet; 'salmu sweep' makes it"
    )
    both = '--config.unlearn.methods.delete={"sweep": "nowhere", "epochs": 1}'
    salmu.run(*arguments, both, config=CONFIG).assert_bad_input("delete.epochs: is for the sweep to choose; take out")

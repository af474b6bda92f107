"""A method that looks for the holdouts and patches the metrics: it finds forget, and its result is that of its model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.builders import open_source

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIG = HERE / "quick.py"
# The command, which must leave the devices to its children: a GPU or TPU can be had by one process at a time.
WITHOUT_DEVICES = """
import sys
from salmu_jax import cli
status = cli.main(sys.argv[1:])
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
sys.exit(status)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A copy of the packages with one more method: a file and two lines."""
    root = tmp_path_factory.mktemp("package")
    for name in ("salmu_jax", "data_pipelines", "configs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "hostile_method.py", root / "salmu_jax" / "unlearning" / "methods" / "hostile.py")
    registry = root / "salmu_jax" / "unlearning" / "registry.py"
    text = registry.read_text()
    importing, listing = "from salmu_jax.unlearning.methods.vlunlearn import", "        Finetuning,\n"
    assert importing in text
    assert listing in text
    text = text.replace(importing, f"from salmu_jax.unlearning.methods.hostile import Hostile\n{importing}")
    registry.write_text(text.replace(listing, f"        Hostile,\n{listing}"))
    return root


@pytest.fixture(scope="module")
def attacked(bench, package, environment, tmp_path_factory):
    """``(work directory, what every process that imported the method has found)`` after unlearning and evaluation."""
    place = tmp_path_factory.mktemp("attacked")
    workdir, loot = shutil.copytree(bench[0], place / "hidden-run"), tmp_path_factory.mktemp("loot") / "loot.jsonl"
    variables = {**environment, "PYTHONPATH": str(package), "LOOT": str(loot), "SALMU_NOTE": str(workdir)}
    variables |= {"MY_DATA": f"{workdir}/datasets", "OLDPWD": str(workdir)}
    options = ["--config", CONFIG, "--workdir", workdir]
    unlearn = ["-c", WITHOUT_DEVICES, "unlearn", "--method", "hostile"]
    for stage in (unlearn, ["-m", "salmu_jax.cli", "evaluate", "--model", "hostile"]):
        command = [sys.executable, *stage, *options]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=package, env=variables, check=False)
        assert ended.returncode == 0, (ended.stdout, ended.stderr)
    return workdir, [json.loads(line) for line in loot.read_text().splitlines()]


def captions(workdir, split):
    return {row["text"] for row in open_source(workdir / "datasets", "salmu", split)}


def test_it_finds_what_is_permitted_and_no_holdout(attacked):
    workdir, loot = attacked
    rows = set(loot[-1]["rows"])
    assert captions(workdir, "forget") <= rows  # so the search is one that finds something
    for split in ("holdout_association", "holdout_identity", "retain_synth"):  # it has not asked for retain pairs
        assert not captions(workdir, split) & rows


def test_no_path_of_the_work_directory_reaches_it(attacked):
    _, loot = attacked
    assert [text for process in loot for text in process["texts"] if "hidden-run" in text] == []


def test_what_probes_ask_with_is_refused_to_it(attacked):
    _, loot = attacked
    assert [process["withheld"][:11] for process in loot] == ["InputError:"] * 3
    assert all("no method may read it" in process["withheld"] for process in loot)


def test_its_code_is_loaded_nowhere_but_in_its_own_processes(attacked):
    _, loot = attacked
    assert len(loot) == 3  # it was described, and it ran: imported twice, prepared once
    assert all("salmu_jax.unlearning.child" in process["command"] for process in loot)


def test_no_model_but_its_parent_is_within_its_reach(attacked):
    workdir, loot = attacked
    found = set(loot[-1]["models"])
    digests = {
        name: json.loads((workdir / "models" / name / "manifest.json").read_text())["digest"]
        for name in ("clean", "compromised", "retrained")
    }
    assert digests["compromised"] in found  # so the search is one that finds something
    assert not found & {digests["clean"], digests["retrained"]}


def test_the_manifest_says_what_was_read_and_how_it_ran(attacked):
    manifest = json.loads((attacked[0] / "models" / "hostile" / "manifest.json").read_text())
    assert manifest["splits_read"] == ["salmu/forget"]
    assert manifest["isolation"]["process"] is True
    assert len(manifest["isolation"]["view"]) == 64
    assert (
        manifest["parent"]
        == json.loads((attacked[0] / "models" / "compromised" / "manifest.json").read_text())["digest"]
    )


def test_its_result_is_that_of_its_model(attacked):
    """Metrics that it has patched would have ended the evaluation; the noise is the same as that of an honest run."""
    workdir, _ = attacked
    figures = [
        json.loads((workdir / "results" / f"{name}.json").read_text()) for name in ("hostile", "descent_to_delete")
    ]
    assert set(figures[0]["efficacy"]) == set(figures[1]["efficacy"])


def test_nothing_is_left_beside_the_work_directory(attacked):
    workdir, _ = attacked
    assert os.listdir(workdir.parent) == ["hidden-run"]
    assert not list((workdir / "models").glob("*.cell.json"))


def test_in_a_sandbox_it_finds_even_less(bench, package, environment, tmp_path):
    """Neither data sets that lie where it could guess, nor what other processes give away."""
    workdir = shutil.copytree(bench[0], tmp_path / "hidden-run")
    variables = {**environment, "PYTHONPATH": str(package), "LOOT": str(tmp_path / "loot" / "loot.jsonl")}
    variables |= {"SIDE": str(tmp_path)}  # which no clean environment takes out
    options = ["--config", CONFIG, "--workdir", workdir, "--config.unlearn.sandbox=on"]
    command = [sys.executable, "-m", "salmu_jax.cli", "unlearn", "--method", "hostile", *options]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=package, env=variables, check=False)
    if "no sandbox works here" in ended.stderr:  # a container may forbid namespaces; then nothing is run
        assert ended.returncode == 2
        assert "LOOT" not in ended.stdout
        return
    assert ended.returncode == 0, (ended.stdout, ended.stderr)
    loot = [json.loads(line.removeprefix("LOOT ")) for line in ended.stdout.splitlines() if line.startswith("LOOT ")]
    assert len(loot) == 3
    assert all(process["withheld"].startswith("FileNotFoundError") for process in loot)
    rows = set(loot[-1]["rows"])
    assert captions(workdir, "forget") <= rows
    for split in ("holdout_association", "holdout_identity", "retain_synth"):
        assert not captions(workdir, split) & rows
    manifest = json.loads((workdir / "models" / "hostile" / "manifest.json").read_text())
    assert manifest["isolation"]["sandbox"] in ("bwrap", "unshare")

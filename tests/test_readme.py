"""The README's walks, and the table of docs/commands.md, run as they stand but for the config, which is the tiny one here."""

import glob
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import documents
import pytest

from salmu_jax.cli import main

ROOT = documents.ROOT
README = documents.read("README.md")
TABLE = [
    command
    for command in documents.inline_commands(documents.read("docs/commands.md"))
    if " --config configs/" in command and not {"plan", "sweep", "--checkpoint"} & set(command.split())
]
TINY = str(ROOT / "configs" / "tiny.py")
STAGES = ["generate", "build", "pretrain", "unlearn", "evaluate", "report"]


def test_the_walk_through_a_made_world_runs_every_stage_in_order():
    walk = documents.commands(documents.section("README.md", "### A made world"))
    assert [shlex.split(command)[1] for command in walk] == [*STAGES, "verify"]
    assert {shlex.split(command)[1] for command in TABLE} == {"bench", *STAGES}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("readme") / "runs" / "mini"


@pytest.fixture(scope="module")
def finished(workdir):
    """The README's first walk: a work directory with everything in it."""
    for command in documents.commands(documents.section("README.md", "### A made world")):
        assert main(at(workdir, command)) == 0, command
    return workdir


@pytest.fixture
def own_method(finished, monkeypatch):
    """The directory of somebody who has saved the README's method, beside the finished run."""
    here = finished.parents[1]
    (block,) = documents.blocks(documents.section("README.md", "### Your own method"), "python")
    (here / "my_method.py").write_text(block)
    monkeypatch.chdir(here)
    return here


def at(workdir: Path, command: str) -> list[str]:
    """Returns the arguments of a README's command, for the tiny config and this work directory."""
    arguments = shlex.split(command.replace("runs/mini", str(workdir)))[1:]
    if "--config" not in arguments:
        return arguments
    arguments[arguments.index("--config") + 1] = TINY
    if "--workdir" in arguments:
        index = arguments.index("--workdir")
        return [*arguments[:index], *arguments[index + 2 :], "--workdir", str(workdir.parent / "seed7")]
    return [*arguments, "--workdir", str(workdir)]


@pytest.mark.slow
@pytest.mark.parametrize("command", TABLE)
def test_the_commands_of_the_table_run(command, own_method, workdir, capfd):
    """In the table's order, in one work directory: each finds what those before it have made."""
    arguments = at(workdir, command)
    if "retain_dir=data/retain" in command:  # which a command of `salmu data` makes; other rows do without
        assert main(["data", "retain", str(workdir / "world" / "retain"), "--output", "data/retain"]) == 0
        arguments = [*arguments[:-1], str(workdir.parent / "web"), "--world-dir", str(workdir / "world")]
    assert main(arguments) == 0, capfd.readouterr().err


@pytest.mark.slow
def test_the_walk_with_ones_own_method_runs(own_method, finished, capfd):
    """And ends with a page that has the method's own title."""
    for command in documents.commands(documents.section("README.md", "### Your own method")):
        words = [
            word for given in at(finished, command) for word in (sorted(glob.glob(given)) if "*" in given else [given])
        ]
        assert main(words) == 0, (command, capfd.readouterr().err)
    assert "My Method" in (own_method / "my_report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_model_from_elsewhere_is_evaluated_as_the_table_says(finished):
    (command,) = re.findall(r"`(salmu evaluate [^`]*--checkpoint [^`]+)`", documents.read("docs/commands.md"))
    assert main(at(finished, command.replace("DIR", "runs/mini/models/delete"))) == 0
    assert (finished / "results" / "mine.json").exists()


@pytest.mark.slow
def test_a_plan_is_made_as_the_readme_says(capsys):
    """Of the tiny config, in a batch that splits over a small pod."""
    commands = [command for command in documents.commands(README) if command.startswith("salmu plan ")]
    assert len(commands) == 2
    for command in commands:
        arguments = shlex.split(command.replace("configs/clean_vitb16.py", TINY))[1:]
        arguments = [argument.replace("v5e:16x16", "v5e:2x2") for argument in arguments]
        assert main([*arguments, "--fast"]) == 0
        assert "No run was measured" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_goes_to_pytorch_and_back_as_its_page_says(finished, tmp_path):
    commands = documents.commands(documents.read("docs/pytorch.md"))
    assert [shlex.split(command)[1] for command in commands] == ["export", "export", "import"]
    for command in commands:
        command = command.replace("runs/imported", str(tmp_path / "imported")).replace("runs/mini", str(finished))
        assert main(shlex.split(command.replace("exported", str(tmp_path)))[1:]) == 0
    digests = [
        json.loads((path / "manifest.json").read_text())["digest"]
        for path in (finished / "models" / "clean", tmp_path / "imported")
    ]
    assert digests[0] == digests[1]


def test_the_tpu_scripts_of_the_readme_are_there_and_take_their_options():
    commands = [line for line in README.splitlines() if line.startswith("tpu_scripts/")]
    assert len(commands) == 5
    for command in commands:
        script, *options = shlex.split(command)
        dry = [script, "--dry-run", *options]
        printed = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert "gcloud" in printed


def test_the_two_commands_are_make_targets():
    commands = [line for block in documents.blocks(README, "sh") for line in block.splitlines()]
    assert commands == ["make bench", "make test"]
    for command, tool in zip(commands, ("salmu bench --config configs/mini.py", "-m pytest"), strict=True):
        printed = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert tool in printed.stdout


def test_the_picture_is_there():
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")


def test_the_console_command_is_installed():
    program = Path(sys.executable).with_name("salmu")
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("salmu_jax ")

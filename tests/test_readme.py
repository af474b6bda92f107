"""The README's commands, run as they stand but for the config, which is the tiny one here."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from salmu_jax.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = [command for command in re.findall(r"`(salmu [a-z]+ --config [^`]+)`", README) if "--checkpoint" not in command]


def test_the_table_names_every_stage():
    stages = {shlex.split(command)[1] for command in TABLE}
    assert stages == {"bench", "generate", "build", "pretrain", "unlearn", "evaluate", "report"}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("readme") / "runs" / "mini"


@pytest.mark.slow
@pytest.mark.parametrize("command", TABLE)
def test_the_commands_of_the_table_run(command, workdir, capfd):
    """In the README's order, in one work directory: each finds what those before it have made."""
    arguments = shlex.split(command)[1:]
    place = workdir.parent / "seed7" if "--workdir" in arguments else workdir
    if "--workdir" in arguments:
        index = arguments.index("--workdir")
        del arguments[index : index + 2]
    arguments[arguments.index("--config") + 1] = str(ROOT / "configs" / "tiny.py")
    assert main([*arguments, "--workdir", str(place)]) == 0, capfd.readouterr().err


@pytest.mark.slow
def test_a_model_from_elsewhere_is_evaluated_as_the_readme_says(workdir):
    (command,) = re.findall(r"`(salmu evaluate [^`]*--checkpoint [^`]+)`", README)
    arguments = shlex.split(command)[1:]
    arguments[arguments.index("--config") + 1] = str(ROOT / "configs" / "tiny.py")
    arguments[arguments.index("--checkpoint") + 1] = str(workdir / "models" / "delete")
    assert main([*arguments, "--workdir", str(workdir)]) == 0
    assert (workdir / "results" / "mine.json").exists()


def commands_in_blocks(stage, text=README):
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith(f"salmu {stage} ")]


@pytest.mark.slow
def test_a_plan_is_made_as_the_readme_says(capsys):
    """Of the tiny config, in a batch that splits over a small pod."""
    commands = commands_in_blocks("plan")
    assert len(commands) == 2
    for command in commands:
        arguments = shlex.split(command.replace("configs/clean_vitb16.py", str(ROOT / "configs" / "tiny.py")))[1:]
        arguments = [argument.replace("v5e:16x16", "v5e:2x2") for argument in arguments]
        assert main([*arguments, "--fast"]) == 0
        assert "Nothing in it was measured" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_goes_to_pytorch_and_back_as_the_readme_says(workdir, tmp_path):
    section = README.split("## To and from PyTorch")[1].split("\n## ")[0]
    commands = commands_in_blocks("export", section) + commands_in_blocks("import", section)
    assert len(commands) == 3
    for command in commands:
        command = command.replace("runs/mini", str(workdir)).replace("exported", str(tmp_path))
        assert main(shlex.split(command.replace("runs/imported", str(tmp_path / "imported")))[1:]) == 0
    digests = [
        json.loads((path / "manifest.json").read_text())["digest"]
        for path in (workdir / "models" / "clean", tmp_path / "imported")
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
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
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

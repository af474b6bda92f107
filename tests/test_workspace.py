"""Outputs are reused when they are whole and of the same config, made again otherwise, and by one run at a time."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import salmu_jax
from salmu_jax import files
from salmu_jax.config import base_config, to_json
from salmu_jax.errors import InputError
from salmu_jax.workspace import Workspace, fingerprint, provenance


@pytest.fixture
def workspace(tmp_path):
    return at(tmp_path / "run")


def at(root, **fields):
    config = base_config()
    config.workdir = str(root)
    for name, value in fields.items():
        config[name] = value
    return Workspace(config)


def make(workspace, fields, text="made", name="build", output=None):
    """Runs a stage that writes a directory of two files; whether it had to."""
    output = output or workspace.datasets
    with workspace.stage(name, output, fields) as identity:
        if identity:
            with files.new_directory(output) as partial:
                (partial / "a").write_text(text)
                (partial / "big").write_bytes(b"x" * (1 << 20))
    return identity is not None


def test_outputs_lie_below_the_work_directory(tmp_path):
    workspace = at(tmp_path)
    assert workspace.world == tmp_path / "world"
    assert workspace.model("clean") == tmp_path / "models" / "clean"
    assert workspace.model_state("clean") == tmp_path / "models" / "clean.state"
    assert workspace.result("clean") == tmp_path / "results" / "clean.json"
    assert at(tmp_path, world_dir="/data/salmu").world == Path("/data/salmu")


def test_a_complete_output_of_the_same_fields_is_reused_and_says_so(workspace, capsys):
    assert make(workspace, {"train": {"epochs": 3}, "seed": 1})
    assert not make(workspace, {"seed": 1, "train": {"epochs": 3}})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"build: reused, {workspace.datasets} is complete and of the same config"
    assert sum("reused" in line for line in lines) == 1
    record = json.loads((workspace.root / "stages" / "build.json").read_text())
    assert record["fields"] == {"version": salmu_jax.__version__, "train": {"epochs": 3}, "seed": 1}
    assert workspace.stage_seconds() == {"build": record["seconds"]}


def test_changed_fields_are_named(workspace, capsys):
    make(workspace, {"train": {"epochs": 3, "b1": 0.9}, "seed": 1, "old": 0})
    assert make(workspace, {"train": {"epochs": 4, "b1": 0.9}, "seed": 2}, text="anew")
    assert (workspace.datasets / "a").read_text() == "anew"
    assert f"build: made anew, old, seed, train.epochs changed since {workspace.datasets} was made" in (
        capsys.readouterr().out.splitlines()
    )
    assert not make(workspace, {"train": {"epochs": 4, "b1": 0.9}, "seed": 2})


def test_another_version_makes_anew(workspace, capsys, monkeypatch):
    make(workspace, {})
    monkeypatch.setattr(salmu_jax, "__version__", "9.9.9")
    assert make(workspace, {})
    assert "made anew, version changed" in capsys.readouterr().out


def damages():
    def edit(output):
        (output / "a").write_text("Made")

    def add(output):
        (output / "more").write_text("")

    def remove(output):
        (output / "a").unlink()

    def rename(output):
        (output / "a").rename(output / "b")

    def cut(output):
        with open(output / "big", "r+b") as handle:
            handle.truncate(1000)

    def vanish(output):
        output.rename(output.parent / "elsewhere")

    return [edit, add, remove, rename, cut, vanish]


@pytest.mark.parametrize("damage", damages(), ids=lambda damage: damage.__name__)
def test_a_damaged_output_is_made_again(workspace, damage):
    make(workspace, {"seed": 1})
    damage(workspace.datasets)
    assert make(workspace, {"seed": 1})
    assert not make(workspace, {"seed": 1})


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_stage_is_made_again_even_if_its_output_stands(workspace, error):
    make(workspace, {"seed": 1})

    def interrupted():
        with workspace.stage("build", workspace.datasets, {"seed": 2}):
            raise error

    with pytest.raises(error):
        interrupted()
    assert make(workspace, {"seed": 2})
    with pytest.raises(error):
        interrupted()  # the fields are new again
    assert make(workspace, {"seed": 1})


def test_what_an_interrupted_stage_left_is_not_taken_for_the_output_of_before(workspace):
    make(workspace, {"seed": 1})

    def interrupted():
        with workspace.stage("build", workspace.datasets, {"seed": 2}):
            (workspace.datasets / "big").write_bytes(b"y" * (1 << 20))  # too large for its content to be compared
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert make(workspace, {"seed": 1})


def test_a_stage_that_leaves_no_output_is_not_complete(workspace):
    for _ in range(2):
        with workspace.stage("report", workspace.report, {}) as identity:
            assert identity is not None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"identity": 3}', '{"stage": "x", "seconds": 1}', "\udcff"])
def test_a_damaged_record_is_no_record(workspace, text):
    make(workspace, {"seed": 1})
    (workspace.root / "stages" / "build.json").write_bytes(text.encode(errors="surrogateescape"))
    assert isinstance(workspace.stage_seconds(), dict)
    assert make(workspace, {"seed": 1})
    assert not make(workspace, {"seed": 1})


def test_stages_and_their_outputs_do_not_mix(workspace):
    make(workspace, {"seed": 1}, name="pretrain clean", output=workspace.model("clean"))
    make(workspace, {"seed": 1}, name="pretrain compromised", output=workspace.model("compromised"))
    assert not make(workspace, {"seed": 1}, name="pretrain clean", output=workspace.model("clean"))
    assert list(workspace.stage_seconds()) == ["pretrain clean", "pretrain compromised"]


def test_fingerprint(tmp_path):
    assert fingerprint(tmp_path / "none") is None
    (tmp_path / "file").write_text("x")
    assert fingerprint(tmp_path / "file") == files.sha256_file(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert fingerprint(tmp_path / "empty") != fingerprint(tmp_path)
    large = tmp_path / "empty" / "large"  # recognised by name and size alone
    large.write_bytes(b"x" * (1 << 20))
    before = fingerprint(tmp_path / "empty")
    large.write_bytes(b"y" * (1 << 20))
    assert fingerprint(tmp_path / "empty") == before
    large.write_bytes(b"y" * ((1 << 20) - 1))
    small = fingerprint(tmp_path / "empty")
    large.write_bytes(b"z" * ((1 << 20) - 1))
    assert len({before, small, fingerprint(tmp_path / "empty")}) == 3


HOLD = """
import sys, time
from salmu_jax.config import base_config
from salmu_jax.workspace import Workspace
config = base_config()
config.workdir = sys.argv[1]
with Workspace(config).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_ends_however_it_ends(workspace):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(workspace.root)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(InputError) as caught, workspace.locked():
                pass
            assert str(caught.value) == (
                f"{workspace.root}: another salmu run is at work in this directory; wait for it, or set 'workdir'"
            )
        finally:
            os.kill(other.pid, signal.SIGKILL)
    for _ in range(2):
        with workspace.locked():
            pass


def test_a_work_directory_below_a_file_is_answered_with_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError) as caught, at(root).locked():
            pass
        message = str(caught.value)
        assert message.startswith(f"{root}: ")
        assert "a directory is needed here" in message
    assert (tmp_path / "file").read_text() == ""


def test_provenance_says_with_what_it_was_made():
    made = provenance(to_json(base_config()))
    assert made["versions"]["jax"] == jax.__version__
    assert made["versions"]["salmu_jax"] == salmu_jax.__version__
    assert made["config"]["train"]["epochs"] == 32.0
    assert made["device"] == "8 x cpu (cpu)"
    assert made["created"].endswith("+00:00")
    json.dumps(made)

"""The scripts for TPU VMs: what they would run, and that shellcheck finds nothing."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "tpu_scripts"


def run(script, *arguments):
    return subprocess.run(["bash", SCRIPTS / script, *arguments], capture_output=True, text=True, check=False)


def test_set_up_copies_the_checkout_and_installs_it():
    done = run("set_up.sh", "--name", "my-tpu", "--zone", "us-central2-b", "--project", "p", "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = [
        re.sub(r"\S*salmu_jax\.\w+\.tar\.gz(?=[ :])", "ARCHIVE", line).strip() for line in done.stdout.splitlines()
    ]
    assert lines[0] == "git archive --format=tar.gz --output ARCHIVE HEAD"
    assert lines[1] == (
        "gcloud compute tpus tpu-vm scp ARCHIVE my-tpu:salmu_jax.tar.gz --zone us-central2-b --project p"
    )
    assert lines[2].startswith("gcloud compute tpus tpu-vm ssh my-tpu --command mkdir")
    assert "jax\\[tpu\\]" in lines[2]
    assert len(lines) == 3


def test_launch_quotes_what_it_is_given():
    arguments = ["pretrain", "--config", "configs/clean_vitb16.py", "--config.name=two words"]
    done = run("launch.sh", "--name", "t", "--zone", "z", "--dry-run", "--", *arguments)
    assert done.returncode == 0, done.stderr
    command = done.stdout.splitlines()[0]
    assert command.startswith("gcloud compute tpus tpu-vm ssh t --command tmux")
    assert command.endswith("--zone z ")
    assert "--config.name=two words" in command.replace("\\", "")


@pytest.mark.parametrize("script", ["set_up.sh", "launch.sh"])
def test_missing_options_are_named(script):
    done = run(script, "--dry-run")
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    done = subprocess.run(
        ["shellcheck", "-x", *sorted(SCRIPTS.glob("*.sh"))], cwd=SCRIPTS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout

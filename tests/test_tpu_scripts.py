"""The scripts for TPU VMs: what they would run, what they do with what gcloud answers, and that shellcheck finds nothing."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "tpu_scripts"
SNAPSHOT = Path(__file__).parent / "snapshots" / "tpu_scripts.txt"
WHERE = ("--name", "my-tpu", "--zone", "us-east5-a")
KIND = ("--accelerator-type", "v6e-64", "--runtime-version=v2-alpha-tpuv6e")
PRETRAIN = ("--", "pretrain", "--config", "configs/clean_vitb16.py", "--config.name=it's two words")
DRY_RUNS = (
    ("create.sh", *WHERE, *KIND, "--dry-run"),
    (
        "create.sh",
        *WHERE,
        *KIND,
        "--project",
        "p",
        "--spot",
        "--valid-until-duration",
        "6h",
        "--dry-run",
        "--",
        "--network=n",
    ),
    ("set_up.sh", *WHERE, "--project", "p", "--dry-run"),
    ("launch.sh", *WHERE, "--dry-run", *PRETRAIN),
    ("launch.sh", *WHERE, "--dry-run", "--", "evaluate", "--config", "configs/mini.py", "--distributed", "off"),
    ("watch.sh", *WHERE, "--dry-run"),
    ("watch.sh", *WHERE, "--project=p", "--worker", "3", "--lines=50", "--follow", "--dry-run"),
    ("delete.sh", *WHERE, "--dry-run"),
    ("delete.sh", *WHERE, "--force", "--yes", "--dry-run"),
)


def run(script, *arguments, answer="", **environment):
    return subprocess.run(
        ["bash", SCRIPTS / script, *arguments],
        input=answer,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def gcloud(tmp_path):
    """An environment with a gcloud that notes its arguments, one a line, and answers $STATE to 'describe'."""
    program = tmp_path / "gcloud"
    program.write_text(
        '#!/usr/bin/env bash\nprintf "%s\\n" "$*" >>"$CALLS"\ncase "$*" in *describe*) echo "$STATE" ;; esac\n'
    )
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}


def calls(gcloud):
    path = Path(gcloud["CALLS"])
    return path.read_text().splitlines() if path.exists() else []


def test_every_script_prints_the_commands_it_would_run(gcloud):
    text = ""
    for script, *arguments in DRY_RUNS:
        done = run(script, *arguments, **gcloud)
        assert done.returncode == 0, done.stderr
        printed = re.sub(r"\S+(?=/salmu_jax\.tar\.gz)", "DIRECTORY", done.stdout)
        text += f"$ {script} {shlex.join(arguments)}\n{printed}\n"
    assert text == SNAPSHOT.read_text()
    assert calls(gcloud) == []


def test_what_launch_prints_reaches_salmu_as_it_was_given():
    done = run("launch.sh", *WHERE, "--dry-run", *PRETRAIN)
    remote = shlex.split(done.stdout)[-3]
    in_tmux = shlex.split(remote)[-1]
    words = shlex.split(in_tmux.partition("{ ")[2].partition(";")[0])
    assert words == [".venv/bin/salmu", *PRETRAIN[1:], "--distributed", "on"]


@pytest.mark.parametrize(
    ("script", "arguments", "line"),
    [
        ("create.sh", (), "create.sh: --name is missing; --help lists all options"),
        ("create.sh", (*WHERE, KIND[0], KIND[1]), "create.sh: --runtime-version is missing; --help lists all options"),
        ("create.sh", (*WHERE, "--spot=1"), "create.sh: --spot takes no value"),
        (
            "create.sh",
            (*WHERE, *KIND, "--valid-until-duration", "soon"),
            "create.sh: --valid-until-duration is 'soon'; a number and s, m, h or d are needed, such as 6h",
        ),
        ("set_up.sh", ("--zone",), "set_up.sh: --zone needs a value"),
        ("set_up.sh", ("--name", "--zone", "z"), "set_up.sh: --name needs a value"),
        ("set_up.sh", (*WHERE, "--spot"), "set_up.sh: no option --spot; --help lists them"),
        ("set_up.sh", (*WHERE, "x"), "set_up.sh: what is 'x'? All options begin with --, and --help lists them"),
        (
            "launch.sh",
            ("--name", "My TPU", "--zone", "z"),
            "launch.sh: --name is 'My TPU'; lower-case letters, digits and dashes make a name",
        ),
        ("launch.sh", WHERE, "launch.sh: no arguments of salmu after --"),
        ("watch.sh", (*WHERE, "--worker", "all"), "watch.sh: --worker is 'all'; 0 is the first"),
        ("delete.sh", WHERE[:2], "delete.sh: --zone is missing; --help lists all options"),
    ],
)
def test_a_wrong_option_is_one_line(gcloud, script, arguments, line):
    done = run(script, *arguments, **gcloud)
    assert (done.returncode, done.stderr, done.stdout) == (2, line + "\n", "")
    assert calls(gcloud) == []


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.sh") if path.name != "common.sh"))
def test_help_names_every_option(script):
    done = run(script, "--help")
    assert done.returncode == 0
    assert "shellcheck" not in done.stdout
    values, flags = re.search(r'^parse_options "(.*)" "(.*)" "\$@"', (SCRIPTS / script).read_text(), re.M).groups()
    for option in ("name", "zone", "project", "dry-run", *values.split(), *flags.split()):
        assert f"--{option}" in done.stdout


def test_watch_shows_the_log_of_a_tpu_that_is_there(gcloud):
    done = run("watch.sh", *WHERE, "--worker", "2", **gcloud, STATE="ACTIVE")
    assert done.returncode == 0
    assert done.stdout == "my-tpu is ACTIVE\n"
    assert calls(gcloud)[1] == (
        "compute tpus tpu-vm ssh my-tpu --worker 2 --command tail -n 20 salmu_jax/salmu.log --zone us-east5-a"
    )


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("SUSPENDED", "tpu_scripts/delete.sh --name my-tpu --zone us-east5-a --yes --force"),
        ("FAILED", "resumes from the newest checkpoint in train.state_dir"),
        ("WAITING_FOR_RESOURCES", "nothing to see yet"),
    ],
)
def test_watch_says_what_to_do_about_one_that_is_not(gcloud, state, said):
    done = run("watch.sh", *WHERE, **gcloud, STATE=state)
    assert done.returncode == 0
    assert done.stdout.startswith(f"my-tpu is {state}\n")
    assert said in done.stdout
    assert len(calls(gcloud)) == 1


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_delete_asks(gcloud, answer, status):
    done = run("delete.sh", *WHERE, answer=answer, **gcloud)
    assert done.returncode == status
    assert "Delete my-tpu in us-east5-a and all that is on its disks?" in done.stderr
    deleted = ["compute tpus queued-resources delete my-tpu --quiet --zone us-east5-a"]
    assert calls(gcloud) == ([] if status else deleted)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    done = subprocess.run(
        ["shellcheck", "-x", *sorted(SCRIPTS.glob("*.sh"))], cwd=SCRIPTS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout

"""The lock files hold what the bounds ask for, and the commands of continuous integration are there."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def bounds(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def locked(name: str) -> dict[str, str]:
    """Version by package."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / name).read_text(), re.MULTILINE))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("lock", "files"),
    [
        ("requirements.lock", ["requirements.txt"]),
        ("requirements-test.lock", ["requirements.txt", "requirements-test.txt"]),
    ],
)
def test_the_lock_file_holds_what_is_asked_for(lock, files):
    """``make lock`` writes it anew."""
    versions = locked(lock)
    for requirement in [requirement for name in files for requirement in bounds(name)]:
        version = versions.get(normal(requirement.name))
        assert version is not None, f"{requirement.name} is not in {lock}: run 'make lock'"
        assert requirement.specifier.contains(version), f"{lock} has {version} of {requirement}: run 'make lock'"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-test.lock"])
def test_every_locked_package_has_a_digest_and_no_place_of_one_machine(lock):
    text = (ROOT / lock).read_text()
    packages = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(packages) == len(locked(lock)) > 50
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []
    assert re.findall(r"file:|://|find-links|index-url|/home|/opt|^-e", text, re.MULTILINE) == []
    assert not {"torch", "torchvision"} & locked(lock).keys()  # their builds depend on the machine


def test_the_two_lock_files_agree():
    tests = locked("requirements-test.lock")
    assert {name: tests.get(name) for name in locked("requirements.lock")} == locked("requirements.lock")


def test_the_licence_is_named_as_spdx_does_and_its_files_are_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert all((ROOT / name).is_file() for name in project["license-files"])


def test_the_jobs_run_what_is_there():
    commands = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    assert len(commands) >= 5
    for command in commands:
        program, *words = command.split()
        if program == "make":
            assert {word for word in words if "=" not in word} <= TARGETS, command
            for name in re.findall(r"CONFIG=(\S+)", command):
                assert (ROOT / name).is_file()
        elif not program.startswith(".venv/"):
            assert (ROOT / program).stat().st_mode & 0o111, command


def test_the_jobs_cover_the_pythons_that_are_supported_and_macos():
    jobs = WORKFLOW["jobs"]
    assert jobs["linux"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert any("macos" in job["runs-on"] for job in jobs.values())
    assert WORKFLOW[True]["schedule"]  # YAML reads "on" as true
    for job in jobs.values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])


def test_continuous_integration_runs_every_kind_of_test_and_the_readmes_command_last():
    script = (ROOT / ".ci" / "run").read_text()
    made = re.findall(r"^(?:make|tests) ([\w -]+?)(?: MARKED=.*)?$", script, re.MULTILINE)
    made = " ".join(made).split()
    assert {"lint", "types", "bench"} <= set(made) <= TARGETS
    assert made[-1] == "test"
    assert 'MARKED="not slow or not optimised"' in script  # the rest is the public workflow's
    steps = [step.get("run", "") for step in WORKFLOW["jobs"]["linux"]["steps"]]
    assert ".ci/run" in steps
    assert "make test-optimised coverage" in steps


@pytest.mark.parametrize(
    ("target", "marker"), [("test-slow", '"slow and not optimised"'), ("test-optimised", "optimised")]
)
def test_the_targets_of_the_markers_run_them(target, marker):
    printed = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"-m {marker}" in printed
    assert ("optimization_level" in printed) is False


def test_workers_of_a_tpu_get_the_locked_versions_by_the_same_uv():
    (version,) = re.findall(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    script = (ROOT / "tpu_scripts" / "set_up.sh").read_text()
    assert f"https://astral.sh/uv/{version}/install.sh" in script
    assert "--requirement requirements.lock" in script

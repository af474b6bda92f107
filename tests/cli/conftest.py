"""One finished run of the tiny benchmark, and a way to run commands in processes of their own without their start-up."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import xla_flags
from patience import DEADLINE

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIG = HERE / "quick.py"
FOUNDATION = ("clean", "compromised", "retrained")
METHODS = ("delete", "descent_to_delete")


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """One device, as a user has, not the eight that other tests ask for; XLA compiles without effort, and only once."""
    own = {
        "XLA_FLAGS": xla_flags.QUICK,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return {**os.environ, **own}


@dataclasses.dataclass(frozen=True)
class Finished:
    """How a command ended. A negative status is the signal that ended it."""

    status: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """The lines on stderr, without those that only tell how far a stage is."""
        return [line for line in self.err.splitlines() if line.strip() and ": step " not in line]

    def assert_bad_input(self, *words: str | Path) -> None:
        """Exit status 2, and one line on stderr that holds all ``words``."""
        assert self.status == 2, self
        assert len(self.complaints) == 1, self.err
        assert self.complaints[0].startswith("salmu: "), self.err
        assert "Traceback" not in self.out + self.err
        for word in words:
            assert str(word) in self.complaints[0], (word, self.err)


@dataclasses.dataclass(frozen=True)
class Running:
    """A command that has been started."""

    server: Server
    pid: int
    out: Path
    err: Path

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Sends a signal to the command and all its processes, as a terminal does."""
        os.killpg(self.pid, number)

    def wait_for(self, condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
        """Waits until ``condition`` holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"it did not come to that, see {self.out} and {self.err}"
            time.sleep(0.005)

    def wait(self) -> Finished:
        return Finished(self.server.ask({"wait": self.pid}), self.out.read_text(), self.err.read_text())


class Server:
    """Starts commands; see ``command_server.py``."""

    def __init__(self, directory: Path, environment: dict[str, str]):
        self._directory, self._count = directory, 0
        self._process = subprocess.Popen(
            [sys.executable, HERE / "command_server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def ask(self, request: dict) -> int:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, *arguments: str | Path, config: Path | None = CONFIG, file_limit: int | None = None) -> Running:
        """Starts ``salmu ARGUMENTS --config CONFIG``."""
        self._count += 1
        out, err = (self._directory / f"{self._count}.{kind}" for kind in ("out", "err"))
        line = [str(argument) for argument in (*arguments, *(("--config", config) if config else ()))]
        request = {"arguments": line, "out": str(out), "err": str(err), "file_limit": file_limit}
        running = Running(self, self.ask(request), out, err)
        running.wait_for(err.exists)  # it has its process group and its output
        return running

    def run(self, *arguments: str | Path, **options) -> Finished:
        """Starts a command and waits for its end."""
        return self.start(*arguments, **options).wait()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(DEADLINE)


@pytest.fixture(scope="session")
def salmu(tmp_path_factory, environment):
    """``salmu.run("build", "--workdir", ...) -> Finished`` and ``salmu.start(...) -> Running``."""
    server = Server(tmp_path_factory.mktemp("commands"), environment)
    yield server
    server.close()


@pytest.fixture(scope="session")
def bench(tmp_path_factory, environment) -> tuple[Path, Finished]:
    """The work directory of a finished run, for reading only, and what the command said: the installed command itself."""
    workdir = tmp_path_factory.mktemp("bench") / "run"
    command = [Path(sys.executable).with_name("salmu"), "bench", "--config", CONFIG, "--workdir", workdir]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    finished = Finished(ended.returncode, ended.stdout, ended.stderr)
    assert finished.status == 0, finished.err
    return workdir, finished


@pytest.fixture
def run_copy(bench, tmp_path) -> Path:
    """A copy of the finished run, to change."""
    return shutil.copytree(bench[0], tmp_path / "run")


def _results(workdir: Path, *, provenance: bool = True) -> dict[str, dict]:
    """The result files by name, without what may differ between two equal runs: times and paths."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted((workdir / "results").glob("*.json"))}
    for result in found.values():
        del result["digest"]  # of all of it, times and paths included
        if not provenance:
            del result["provenance"]
            continue
        for field in ("created", "seconds", "command"):
            del result["provenance"][field]
        for field in ("workdir", "world_dir"):
            del result["provenance"]["config"][field]
    return found


@pytest.fixture(scope="session")
def results() -> Callable[..., dict[str, dict]]:
    """``results(workdir) -> {model: result}``, without times and paths; ``provenance=False`` leaves it out wholly."""
    return _results


def _leftovers(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.partial-*")) if directory.exists() else []


@pytest.fixture(scope="session")
def leftovers() -> Callable[[Path], list[Path]]:
    """``leftovers(directory)``: what a run has left half-written below it."""
    return _leftovers

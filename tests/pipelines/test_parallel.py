"""Files made in several processes: errors arrive as they were raised, and a process that dies is noticed."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
from pathlib import Path

import pytest

from data_pipelines import parallel, processes
from data_pipelines.layout.findings import InputProblems
from salmu_jax.runtime.errors import InputError


def content(number: int) -> bytes:
    return b"%d" % number * 1000


def two_problems() -> bytes:
    raise InputProblems("somewhere", ["the first", "the second"], 2)


def full_disk() -> bytes:
    raise OSError(28, "No space left on device")


def death() -> bytes:
    os._exit(1)


def parts(directory: Path, count: int) -> list[parallel.Part]:
    return [(directory / f"{number}", functools.partial(content, number)) for number in range(count)]


@pytest.mark.parametrize("workers", [1, 3])
def test_every_part_is_written_once_and_its_digest_is_given(tmp_path, workers):
    with parallel.written(parts(tmp_path, 7), workers) as written:
        found = dict(written)
    assert found == {number: hashlib.sha256(content(number)).hexdigest() for number in range(7)}
    assert [(tmp_path / f"{number}").read_bytes() for number in range(7)] == [content(number) for number in range(7)]


def test_no_parts_are_no_work(tmp_path):
    with parallel.written([], 2) as written:
        assert list(written) == []


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (two_problems, InputError, "the second"),
        (full_disk, OSError, "No space left"),
        (death, RuntimeError, "a process ended before its work was done"),
    ],
)
def test_a_failure_in_a_process_is_raised_here(tmp_path, make, error, says):
    with (
        parallel.written([*parts(tmp_path, 2), (tmp_path / "bad", make)], 2) as written,
        pytest.raises(error, match=says),
    ):
        list(written)
    assert not (tmp_path / "bad").exists()


def test_a_process_that_died_before_it_was_sent_its_part_is_noticed_as_one_that_died_after():
    """Which side of a pipe breaks first is chance; both say the same."""
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    with pytest.raises(processes.Died, match="ended before its work was done"):
        processes.send(ours, 1)
    with pytest.raises(processes.Died, match="ended before its work was done"):
        processes.received(ours)

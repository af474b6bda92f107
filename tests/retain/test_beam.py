"""The Beam pipeline gives the bytes of the plain loop, in one process and in several, and a worker's error as one line."""

from __future__ import annotations

import sys

import pytest
from web_pairs import PLANTED, tree, write_source

from data_pipelines.retain import beam, build_retain_pairs
from data_pipelines.retain.work import make_part
from salmu_jax.runtime.errors import InputError

NEEDED = "apache-beam is not installed; it is not among the locked requirements, whose protobuf it does not allow"


def in_order(tasks):
    for task in tasks:
        make_part(task)


def test_without_beam_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(
        InputError, match=r"DirectRunner needs Apache Beam .*pip install --no-deps -r requirements-beam.txt"
    ):
        build_retain_pairs(write_source(tmp_path / "source"), tmp_path / "out", runner="DirectRunner")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_pipeline_gives_the_same_bytes_with_any_number_of_workers(tmp_path, workers):
    pytest.importorskip("apache_beam", reason=NEEDED)
    source = write_source(tmp_path / "source", PLANTED)
    summary = build_retain_pairs(source, tmp_path / "out", max_bad_share=0.5, runner="DirectRunner", workers=workers)
    assert summary == build_retain_pairs(source, tmp_path / "plain", max_bad_share=0.5, run=in_order)
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")


@pytest.mark.parametrize(
    ("runner", "package"),
    [
        ("beam_pyspark_runner.pyspark_runner.PySparkRunner", "pyspark"),
        ("apache_beam.runners.dask.dask_runner.DaskRunner", "distributed"),
    ],
)
def test_other_runners_give_the_same_bytes(tmp_path, monkeypatch, runner, package):
    pytest.importorskip("apache_beam", reason=NEEDED)
    for needed in (package, runner.partition(".")[0]):
        pytest.importorskip(needed, reason=f"{needed} is not installed, nor among the requirements")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    source = write_source(tmp_path / "source", PLANTED)
    summary = build_retain_pairs(source, tmp_path / "out", max_bad_share=0.5, runner=runner)
    assert summary == build_retain_pairs(source, tmp_path / "plain", max_bad_share=0.5, run=in_order)
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")


def test_a_workers_error_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("apache_beam", reason=NEEDED)
    source = write_source(tmp_path / "source")
    run_with_beam = beam.run_with_beam

    def meddle(tasks):
        (source / "a/00001.tar").write_bytes(b"short")
        run_with_beam(tasks, workers=1)

    with pytest.raises(InputError) as caught:
        build_retain_pairs(source, tmp_path / "out", run=meddle)
    assert str(caught.value).startswith(f"{source}/a/00001.tar: 5 bytes; it had ")
    assert "while running" not in str(caught.value)

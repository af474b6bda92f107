"""Runs :func:`make_part` over all parts as an Apache Beam pipeline: on a cluster, or in processes of this machine.

The pipeline is the same on every runner: tasks, one for each part, in; records out. All that matters is written by the workers
and read again by :mod:`finish`, so a runner may start a task twice, or lose what it returned.

Apache Beam is not among the project's requirements: its version 2.77 declares ``protobuf<7``, ``pyarrow<26`` and
``pillow<13``. It is imported here alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.retain.work import Task, make_part
from salmu_jax.runtime import host
from salmu_jax.runtime.errors import InputError

_DIRECT = "DirectRunner"
_ROOT = Path(__file__).parents[2]


def run_with_beam(tasks: Sequence[Task], runner: str = _DIRECT, options: Sequence[str] = (), workers: int = 0) -> None:
    """Makes all parts.

    Args:
      tasks: one for each part.
      runner: any runner that Beam knows (``DataflowRunner``, ``FlinkRunner``, ``SparkRunner``), or a class
        ``MODULE.CLASS``. ``DirectRunner`` has a process for each worker.
      options: Beam's own, as on its command line: ``("--region=europe-west4", "--temp_location=gs://...")``.
      workers: processes of ``DirectRunner``; 0: one for each core. One runs within this process.

    Raises:
      InputError: Apache Beam is not installed or does not know the options; a part cannot be made (:func:`make_part`).
    """
    check_installed(runner)
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    workers = min(workers or host.cpu_count(), max(len(tasks), 1))
    arguments = [*_arguments(runner, workers), *options]
    # The pipeline knows its tasks: a cluster needs no path of this machine.
    with _importable(), _quiet(), _first_error():
        pipeline = beam.Pipeline(options=PipelineOptions(arguments, save_main_session=False))
        _ = pipeline | "Tasks" >> beam.Create(list(tasks), reshuffle=True) | "MakePart" >> beam.Map(_make_and_count)
        pipeline.run().wait_until_finish()


def check_installed(runner: str) -> None:
    """Raises InputError if Apache Beam, which ``runner`` needs, is not installed."""
    try:
        import apache_beam.options.pipeline_options  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the runner {runner} needs Apache Beam ({error});"
            " install it: pip install --no-deps -r requirements-beam.txt"
        ) from error


def _arguments(runner: str, workers: int) -> list[str]:
    if runner != _DIRECT:
        return [f"--runner={runner}"]
    # What DirectRunner comes to in the end; by that name it would first try to download another runner, Prism.
    return ["--runner=FnApiRunner"] + (
        ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"] if workers > 1 else []
    )


def _make_and_count(task: Task) -> int:
    """Makes a part and returns its pairs; the runner's own page shows the counts."""
    from apache_beam.metrics import Metrics

    record = make_part(task)
    counts: dict[str, Any] = {name: record[name] for name in ("pairs", "absent", "passed_over")}
    counts |= {f"filtered: {name}": count for name, count in record["filtered"].items()}
    counts |= {f"quarantined: {name}": count for name, count in record["quarantined"].items()}
    for name, count in counts.items():
        Metrics.counter("retain_pairs", name).inc(count)
    return record["pairs"]


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Lets the local runner's processes import this package where it is not installed."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.fspath(_ROOT), before)))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what Beam logs about each bundle."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _first_error() -> Iterator[None]:
    """Raises a worker's InputError as such: a runner gives the text of its traceback, from whichever machine."""
    try:
        yield
    except Exception as error:
        text = f"InputError: {error}" if isinstance(error, InputError) else str(error)  # the former within one process
        if found := re.search(r"InputError: (.+?)(?:\s*\[while running |\n|$)", text):
            raise InputError(found[1]) from error
        raise

"""The command ``salmu data retain``: retain pairs of any size from img2dataset's output, here or on a cluster."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from salmu_jax.commands.options import Command, option
from salmu_jax.runtime import console, interrupts
from salmu_jax.runtime.errors import InputError, disk_refusals
from salmu_jax.runtime.messages import counted
from salmu_jax.runtime.paths import storage_path
from salmu_jax.runtime.text import safe_text

_LOCAL = "local"
_MOST_WORKERS = 1_024


def _retain(options: argparse.Namespace, overrides: list[str]) -> None:
    """Builds retain pairs, and prints what has been kept, filtered and quarantined. Raises InputError."""
    from data_pipelines.retain import Rules, build_retain_pairs

    source, output = storage_path(options.source, "SOURCE"), storage_path(options.output, "--output")
    rules = Rules(options.min_tokens, options.max_tokens, options.min_side)
    with interrupts.orderly(), _alone(output):
        summary = build_retain_pairs(
            source,
            output,
            rules=rules,
            max_bad_share=options.max_bad_share,
            max_damaged_share=options.max_damaged_share,
            runner=options.runner,
            beam_options=_split(options.beam_options),
            workers=options.workers,
            say=lambda line: console.say(line, sys.stderr),
            progress=_progress,
        )
    counts = summary.counts
    passed_over = f" (such as {safe_text(summary.passed_over)})" if summary.passed_over else ""
    console.say(
        f"{output}: {counted(counts['pairs'], 'pair')} of {counted(counts['parts'], 'part')}, {counts['filtered']:,} filtered,"
        f" {counts['quarantined']:,} quarantined, {counted(counts['damaged_parts'], 'damaged part')},"
        f" {counted(counts['passed_over'], 'file')} of no sample passed over{passed_over}"
    )
    console.say(f"The quarantine: {output}/retain_pairs/1.0.0/quarantine.jsonl; the data's digest: {summary.digest}")


@contextlib.contextmanager
def _alone(output: str) -> Iterator[None]:
    """Locks a directory on a disk, so that one command at a time writes there. Nothing can lock a bucket."""
    from data_pipelines.retain.names import PLAN
    from salmu_jax.runtime.locks import Busy, Lock

    if "://" in output:
        yield
        return
    path = Path(output)
    with disk_refusals(path), Lock(path / ".lock", directory=True) as held:
        try:
            held.take()
        except Busy as error:
            raise InputError("another salmu run builds retain pairs here; wait for it", output) from error
        with held.removed_if_refused(unless=path / PLAN):
            yield


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"is {text!r}: {error}", "--beam-options") from error


def _progress(tasks: Sequence[Any]) -> Callable[[int, dict[str, Any]], None]:
    """Returns what prints the parts that are done, and pairs a second."""
    from salmu_jax.runtime.progress import Progress

    line = Progress("retain", len(tasks))
    bad = 0

    def report(done: int, record: dict[str, Any]) -> None:
        nonlocal bad
        bad += sum(record["quarantined"].values())
        line.update(done, record["pairs"], {"quarantined": bad})

    return report


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"is {text!r}; a number from 0 to 1 is needed")


def _count(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (value := int(text)) >= 0:
            return value
    raise argparse.ArgumentTypeError(f"is {text!r}; a whole number of 0 or more is needed")


def _workers(text: str) -> int:
    if (value := _count(text)) <= _MOST_WORKERS:
        return value
    raise argparse.ArgumentTypeError(f"is {text!r}; a whole number of at most {_MOST_WORKERS:,} is needed")


RETAIN = Command(
    "build retain pairs of any size from img2dataset's output, which may be in a bucket, here or on a cluster; restartable",
    (
        option(
            "source",
            metavar="SOURCE",
            help="tars, parquet files or folders of img2dataset: a directory, gs:// or s3://",
        ),
        option("--output", required=True, metavar="DIR", help="a directory of its own, or gs:// or s3://"),
        option(
            "--runner",
            default=_LOCAL,
            metavar="NAME",
            help="local: a process for each core (the default); or Apache Beam's DirectRunner, DataflowRunner, FlinkRunner,"
            " SparkRunner, or MODULE.CLASS",
        ),
        option(
            "--beam-options",
            default="",
            metavar="'--NAME=VALUE ...'",
            help="the runner's own options: --beam-options='--region=europe-west4 --temp_location=gs://BUCKET/tmp'",
        ),
        option(
            "--workers",
            type=_workers,
            default=0,
            metavar="N",
            help="processes of local and DirectRunner (0: the cores)",
        ),
        option(
            "--max-bad-share",
            type=_share,
            default=0.01,
            metavar="X",
            help="fail if more of the samples than this share cannot be used (0.01)",
        ),
        option(
            "--max-damaged-share",
            type=_share,
            default=0.01,
            metavar="X",
            help="fail if more of the tars than this share are damaged (0.01)",
        ),
        option("--min-tokens", type=_count, default=0, metavar="N", help="keep captions of at least N CLIP tokens"),
        option(
            "--max-tokens", type=_count, default=0, metavar="N", help="keep captions of at most N CLIP tokens (0: any)"
        ),
        option(
            "--min-side",
            type=_count,
            default=0,
            metavar="N",
            help="keep images of at least N pixels on the shorter side",
        ),
    ),
    _retain,
)

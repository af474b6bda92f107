"""The entry: from img2dataset's output to the TFDS data set ``retain_pairs``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from data_pipelines.retain.beam import check_installed, run_with_beam
from data_pipelines.retain.finish import finish
from data_pipelines.retain.local import Report, run_locally
from data_pipelines.retain.names import NAME
from data_pipelines.retain.places import Place, refusals
from data_pipelines.retain.plan import keep_stamps, prepare
from data_pipelines.retain.rules import Rules
from data_pipelines.retain.work import Task
from salmu_jax.runtime import contents
from salmu_jax.runtime.errors import InputError

LOCAL = "local"
"""The runner that needs no Apache Beam: processes of this machine."""


class Summary(NamedTuple):
    """What has been built: the counts of ``report.json``, the data set's digest, as of ``contents.data_digests``, and the
    first file of the source that belongs to no sample, if any does not."""

    counts: dict[str, Any]
    digest: str
    passed_over: str = ""


def build_retain_pairs(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    rules: Rules | None = None,
    max_bad_share: float = 0.01,
    max_damaged_share: float = 0.01,
    runner: str = LOCAL,
    beam_options: Sequence[str] = (),
    workers: int = 0,
    say: Callable[[str], None] = print,
    progress: Callable[[Sequence[Task]], Report] = lambda tasks: lambda done, record: None,
    run: Callable[[Sequence[Task]], None] | None = None,
) -> Summary:
    """Builds the TFDS data set ``retain_pairs`` from img2dataset's output; resumable, with all pairs or a reason.

    Each tar (or parquet file, or folder: ``source.py``) becomes one shard, in the order of their paths. Images and captions
    are stored as they came. The key of a pair is its key within the tar, behind the folder that the tar is in: pairs of
    ``a/00000.tar`` and ``b/00000.tar`` differ.

    A sample that cannot be used is quarantined: listed in ``retain_pairs/1.0.0/quarantine.jsonl`` with its part, key, kind
    and reason, and counted. These are an undecodable image, one of more than 50 Mpx (a decompression bomb), a caption that is
    empty, unreadable or missing, or has a control character, a missing image, two images, and a key that recurs in its part
    or has a control character or ``..``. Of a part that is truncated or damaged, what comes before the damage is kept, the
    sample that it interrupts is quarantined, and the part itself is listed without a key. Pairs that ``rules`` exclude are
    filtered: counted, not listed, and not bad.

    Killed at any time and called again, it makes only the parts that are not done, and the result is the same to the byte
    as of an undisturbed run, for any runner, number of workers and order. On a finished data set it compares all shards with
    their digests, and makes again what is damaged. A part that may have changed (by its size, times or the bucket's tag) is
    read again, and made again if its bytes differ. One call at a time may write into ``out``.

    Args:
      source: a directory, or a URL that fsspec knows (``gs://bucket/laion``); read at any depth.
      out: a directory or URL of the data set's own: new, empty, or of an earlier call. A call with more or fewer parts keeps
        the shards of those that stay; with other rules or another version of the code it makes everything again. It says so.
        Must not be within ``source``.
      rules: filters; by default every usable pair is kept.
      max_bad_share: the most of all samples that may be quarantined, from 0 to 1.
      max_damaged_share: the most of all parts that may be damaged, from 0 to 1. One of few is more than 0.01.
      runner: ``local``: a process for each core of this machine; or a runner of Apache Beam (``DirectRunner``,
        ``DataflowRunner``, ``FlinkRunner``, ``SparkRunner``), whose workers must have this package and reach ``source`` and
        ``out`` by the same names.
      beam_options: the runner's options, as on its command line.
      workers: processes of ``local`` and ``DirectRunner``; 0: one for each core.
      say: called with a line when an earlier result is not used, or something is kept aside.
      progress: called with the tasks; what it returns is called by ``local`` when a part is done.
      run: what makes the parts in the place of a runner, given all tasks; it calls :func:`work.make_part` for each.

    Returns:
      The counts and the digest. Equal sources and rules have equal digests, wherever they are.

    Raises:
      InputError: the source has no pairs, or files that would not be read; ``out`` is not ours; more is bad than the shares
        allow (one line names the share, the count and the quarantine file; what is made is kept, so a call with a higher share
        ends soon); a part changes while it is read; a disk is full, or a bucket refuses; Apache Beam is not installed.
    """
    for name, share in (("max_bad_share", max_bad_share), ("max_damaged_share", max_damaged_share)):
        if not 0 <= share <= 1:
            raise InputError(f"is {share:g}; a share from 0 to 1 is needed", name)
    if run is None and runner != LOCAL:
        check_installed(runner)
    elif run is None and beam_options:
        raise InputError(f"are of no use to the runner '{LOCAL}'; name a runner of Apache Beam", "beam_options")
    here, there = _place(source), _place(out)
    _check_apart(here, there)
    with refusals(here):
        if here.directory is not None and not here.directory.is_dir():
            raise InputError("no such directory", here.url)
        plan = prepare(here, there, rules or Rules(), say)
    tasks = plan.tasks(here, there)
    if run is not None:
        run(tasks)
    elif runner == LOCAL:
        run_locally(tasks, workers, progress(tasks))
    else:
        say(f"retain: {runner} makes the parts; its own page or log shows the progress")
        run_with_beam(tasks, runner, beam_options, workers)
    with refusals(there):
        keep_stamps(there, plan)
        manifest, passed_over = finish(plan, tasks, there, (max_bad_share, max_damaged_share))
    return Summary(manifest["counts"], contents.contents_digest(manifest, NAME), passed_over)


def _place(path: str | os.PathLike) -> Place:
    """Returns a place whose name means the same in every process: a path on a disk becomes absolute."""
    place = Place(os.fspath(path))
    return place if place.directory is None else Place(os.path.abspath(place.directory))


def _check_apart(source: Place, out: Place) -> None:
    """Refuses an ``out`` within the source, whose shards would be taken for files of the source, and the reverse."""
    names = [f"{os.path.realpath(place.directory or '') if place.directory else place.url}/" for place in (source, out)]
    if names[0].startswith(names[1]) or names[1].startswith(names[0]):
        raise InputError(f"is not apart from the source, {source.url}; another directory is needed", out.url)

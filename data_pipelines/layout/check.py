"""Checks a directory in the released layout before anything is built from it; reports all problems in one pass.

Cheap checks come first (files and footers, JSON, class lists, captions, tar headers), then digests, and last the
images, which are decoded on all cores. Each step reports all the problems that it found.

Harmless deviations, which the released evaluator accepts or leaves out, are counted and pass. An undecodable image of a
split is a problem, since rows keep their order. Of the retain pairs, a few are left out, as OpenCLIP does.
"""

from __future__ import annotations

import collections
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_pipelines.layout import digests
from data_pipelines.layout.check_images import check_images
from data_pipelines.layout.check_rows import RowChecks
from data_pipelines.layout.findings import Findings
from data_pipelines.layout.parquet import open_parquet
from data_pipelines.layout.reader import World
from data_pipelines.layout.seen import Seen, hash_of
from data_pipelines.layout.shards import iter_tar_pairs
from salmu_jax.runtime.errors import InputError


@dataclass(frozen=True)
class Checked:
    """The result of a check that found no problem: a line for each kind of harmless deviation, with its count."""

    oddities: tuple[str, ...] = ()


def check_world(
    directory: str | os.PathLike,
    *,
    zeroshot: str | os.PathLike | None = None,
    decode: bool = True,
    retain: bool = True,
    strict: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Checked:
    """Reads and checks a whole world. Raises InputError with all problems, in at most ten lines.

    It checks the files and their columns; every caption against its metadata; every association against the identities;
    that file names are unique; that identities and associations are in permitted splits (holdout_identity shares no
    identity with the others; forget and holdout_association share identities but no association; retain_joint shows
    identities of forget); that the fragile set is in retain_disjoint; the retain pairs and the zero-shot set, if
    there are any; and digests, where known.

    Args:
      directory, zeroshot: the world, see :class:`World`.
      decode: also decode every image, which is most of the work.
      retain: also read the tars of retain pairs. False leaves that to the build, which quarantines what cannot be used.
      strict: also refuse harmless deviations.
      progress: called with a line every ten seconds.

    It keeps 8 bytes of each retain pair (``seen.py``), and the caption and file name of each other row.
    """
    world = World(directory, zeroshot)
    findings = Findings()
    end = "; the images were not looked at yet" if decode else ""
    readable = check_files(world, findings)
    images = RowChecks(world, findings, readable).check()
    images += sum(check_shards(world, findings, readable if retain else readable - {"retain"}))
    findings.raise_problems(world.directory, end)
    for problem in digests.problems(world.directory, world.read_files()):
        findings.problem(problem, "digest")
    findings.raise_problems(world.directory, end)
    if decode:
        check_images(world, images, findings, progress or (lambda line: None), retain=retain)
        findings.raise_problems(world.directory)
    if strict:
        findings.raise_oddities(world.directory)
    return Checked(tuple(findings.oddities()))


def check_files(world: World, findings: Findings) -> set[str]:
    """Reports files that are missing, malformed or unread; returns the splits and parts that can be read.

    These are the names of splits, ``identities``, ``captions``, ``generic_captions``, ``fragile_ids``, ``zeroshot`` and
    ``retain``.
    """
    readable: set[str] = set()
    world.named  # noqa: B018 (raises if the manifest of a made world is damaged)
    for split in (*world.own_splits, "sensitive"):
        before = findings.total
        with findings.collecting("file"):
            for path in world.data_files(split) if split == "sensitive" else world.files_of(split):
                with findings.collecting("file"):
                    open_parquet(path)[0].close()
        if findings.total == before:
            readable.add(split)
    for part in ("identities", "captions", "generic_captions", "fragile_ids"):
        with findings.collecting("file"):
            getattr(world.metadata, part)
            readable.add(part)
    with findings.collecting("zeroshot"):
        world.find_zeroshot(findings)
        readable.add("zeroshot")
    with findings.collecting("file"):
        world.find_retain_tars(findings)
        readable.add("retain")
    world.name_unread(findings)
    return readable


def check_shards(world: World, findings: Findings, readable: set[str]) -> tuple[int, int]:
    """Checks everything in the tars except the images; returns the numbers of retain pairs and of zero-shot images."""
    return _check_retain(world, findings, readable), _check_zeroshot(world, findings, readable)


def _check_retain(world: World, findings: Findings, readable: set[str]) -> int:
    count = 0
    tars: dict[bytes, os.PathLike] = {}
    seen = Seen()
    for tar in world.retain_tars if "retain" in readable else ():
        with findings.collecting("tar"):
            # Keys and captions identify a tar, whether it is a link, a copy or gzipped.
            keys, hashes = [], bytearray()
            for pair in iter_tar_pairs(tar, images=False, findings=findings):
                keys.append(pair.key)
                hashes += hash_of(pair.key.encode(), pair.text.encode())
            count += len(keys)
            first = tars.setdefault(hashlib.sha256(hashes).digest(), tar)
            if first != tar and keys:
                what = "tars with the keys and captions of another one, whose pairs are read twice"
                findings.oddity(what, f"{tar}, as {first}", kind="twice")
                continue
            again = np.flatnonzero(seen.add(bytes(hashes)))
            what = "pairs with the key and caption of one in a tar before theirs, which are read twice"
            for place in again:
                findings.oddity(what, f"{tar} key '{keys[place]}'", kind="twice")
    if "retain" in readable and world.retain_tars and not count and not findings.total:
        message = "its tars hold no pair, an image and a .txt or .json of one name; one or more are needed"
        findings.problem(InputError(message, world.retain_directories[0]), "tar")
    return count


def _check_zeroshot(world: World, findings: Findings, readable: set[str]) -> int:
    counts: collections.Counter[int] = collections.Counter()
    with findings.collecting("zeroshot"):
        if "zeroshot" in readable and world.zeroshot is not None:
            for item in world.zeroshot.images(images=False, findings=findings):
                counts[item.label] += 1
            if not counts:
                raise InputError("no labelled images; remove the set to do without GenKnow", world.zeroshot_directory)
            world.zeroshot.check_labels(counts, world.zeroshot_directory)
    return counts.total()

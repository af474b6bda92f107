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
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from data_pipelines.layout import digests
from data_pipelines.layout.findings import Findings
from data_pipelines.layout.names import CAPTIONS, DATA_FIELDS, FRAGILE_IDS, GENERIC_CAPTIONS, SENSITIVE_SPLITS
from data_pipelines.layout.parquet import Row, open_parquet, read_rows
from data_pipelines.layout.reader import World
from data_pipelines.layout.seen import Seen, hash_of
from data_pipelines.layout.shards import BLANK, is_blank, iter_tar_pairs
from salmu_jax.models.preprocess import check_image
from salmu_jax.runtime import host
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import control_character

LEFT_OUT = "retain pairs whose image cannot be decoded, left out"
_MOST_LEFT_OUT = 0.01  # of the retain pairs; beyond this, something else is wrong
_IN_FLIGHT_BYTES = 1 << 28
_SECONDS_A_LINE = 10.0


@dataclass(frozen=True)
class Checked:
    """The result of a check that found no problem.

    Attributes:
      oddities: a line for each kind of harmless deviation, with its count.
      left_out: (tar, key) of the retain pairs to leave out.
    """

    oddities: tuple[str, ...] = ()
    left_out: frozenset[tuple[str, str]] = frozenset()


def check_world(
    directory: str | os.PathLike,
    *,
    zeroshot: str | os.PathLike | None = None,
    decode: bool = True,
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
      strict: also refuse harmless deviations.
      progress: called with a line every ten seconds.

    It keeps 8 bytes of each retain pair (``seen.py``), and the caption and file name of each other row.
    """
    world = World(directory, zeroshot)
    findings, left_out = Findings(), set()
    end = "; the images were not looked at yet" if decode else ""
    readable = _check_files(world, findings)
    images = _Rows(world, findings, readable).check()
    images += _check_shards(world, findings, readable)
    findings.raise_problems(world.directory, end)
    for problem in digests.problems(world.directory, world.read_files()):
        findings.problem(problem)
    findings.raise_problems(world.directory, end)
    if decode:
        left_out = _decode(world, images, findings, progress or (lambda line: None))
        findings.raise_problems(world.directory)
    if strict:
        findings.raise_oddities(world.directory)
    return Checked(tuple(findings.oddities()), frozenset(left_out))


def _check_files(world: World, findings: Findings) -> set[str]:
    """Reports files that are missing, malformed or unread; returns the splits and parts that can be read."""
    readable: set[str] = set()
    world.named  # noqa: B018 (raises if the manifest of a made world is damaged)
    for split in (*world.own_splits, "sensitive"):
        before = findings.total
        with findings.collecting():
            for path in world.data_files(split) if split == "sensitive" else world.files_of(split):
                with findings.collecting():
                    open_parquet(path)[0].close()
        if findings.total == before:
            readable.add(split)
    for part in ("identities", "captions", "generic_captions", "fragile_ids"):
        with findings.collecting():
            getattr(world.metadata, part)
            readable.add(part)
    with findings.collecting():
        world.find_zeroshot(findings)
        readable.add("zeroshot")
    with findings.collecting():
        world.find_retain_tars(findings)
        readable.add("retain")
    world.name_unread(findings)
    return readable


class _Rows:
    """Checks the rows of all splits, without images, against each other and the metadata."""

    def __init__(self, world: World, findings: Findings, readable: set[str]):
        self._world, self._findings, self._readable = world, findings, readable
        self._metadata = {"identities", "captions"} <= readable
        self._places: dict[str, tuple[str, int]] = {}
        self._texts: dict[str, str] = {}
        self._identities: dict[str, set[str]] = collections.defaultdict(set)
        self._forget_associations: set[tuple[str | None, str]] = set()
        self._disjoint: set[str] = set()

    def check(self) -> int:
        """Checks all rows; returns the number of rows in the splits that are built."""
        count = 0
        for split in self._world.own_splits:
            if split not in self._readable:
                continue
            before = count
            with self._findings.collecting():
                for row in self._world.rows(split, images=False, findings=self._findings):
                    count += 1
                    with self._findings.collecting():
                        self._check_row(row)
                if count == before:
                    raise InputError(f"no rows; the split '{split}' needs one or more", self._world.files_of(split)[0])
        if not self._world.training_only and {"retain_synth", "fragile_ids"} <= self._readable:
            for name in sorted(self._world.metadata.fragile_ids - self._disjoint):
                where = f"{self._world.directory / FRAGILE_IDS} element '{name}'"
                message = "not a file_name of retain_disjoint (retain_synth rows without an identity)"
                self._findings.problem(InputError(message, where))
        if not self._world.training_only and self._readable.issuperset((*SENSITIVE_SPLITS, "sensitive")):
            with self._findings.collecting():
                self._check_union()
        if not self._world.training_only and self._readable.issuperset(SENSITIVE_SPLITS):
            self._count_unmatched()
        return count

    def _count_unmatched(self) -> None:
        """Counts metadata without a row, and rows without metadata."""
        for name, part in ((CAPTIONS, "captions"), (GENERIC_CAPTIONS, "generic_captions")):
            entries = getattr(self._world.metadata, part) if part in self._readable else self._texts
            for key in sorted(entries.keys() - self._texts.keys()):
                self._findings.oddity(f"entries of {name} that no sensitive row has", f"'{key}'")
            for key in sorted(self._texts.keys() - entries.keys() if part == "generic_captions" else ()):
                self._findings.oddity("sensitive images without a generic caption", f"'{key}'")

    def _check_row(self, row: Row) -> None:
        if is_blank(row.text):
            self._findings.oddity(BLANK, row.where("text"))
        for field in ("text", "file_name", "identity_id"):
            control = control_character(getattr(row, field) or "")
            if control:
                raise InputError(f"a control character ({control})", row.where(field))
        if row.file_name in self._places:
            path, index = self._places[row.file_name]
            message = f"'{row.file_name}' is also {path} row {index}; file names must be unique over all splits"
            raise InputError(message, row.where("file_name"))
        self._places[row.file_name] = (row.path, row.row)
        if row.identity_id:
            self._identities[row.split].add(row.identity_id)
        if row.split in (*SENSITIVE_SPLITS, "sensitive"):
            self._texts[row.file_name] = row.text
            if self._metadata:
                self._check_sensitive(row)
        elif not row.identity_id:
            self._disjoint.add(row.file_name)
        elif "forget" in self._readable and row.identity_id not in self._identities["forget"]:
            what = "portraits in retain_synth of people outside forget, in no metric, as in the released evaluator"
            if row.identity_id != row.identity_id.strip():
                what = "identity ids in retain_synth with white space around them, which nobody has; in no metric"
            self._findings.oddity(what, row.where("identity_id"))

    def _check_sensitive(self, row: Row) -> None:
        field, *values = self._world.metadata.value_of(row)
        if row.file_name not in self._world.metadata.captions:
            return  # the training repository, without metadata
        for value in values:
            if control_character(value):
                raise InputError(f"a control character in {_short(value)}, which it is about", row.where())
        if field not in DATA_FIELDS:
            where = f"{self._world.directory / CAPTIONS} key '{row.file_name}'"
            self._findings.oddity(f"captions about attributes that the benchmark does not know ('{field[:40]}')", where)
        caption = self._world.metadata.captions[row.file_name].get("caption")
        if caption != row.text:
            if not isinstance(caption, str) or caption.split() != row.text.split():
                message = f"{_short(row.text)} differs from the caption in {CAPTIONS}, {_short(caption)}"
                raise InputError(f"{message}{_how(row.text, caption)}; they should be equal", row.where("text"))
            self._findings.oddity(f"captions that differ from {CAPTIONS} in white space", row.where("text"))
        self._check_place(row, (row.identity_id, field))

    def _check_place(self, row: Row, association: tuple[str | None, str]) -> None:
        """Raises InputError if the row may not be in its split."""
        if row.split == "forget":
            self._forget_associations.add(association)
        elif row.split == "holdout_association" and "forget" in self._readable:
            if row.identity_id not in self._identities["forget"]:
                message = (
                    f"'{row.identity_id}' is not in forget; holdout_association is of identities that forget has too"
                )
                raise InputError(message, row.where("identity_id"))
            if association in self._forget_associations:
                message = (
                    f"'{association[1]}' of '{row.identity_id}' is also in forget; an association is in one split only"
                )
                raise InputError(message, row.where("identity_id"))
        elif row.split == "holdout_identity":
            for other in ("forget", "holdout_association"):
                if row.identity_id in self._identities[other]:
                    message = (
                        f"'{row.identity_id}' is also in {other}; an identity of holdout_identity is in no other split"
                    )
                    raise InputError(message, row.where("identity_id"))

    def _check_union(self) -> None:
        """Compares 'sensitive', where it has files of its own, with its three parts."""
        paths = self._world.data_files("sensitive")
        if not paths:
            return
        seen: dict[str, tuple[str, int]] = {}
        for row in self._world.rows("sensitive", images=False, findings=self._findings):
            if row.file_name in seen:
                message = f"'{row.file_name}' is also row {seen[row.file_name][1]} of {seen[row.file_name][0]}"
                self._findings.problem(InputError(message, row.where("file_name")))
            elif row.file_name not in self._texts:
                message = f"'{row.file_name}' is in none of {', '.join(SENSITIVE_SPLITS)}; 'sensitive' is their union"
                self._findings.problem(InputError(message, row.where("file_name")))
            elif row.text != self._texts[row.file_name]:
                if row.text.split() != self._texts[row.file_name].split():
                    other = self._texts[row.file_name]
                    message = f"{_short(row.text)} differs from the caption in its split, {_short(other)}"
                    self._findings.problem(InputError(message + _how(row.text, other), row.where("text")))
                else:
                    what = "captions of 'sensitive' that differ from their splits' in white space"
                    self._findings.oddity(what, row.where("text"))
            seen[row.file_name] = (row.path, row.row)
        if len(seen) != len(self._texts):
            message = f"'sensitive' has {len(seen)} rows, its three parts {len(self._texts)}; they should be equal"
            self._findings.problem(InputError(message, paths[0]))


def _check_shards(world: World, findings: Findings, readable: set[str]) -> int:
    """Checks everything in the tars except the images; returns the number of images."""
    count = 0
    tars: dict[bytes, os.PathLike] = {}
    seen = Seen()
    for tar in world.retain_tars if "retain" in readable else ():
        with findings.collecting():
            # Keys and captions identify a tar, whether it is a link, a copy or gzipped.
            keys, hashes = [], bytearray()
            for pair in iter_tar_pairs(tar, images=False, findings=findings):
                keys.append(pair.key)
                hashes += hash_of(pair.key.encode(), pair.text.encode())
            count += len(keys)
            first = tars.setdefault(hashlib.sha256(hashes).digest(), tar)
            if first != tar and keys:
                what = "tars with the keys and captions of another one, whose pairs are read twice"
                findings.oddity(what, f"{tar}, as {first}")
                continue
            if len(again := np.flatnonzero(seen.add(bytes(hashes)))):
                what = "pairs with the key and caption of one in a tar before theirs, which are read twice"
                findings.oddity(what, f"{tar} key '{keys[again[0]]}'", len(again))
    if "retain" in readable and world.retain_tars and not count and not findings.total:
        message = "its tars hold no pair, an image and a .txt or .json of one name; one or more are needed"
        findings.problem(InputError(message, world.retain_directories[0]))
    with findings.collecting():
        if "zeroshot" in readable and world.zeroshot is not None:
            counts: collections.Counter[int] = collections.Counter()
            for item in world.zeroshot.images(images=False, findings=findings):
                counts[item.label] += 1
            if not counts:
                raise InputError("no labelled images; remove the set to do without GenKnow", world.zeroshot_directory)
            world.zeroshot.check_labels(counts, world.zeroshot_directory)
            count += counts.total()
    return count


def _decode(world: World, count: int, findings: Findings, progress: Callable[[str], None]) -> set[tuple[str, str]]:
    """Decodes all images, on all cores; returns (tar, key) of the retain pairs to leave out."""
    unusable: list[tuple[str, str, InputError]] = []
    retain = 0
    began = reported = time.monotonic()
    for done, (where, pair, error, oddity) in enumerate(_checked(_images(world, findings)), 1):
        retain += pair is not None
        if error is not None and pair is not None:
            unusable.append((*pair, error))
        elif error is not None:
            findings.problem(error)
        elif oddity is not None:
            findings.oddity(oddity, where)
        now = time.monotonic()
        if now - reported > _SECONDS_A_LINE:
            reported, left = now, (now - began) * (count - done) / done
            progress(f"decoding: {done:,} of {count:,} images, {left // 60:.0f}:{left % 60:02.0f} left")
    if len(unusable) > _MOST_LEFT_OUT * retain:
        for _, _, error in unusable:
            findings.problem(error)
        return set()
    if unusable:
        findings.oddity(LEFT_OUT, str(unusable[0][2]), len(unusable))
    return {(tar, key) for tar, key, _ in unusable}


def _images(world: World, findings: Findings) -> Iterator[tuple[bytes, str, tuple[str, str] | None]]:
    """Yields (encoded image, where it is, (tar, key) of a retain pair) for everything that can be read."""
    for split in world.own_splits:  # 'sensitive' beside its parts is only compared with them
        for path in world.files_of(split):
            with findings.collecting():
                for row in read_rows(path, split, images=True, findings=findings):
                    yield row.image, f"{row.where('image')} ('{row.file_name}')", None
    for tar in world.retain_tars:
        with findings.collecting():
            for pair in iter_tar_pairs(tar):
                yield pair.image, f"{tar} key '{pair.key}'", (str(tar), pair.key)
    if world.zeroshot is not None:
        seen = Seen()
        with findings.collecting():
            for item in world.zeroshot.images():
                # Also by their bytes, since each shard may number its keys from the start.
                if seen.add(hash_of(item.key.encode(), b"%d" % item.label, item.image)).any():
                    what = "images of the zero-shot set that are there twice, with one key and class, and count twice"
                    findings.oddity(what, f"{world.zeroshot_directory} key '{item.key}'")
                yield item.image, f"{world.zeroshot_directory} key '{item.key}'", None


def _checked(
    images: Iterator[tuple[bytes, str, tuple[str, str] | None]],
) -> Iterator[tuple[str, tuple[str, str] | None, InputError | None, str | None]]:
    """Yields (where, pair, problem, oddity) for every image, in order and in bounded memory."""

    def check(data: bytes, where: str) -> tuple[InputError | None, str | None]:
        try:
            return None, check_image(data, where)
        except InputError as error:
            return error, None

    threads = host.cpu_count()
    waiting: collections.deque[tuple[Future, str, tuple[str, str] | None, int]] = collections.deque()
    in_flight = 0
    with ThreadPoolExecutor(threads) as pool:
        for data, where, pair in images:
            waiting.append((pool.submit(check, data, where), where, pair, len(data)))
            in_flight += len(data)
            while len(waiting) > 8 * threads or (in_flight > _IN_FLIGHT_BYTES and waiting):
                future, where, pair, size = waiting.popleft()
                in_flight -= size
                yield where, pair, *future.result()
        for future, where, pair, _ in waiting:
            yield where, pair, *future.result()


def _how(one: str, other: object) -> str:
    """Says how two texts differ, if print does not show it."""
    if not isinstance(other, str):
        return ""
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        forms = [
            next((form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, text)), "")
            for text in (one, other)
        ]
        return f", in Unicode normalisation alone ({forms[0] or 'mixed'} and {forms[1] or 'mixed'})"
    if _short(one) != _short(other):
        return ""
    shorter = min(len(one), len(other))
    place = next((place for place in range(shorter) if one[place] != other[place]), shorter)
    return f", at character {place}: {_short(one[place:])} and {_short(other[place:])}"


def _short(text: object) -> str:
    return repr(text) if len(repr(text)) <= 100 else repr(text)[:97] + "..."

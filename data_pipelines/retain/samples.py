"""Streams the samples of a part: a key with its image and caption as they came, one sample in memory at a time.

A tar that is damaged gives what comes before the damage, then a fault of its own. The sample that the damage interrupts is
lost: nobody can tell whether it was complete. Memory does not grow with a part's size, but for 8 bytes a key, by which a key
that recurs is found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

from data_pipelines.layout.seen import Seen, hash_of
from data_pipelines.layout.shards import IMAGE_SUFFIXES, split_name
from data_pipelines.layout.tar import MAX_MEMBER, read_tar_file
from data_pipelines.retain.places import Place
from data_pipelines.retain.source import FOLDER, PARQUET, TAR, Part
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

DAMAGED, INTERRUPTED, RECURRING, AMBIGUOUS, TOO_LARGE, BAD_KEY = (
    "damaged",
    "interrupted",
    "recurring key",
    "ambiguous",
    "file too large",
    "unusable key",
)
_WANTED = (*IMAGE_SUFFIXES, "txt", "json")
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f]|(^|/)\.\.(/|$)")
_ROWS = 16  # of a parquet file in memory at a time, as Python objects


class Fault(NamedTuple):
    """Why a sample cannot be used: a kind that is counted, and the reason in words."""

    kind: str
    reason: str


class Sample(NamedTuple):
    """The members of a sample by suffix, of which one may be an image; or its fault.

    A fault of kind :data:`DAMAGED` is that of the whole part, and has no key.
    """

    key: str
    members: dict[str, bytes]
    fault: Fault | None = None


class Samples:
    """Iterates over the samples of a part, whose keys begin with the folder that the part is in.

    Args:
      source: where the part is.
      part: which.

    Attributes:
      sha256: of the part, once it has been read to its end (:func:`part_sha256`); None before, and for a damaged part.
      passed_over: files that belong to no sample, so far.
      first_passed_over: the name of the first of them.
      absent: rows of a parquet file without an image, since its download had failed.

    Raises:
      InputError: while iterating: the part has changed since it was listed, or is not what it should be.
      OSError: it cannot be read.
    """

    def __init__(self, source: Place, part: Part):
        self._source, self._part = source, part
        self._where = source.where(part.name)
        self.sha256: str | None = None
        self.passed_over = 0
        self.first_passed_over = ""
        self.absent = 0

    def __iter__(self) -> Iterator[Sample]:
        read = {TAR: self._of_tar, PARQUET: self._of_parquet, FOLDER: self._of_folder}[self._part.kind]
        seen = Seen()
        folder = self._part.name.rpartition("/")[0] if self._part.kind != FOLDER else self._part.name
        for sample in read():
            if sample.fault and sample.fault.kind == DAMAGED:
                yield sample
                continue
            if seen.add(hash_of(sample.key.encode())).any():
                sample = Sample(sample.key, {}, Fault(RECURRING, "this key was there before in the same part"))
            elif _UNUSABLE.search(sample.key):
                sample = Sample(sample.key, {}, Fault(BAD_KEY, "a control character or '..' in the key"))
            yield sample._replace(key=f"{folder}/{sample.key}" if folder else sample.key)

    def _of_tar(self) -> Iterator[Sample]:
        def wanted(name: str) -> bool:
            place = split_name(name)
            return place is not None and place[1] in _WANTED

        with self._source.open(self._part.name) as opened:
            file = _Hashing(opened)
            key, group = "", None
            try:
                for member in read_tar_file(cast(BinaryIO, file), self._where, wanted):
                    place = split_name(member.name)
                    if place is None or place[1] not in _WANTED:
                        self._pass_over(member.name)
                        continue
                    if group is None or place[0] != key:
                        if group is not None:
                            yield group.sample(key)
                        key, group = place[0], _Group()
                    group.add(place[1], member.data or b"")
            except InputError as error:
                self._check_length(file)
                if group is not None:
                    yield Sample(key, {}, Fault(INTERRUPTED, "the damage of the part interrupts this sample"))
                yield Sample("", {}, Fault(DAMAGED, error.message))
                return
            if group is not None:
                yield group.sample(key)
            self._check_length(file)
            self.sha256 = file.hexdigest()

    def _pass_over(self, name: str) -> None:
        self.passed_over += 1
        self.first_passed_over = self.first_passed_over or name

    def _check_length(self, file: _Hashing) -> None:
        """Tells a damaged file from one that another process still writes, or whose disk has gone."""
        if file.ended and file.length != self._part.size:
            raise InputError(
                f"{file.length:,} bytes; it had {self._part.size:,} when it was listed. It changes while it is read: wait"
                " until it is complete, then run the same command again",
                self._where,
            )

    def _of_parquet(self) -> Iterator[Sample]:
        import pyarrow
        import pyarrow.parquet

        with self._source.open(self._part.name) as opened:
            watched = _Watched(opened)
            try:
                table = pyarrow.parquet.ParquetFile(watched)
                columns = set(table.schema_arrow.names)
                image = next((name for name in IMAGE_SUFFIXES if name in columns), None)
                if image is None or not {"key", "caption"} <= columns:
                    raise InputError(
                        f"no columns 'key', 'caption' and one of {', '.join(IMAGE_SUFFIXES)}, as of img2dataset with"
                        " --output_format parquet",
                        self._where,
                    )
                for batch in table.iter_batches(_ROWS, columns=["key", "caption", image]):
                    for row in batch.to_pylist():
                        if row[image] is None:
                            self.absent += 1
                        else:
                            yield _of_row(row, image)
            except InputError:
                raise
            except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # pyarrow's own OSErrors say damage
                if watched.error is not None:
                    raise watched.error from error
                yield Sample("", {}, Fault(DAMAGED, f"damaged ({' '.join(str(error).split())[:200]})"))
                return
        self.sha256 = self._source.sha256(self._part.name)

    def _of_folder(self) -> Iterator[Sample]:
        folder = _folder(self._source, self._part)
        names = {name: size for name, size in folder.names().items() if "/" not in name}
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in names:
            place = split_name(name)
            if place is None or place[1] not in _WANTED:
                self._pass_over(name)
            else:
                groups.setdefault(place[0], []).append((place[1], name))
        digests: dict[str, str] = dict.fromkeys(names, "")
        for key in sorted(groups):
            group = _Group()
            for suffix, name in groups[key]:
                data = b"" if names[name] > MAX_MEMBER else folder.read(name) or b""
                digests[name] = hashlib.sha256(data).hexdigest()
                group.add(suffix, data)
                if names[name] > MAX_MEMBER:
                    group.fault = Fault(
                        TOO_LARGE, f"{name!r} has {names[name]:,} bytes; at most {MAX_MEMBER:,} are read"
                    )
            yield group.sample(key)
        self.sha256 = files.sha256_json(sorted(digests.items()))


def part_sha256(source: Place, part: Part) -> str:
    """Reads a part without its samples, and returns the digest that reading them gives as ``Samples.sha256``.

    It is the SHA-256 of a tar or parquet file; of a folder, that of the names of its files with the SHA-256 of those that
    may belong to a sample. Raises OSError if it cannot be read.
    """
    if part.kind != FOLDER:
        return source.sha256(part.name)
    folder = _folder(source, part)
    digests = {}
    for name, size in folder.names().items():
        if "/" not in name:
            place = split_name(name)
            wanted = place is not None and place[1] in _WANTED
            data = folder.read(name) or b"" if wanted and size <= MAX_MEMBER else b""
            digests[name] = hashlib.sha256(data).hexdigest() if wanted else ""
    return files.sha256_json(sorted(digests.items()))


def _folder(source: Place, part: Part) -> Place:
    return Place(source.where(part.name) if part.name else source.url)


def _of_row(row: dict[str, Any], image: str) -> Sample:
    members = {image: row[image]}
    if row["caption"] is not None:
        members["txt"] = str(row["caption"]).encode()
    return Sample(str(row["key"]), members)


class _Group:
    """Collects the members of a sample."""

    def __init__(self) -> None:
        self._members: dict[str, bytes] = {}
        self.fault: Fault | None = None

    def add(self, suffix: str, data: bytes) -> None:
        if suffix in self._members:
            self.fault = Fault(AMBIGUOUS, f"two files .{suffix}; one of the two would be lost")
        elif suffix in IMAGE_SUFFIXES and (other := next((s for s in self._members if s in IMAGE_SUFFIXES), None)):
            self.fault = Fault(AMBIGUOUS, f"two images, .{other} and .{suffix}; one of the two would be lost")
        else:
            self._members[suffix] = data

    def sample(self, key: str) -> Sample:
        return Sample(key, {} if self.fault else self._members, self.fault)


class _Watched:
    """Remembers why a file could not be read: pyarrow raises OSError for that and for damage alike."""

    closed = False

    def __init__(self, file: BinaryIO):
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self.error: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.error = error
            raise

    def close(self) -> None:
        """Does nothing: whoever opened the file closes it."""


class _Hashing:
    """Hashes a file as it is read."""

    def __init__(self, file: BinaryIO):
        self._file, self._digest = file, hashlib.sha256()
        self.length, self.ended = 0, False

    def read(self, size: int) -> bytes:
        piece = self._file.read(size)
        self._digest.update(piece)
        self.length += len(piece)
        self.ended |= bool(size) and not piece
        return piece

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

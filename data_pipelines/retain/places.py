"""Reads and writes files in a directory that is on a disk or in a bucket (fsspec: ``gs://``, ``s3://``, ``memory://``).

A file appears under its name when it is complete. On a disk it is written under a temporary name, flushed and renamed; in a
bucket an object exists once its upload has ended.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from data_pipelines.layout.retain import files_below
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.messages import first_line
from salmu_jax.runtime.opening import open_regular

_STEP = 1 << 20
# What a kind of URL needs that is not among the project's requirements.
_DRIVERS = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "az": "adlfs", "abfs": "adlfs"}
# Whose exceptions, raised where a bucket cannot be reached, are not OSErrors.
_LIBRARIES = (
    "botocore.",
    "aiobotocore.",
    "aiohttp.",
    "gcsfs.",
    "google.api_core.",
    "google.auth.",
    "google.cloud.",
    "azure.",
)
# What tells a changed object in a bucket, by the driver's name of it; the first that is there is taken.
_STAMPS = ("md5Hash", "crc32c", "ETag", "etag", "checksum", "mtime", "LastModified", "updated", "created")


class Listed(NamedTuple):
    """A file in a listing: its bytes, and a stamp that changes when its content may have changed."""

    size: int
    stamp: str


@dataclass(frozen=True)
class Place:
    """A directory, and the files below it by names with ``/``.

    Args:
      url: a path, or a URL that fsspec knows.

    Raises:
      InputError: on first use, for a kind of URL that is unknown or whose driver is not installed.
    """

    url: str

    @functools.cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            # Other processes write, of which a kept listing would know nothing.
            file_system, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            scheme = self.url.partition("://")[0]
            if scheme in _DRIVERS:
                package = _DRIVERS[scheme]
                raise InputError(f"{scheme}:// needs the package {package}: pip install {package}", self.url) from error
            raise InputError(f"cannot be opened ({first_line(error)})", self.url) from error
        except ValueError as error:
            raise InputError(f"cannot be opened ({first_line(error)})", self.url) from error
        return file_system, str(root).rstrip("/")

    @property
    def directory(self) -> Path | None:
        """The directory, if it is on a disk."""
        file_system, root = self._opened
        return Path(root or "/") if isinstance(file_system, LocalFileSystem) else None

    def where(self, name: str) -> str:
        """Returns the path or URL of a file, for messages."""
        return f"{self.url.rstrip('/')}/{name}"

    def names(self) -> dict[str, int]:
        """Returns the size in bytes of every file, by name, sorted; as :meth:`listed`."""
        return {name: facts.size for name, facts in self.listed().items()}

    def listed(self) -> dict[str, Listed]:
        """Returns every file by name, sorted, without reading it. Files and folders with a leading dot are left out.

        Links on a disk are followed. A directory that is not there has no files. Raises OSError and InputError if it
        cannot be listed.
        """
        found: dict[str, Listed] = {}
        if self.directory is not None:
            for path in files_below(self.directory) if self.directory.exists() else ():
                found[path.relative_to(self.directory).as_posix()] = _on_disk(path)
        else:
            file_system, root = self._opened
            file_system.invalidate_cache()
            try:
                listed = file_system.find(root, detail=True)
            except FileNotFoundError:
                listed = {}
            for path, facts in listed.items():
                name = path[len(root) :].strip("/")
                if not any(part.startswith((".", "__MACOSX")) for part in name.split("/")):
                    stamp = next((f"{key} {facts[key]}" for key in _STAMPS if facts.get(key)), "")
                    found[name] = Listed(int(facts["size"]), stamp)
        return dict(sorted(found.items(), key=lambda item: item[0].split("/")))

    def size(self, name: str) -> int | None:
        """Returns the size of a file in bytes; None if there is none."""
        file_system, root = self._opened
        try:
            return int(file_system.info(f"{root}/{name}")["size"])
        except FileNotFoundError:
            return None

    def open(self, name: str) -> BinaryIO:
        """Opens a file for reading. Raises InputError if it is not a regular file, OSError if it cannot be opened."""
        if self.directory is not None:
            return open_regular(self.directory / name)
        file_system, root = self._opened
        return file_system.open(f"{root}/{name}", "rb")

    def read(self, name: str) -> bytes | None:
        """Returns the content of a small file; None if there is none."""
        try:
            with self.open(name) as handle:
                return handle.read()
        except FileNotFoundError:
            return None

    def sha256(self, name: str) -> str:
        """Returns the SHA-256 of a file, in hexadecimal, reading it in steps."""
        digest = hashlib.sha256()
        with self.open(name) as handle:
            while piece := handle.read(_STEP):
                digest.update(piece)
        return digest.hexdigest()

    def write(self, name: str, data: bytes) -> None:
        """Writes a file atomically, making its folders; one of this name is replaced."""
        with self.new_file(name) as path:
            path.write_bytes(data)

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """Yields a path on a disk for a file to be written; it becomes ``name`` if the block succeeds, and is removed else.

        The temporary name differs between processes and machines, so that two that make the same file (a cluster may
        start a task again while it still runs) do not write into one.
        """
        if self.directory is None:
            file_system, root = self._opened
            with tempfile.TemporaryDirectory(prefix="salmu-") as scratch:
                path = Path(scratch) / name.rpartition("/")[2]
                yield path
                file_system.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
                file_system.put_file(os.fspath(path), f"{root}/{name}")
            return
        final = self.directory / name
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = files.partial_path(final.with_name(f"{final.name}.{secrets.token_hex(4)}"))
        try:
            yield partial
            with open(partial, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(partial, final)
        except BaseException as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            if isinstance(error, OSError) and error.filename == str(partial):  # users do not know the temporary name
                raise OSError(error.errno, error.strerror, str(final)) from error
            raise
        files.sync_directory(final.parent)

    def move(self, name: str, other: str) -> None:
        """Gives a file another name, replacing what has it; makes its folder. Raises FileNotFoundError if it is not there."""
        if self.directory is not None:
            target = self.directory / other
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.directory / name, target)
            files.sync_directory(target.parent)
            return
        file_system, root = self._opened
        file_system.makedirs(f"{root}/{other}".rpartition("/")[0], exist_ok=True)
        file_system.mv(f"{root}/{name}", f"{root}/{other}")

    def remove(self, name: str) -> None:
        """Removes a file; it may be gone already."""
        file_system, root = self._opened
        with contextlib.suppress(FileNotFoundError):
            file_system.rm_file(f"{root}/{name}")

    def remove_leftovers(self, folder: str) -> None:
        """Removes what killed processes of this machine left in a folder under temporary names."""
        if self.directory is not None:
            for leftover in files.find_partials(self.directory / folder):
                files.remove_partial(leftover)


def _on_disk(path: Path) -> Listed:
    try:
        about = path.stat()
    except FileNotFoundError as error:
        raise InputError(f"a link to {os.readlink(path)}, which is not there", path) from error
    return Listed(about.st_size, f"{about.st_mtime_ns} {about.st_ctime_ns} {about.st_ino}")


@contextlib.contextmanager
def refusals(place: Place) -> Iterator[None]:
    """Turns what a disk or a bucket refuses into one line. Does not touch InputError."""
    try:
        yield
    except OSError as error:
        path = error.filename if isinstance(error.filename, str) else place.url
        if error.errno is None:  # a bucket's driver
            raise InputError(f"cannot be read or written ({first_line(error)})", path) from error
        raise InputError(describe_os_error(error, path)) from error
    except Exception as error:
        if not type(error).__module__.startswith(_LIBRARIES):
            raise
        raise InputError(f"cannot be read or written ({first_line(error)})", place.url) from error

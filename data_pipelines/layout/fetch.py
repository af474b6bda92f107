"""Fetches the released data from the Hugging Face hub, at pinned revisions, and checks what came.

The download is that of huggingface_hub, which resumes a file where it broke off and takes nothing half for whole. Then every
file is compared with the size and the digest that the hub states for the revision (SHA-256 of large files, git's object id of
small ones), and the rows of each split are counted and compared with the published numbers. Nothing is deleted.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from data_pipelines.layout.findings import Findings
from data_pipelines.layout.parquet import open_parquet, split_files
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.messages import counted, first_line


class Repository(NamedTuple):
    """A released data set: its pinned revision, the rows of its splits, and the bytes of its parquet files if published."""

    name: str  # of its directory
    owner: str
    revision: str
    rows: dict[str, int]
    parquet_bytes: int | None = None

    @property
    def id(self) -> str:
        """The name on the hub."""
        return f"{self.owner}/{self.name}"


REPOSITORIES = {
    "evaluation": Repository(
        "salmubench-512-redistributed",
        "cvc-mmu",
        "b76aa3885a696969e51de4786c9f92e8064b4679",
        {"forget": 30_468, "holdout_association": 14_943, "holdout_identity": 14_642, "retain_synth": 16_741},
    ),
    "training": Repository(
        "salmu-512-redistributed",
        "cvc-mmu",
        "11bc6fec2530a70ba222bf86a70fe4d7681f86dd",
        {"sensitive": 60_053, "retain_synth": 16_741},
        4_348_723_284,
    ),
}


class RemoteFile(NamedTuple):
    """A file of a revision, as the hub states it; ``digest`` is a SHA-256 or git's object id, None if it states none."""

    path: str
    size: int | None
    digest: str | None


class Hub(Protocol):
    """What is needed of the hub, so that tests do without a network."""

    def files(self, repository: str, revision: str) -> Sequence[RemoteFile]:
        """Lists the files of a revision."""

    def download(self, repository: str, revision: str, directory: Path) -> None:
        """Downloads a revision into ``directory``, going on with what is there."""


class HuggingFace:
    """The real hub. Raises InputError if huggingface_hub is not installed."""

    def __init__(self) -> None:
        try:
            import huggingface_hub
        except ImportError:
            raise InputError(
                "is not installed; 'pip install huggingface_hub' would be right", "huggingface_hub"
            ) from None
        self._hub: Any = huggingface_hub

    def files(self, repository: str, revision: str) -> list[RemoteFile]:
        info = self._hub.HfApi().dataset_info(repository, revision=revision, files_metadata=True)
        return [
            RemoteFile(one.rfilename, one.size, one.lfs.sha256 if one.lfs else one.blob_id) for one in info.siblings
        ]

    def download(self, repository: str, revision: str, directory: Path) -> None:
        self._hub.snapshot_download(repository, repo_type="dataset", revision=revision, local_dir=directory)


def fetch(
    repository: Repository,
    directory: str | os.PathLike,
    *,
    revision: str | None = None,
    hub: Hub | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Downloads what is missing of a repository into a folder of its name in ``directory``, checks all, returns the folder.

    Args:
      repository: one of :data:`REPOSITORIES`.
      directory: where its folder is to be; made if it is not there.
      revision: the 40 digits of another commit than the pinned one.
      hub: None: the Hugging Face hub.
      say: called with lines about progress.

    Raises InputError for a revision that is not a commit, a hub that does not answer, too little disk, and, all at once, files
    that are missing or differ, and numbers of rows other than the published ones.
    """
    revision = repository.revision if revision is None else revision
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise InputError(f"{revision!r} is no commit; its 40 digits would be right", "--revision")
    hub = hub or HuggingFace()
    folder = Path(directory) / repository.name
    try:
        remote = sorted(hub.files(repository.id, revision))
    except Exception as error:  # of a dozen types: no network, no access, no such commit
        raise _refused(repository, revision, error) from error
    missing = sum(one.size or 0 for one in remote if not _has_size(folder / one.path, one.size))
    _check_disk(Path(directory), missing)
    total = sum(one.size or 0 for one in remote)
    say(
        f"{repository.id} at {revision[:8]}: {counted(len(remote), 'file')}, {total:,} bytes, {missing:,} of them to fetch"
    )
    try:
        hub.download(repository.id, revision, folder)
    except InputError:
        raise
    except OSError as error:
        if error.filename is not None and error.errno is not None:  # of the disk
            raise InputError(describe_os_error(error, folder)) from error
        raise _refused(repository, revision, error) from error
    except Exception as error:
        raise _refused(repository, revision, error) from error
    check_fetched(repository, folder, remote, say=say)
    return folder


def check_fetched(
    repository: Repository, folder: Path, remote: Sequence[RemoteFile], *, say: Callable[[str], None] = print
) -> None:
    """Compares files with what the hub states, and rows with the published counts. Raises InputError for all at once."""
    findings = Findings()
    for one in remote:
        if wrong := _difference(folder / one.path, one):
            findings.problem(InputError(wrong, folder / one.path))
    for split, count in repository.rows.items():
        with findings.collecting():
            found = _rows(folder / "data", split)
            if found != count:
                message = f"{counted(found, 'row')} of {split!r}, {count:,} published; fetch it again"
                raise InputError(message, folder / "data")
    findings.raise_problems(folder)
    size = sum(path.stat().st_size for path in (folder / "data").glob("*.parquet"))
    rows = ", ".join(f"{count:,} {split}" for split, count in repository.rows.items())
    stated = repository.parquet_bytes
    differs = f" ({stated:,} published, for another revision)" if stated not in (None, size) else ""
    say(f"{folder}: {len(remote):,} files are as the hub states them, {size:,} bytes of parquet{differs}; rows: {rows}")


def _difference(path: Path, remote: RemoteFile) -> str | None:
    """Returns how a file differs from what the hub states; None if it does not."""
    if not path.is_file():
        return "is missing; fetch it again"
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"has {size:,} bytes, {remote.size:,} on the hub; remove it and fetch it again"
    if remote.digest is not None and _digest(path, len(remote.digest)) != remote.digest:
        return "has another digest than on the hub; remove it and fetch it again"
    return None


def _digest(path: Path, length: int) -> str:
    """Returns the SHA-256 of a file, or git's object id if ``length`` is 40."""
    if length == 64:
        return files.sha256_file(path)
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _rows(directory: Path, split: str) -> int:
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    found = split_files(directory, split, names)
    if not found:
        raise InputError(f"no file of the split {split!r}; fetch it again", directory)
    total = 0
    for path in found:
        file, footer = open_parquet(path)
        file.close()
        total += footer.rows
    return total


def _has_size(path: Path, size: int | None) -> bool:
    return path.is_file() and path.stat().st_size == size


def _check_disk(directory: Path, needed: int) -> None:
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise InputError(f"{free:,} bytes are free, {needed:,} are to be fetched; name a place with more", directory)


def _refused(repository: Repository, revision: str, error: Exception) -> InputError:
    by_hand = f"hf download {repository.id} --repo-type dataset --revision {revision}"
    return InputError(
        f"the hub does not give it ({first_line(error)}); what has come is kept, and the same command goes on. By hand:"
        f" {by_hand}",
        repository.id,
    )

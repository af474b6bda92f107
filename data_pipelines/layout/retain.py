"""Finds the tars of retain pairs below ``retain/``, and reports what else is there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.layout.findings import Findings
from data_pipelines.layout.shards import IMAGE_SUFFIXES
from data_pipelines.layout.tar import SUFFIXES
from data_pipelines.layout.zeroshot import NOT_READ
from salmu_jax.runtime.errors import InputError, describe_os_error

# Suffixes of files that may hold pairs and must not be ignored silently; also of unfinished downloads (.tar.part).
_DATA = re.compile(
    r"\.(tar|tgz|zst|gz|bz2|xz|zip|7z|rar|parquet|arrow|tfrecord|tfrecords|array_record|lmdb|npz|h5|hdf5"
    rf"|{'|'.join(IMAGE_SUFFIXES)})([.-]|$)",
    re.IGNORECASE,
)


def retain_tars(directory: Path, findings: Findings) -> tuple[Path, ...]:
    """Returns the tars below ``directory``, at any depth, sorted by path; ``findings`` counts files that are not read.

    Raises InputError for unread files that may hold pairs: images outside tars, parquet files, other archives,
    unfinished downloads, a tar that is there both compressed and not.
    """
    paths = sorted(files_below(directory), key=lambda path: path.relative_to(directory).parts)
    tars = [path for path in paths if path.name.lower().endswith(SUFFIXES)]
    stems = {_stem(path): path for path in tars}
    # Sets, since 400 million pairs make 40,000 tars, with two files beside each.
    read, beginnings = set(tars), {path.name.split(".")[0] for path in tars}
    for path in tars:
        if stems[_stem(path)] != path:
            raise InputError(f"beside {stems[_stem(path)].name}; one of the two has to go", path)
    for path in paths:
        if path in read:
            continue
        if not path.exists():  # such as a folder on a disk that is not mounted
            raise InputError(f"a link to {os.readlink(path)}, which is not there", path)
        beside = _stem(path) in stems  # 00000.parquet, img2dataset's metadata of 00000.tar
        if _DATA.search(path.name) and not (beside and path.suffix == ".parquet"):
            raise InputError(
                "not read: the pairs of a retain base are read from tars (.tar, .tar.gz or .tgz), as img2dataset writes"
                " them with --output_format webdataset; move away what does not belong there",
                path,
            )
        if not (beside or path.stem.removesuffix("_stats") in beginnings):
            findings.oddity(NOT_READ, str(path), kind="unread")
    if not tars:
        findings.oddity("folders for tars without any", str(directory), kind="no-pair")
    _count_gaps(tars, findings)
    return tuple(tars)


def files_below(directory: Path) -> Iterator[Path]:
    """Yields all files below a directory; follows links to folders, but visits each folder once."""
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise InputError(describe_os_error(error, error.filename or directory)) from error

    for folder, folders, names in os.walk(directory, followlinks=True, onerror=refuse):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        yield from (Path(folder, name) for name in names if not name.startswith("."))  # such as macOS's ._00000.tar


def _stem(path: Path) -> Path:
    """Returns the path without the suffixes of a tar, or of the metadata file beside one."""
    return path.with_name(re.sub(r"(?i)\.(tar|tar\.gz|tgz|parquet)$", "", path.name))


def _count_gaps(tars: list[Path], findings: Findings) -> None:
    folders: dict[Path, list[tuple[int, str]]] = {}
    for path in tars:
        stem = path.name.split(".")[0]
        if re.fullmatch("[0-9]{1,9}", stem):
            folders.setdefault(path.parent, []).append((int(stem), path.name))
    for folder, numbered in folders.items():
        numbers = {number for number, _ in numbered}
        missing = max(numbers) - min(numbers) + 1 - len(numbers)
        if missing:
            first = next(number for number in range(min(numbers), max(numbers)) if number not in numbers)
            what = "numbers that no tar has, though others before and behind are there"
            findings.oddity(what, f"{folder} number {first}", missing, kind="gap")

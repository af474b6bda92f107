"""Finds a world in what a user names: the directory itself, a folder of repositories, or the hub's cache."""

from __future__ import annotations

import os
from pathlib import Path

from data_pipelines.layout.hub import find_snapshot, is_cached
from data_pipelines.layout.names import SPLITS
from data_pipelines.layout.parquet import split_of
from salmu_jax.runtime.errors import InputError


def find_root(directory: str | os.PathLike) -> Path:
    """Returns the directory in the released layout that a user means.

    It may be the directory itself; a repository in the hub's cache (``datasets--OWNER--NAME``), of which the revision in
    ``refs/main``, or the only one, is taken; or a folder of repositories, of which the evaluation repository is taken if
    there is one, since it holds all that the other has. Raises InputError if there is none, or several.
    """
    directory = Path(directory)
    if (directory / "data").is_dir():
        return directory
    if is_cached(directory):
        return find_snapshot(directory)
    if directory.is_dir() and any(
        split_of(path.name) in (*SPLITS, "sensitive") for path in directory.glob("*.parquet")
    ):
        return directory.parent if directory.name == "data" else directory
    below = repositories(directory)
    for split in ("forget", "sensitive"):
        found = [path for path in below if any((path / "data").glob(f"{split}-*.parquet"))]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"{found[0].name} and {found[1].name} both hold '{split}'; name one of them", directory)
    raise InputError("no such directory; a world has its parquet files in data/", directory / "data")


def repositories(folder: Path) -> list[Path]:
    """Returns the repositories in a folder, or in the hub's cache, sorted by name."""
    below = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (path / "data").is_dir():
            below.append(path)
        elif is_cached(path) and any(
            split_of(file.name) in ("forget", "sensitive") for file in path.glob("snapshots/*/data/*.parquet")
        ):
            below.append(find_snapshot(path))
    return below

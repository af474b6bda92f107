"""Compares the files of a world with the digests taken when they were written.

A made world has them in ``world.json``; the Hugging Face hub has them for its files (``hub.py``). Other files have none,
and damage in an image may go unnoticed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from data_pipelines.layout import hub
from salmu_jax.runtime import contents as contents_lib
from salmu_jax.runtime.errors import InputError, describe_os_error
from salmu_jax.runtime.json_reader import MAX_BYTES
from salmu_jax.runtime.opening import check_regular, open_regular, read_at_most

MADE = "world.json"


def named_files(directory: Path) -> frozenset[str] | None:
    """Returns the files that ``world.json`` names; None for a world that we did not make.

    Raises InputError for a ``world.json`` that cannot be read, such as a dangling link.
    """
    try:
        check_regular(directory / MADE)
    except FileNotFoundError:
        if (directory / MADE).is_symlink():
            target = os.readlink(directory / MADE)
            raise InputError(f"a link to {target}, which is not there", directory / MADE) from None
        return None
    contents = contents_lib.read_contents(directory)
    if contents is None or not any(name.startswith("data/") for name in contents["files"]):
        with open_regular(directory / MADE) as handle:
            ours = b"salmu_jax.world/" in read_at_most(handle, MAX_BYTES)
        what = "damaged: no digests of the world's files" if ours else "not as 'salmu generate' writes it"
        raise InputError(
            f"{what}; rename it if it is a file of your own, else run 'salmu generate' again", directory / MADE
        )
    return frozenset(contents["files"])


def problems(directory: Path, paths: Iterable[Path]) -> list[InputError]:
    """Returns problems with files that differ from their digests: all of a made world, or those of ``paths`` from the hub."""
    contents = contents_lib.read_contents(directory) if (directory / MADE).exists() else None
    if contents is not None:
        for name in contents["files"]:
            with contextlib.suppress(FileNotFoundError):
                check_regular(directory / name)  # reading a pipe would block
        return [
            InputError(f"it{line.removeprefix(name)}; run 'salmu generate' again", directory / name)
            for name, record in sorted(contents["files"].items())
            for line in contents_lib.problems(directory, {"files": {name: record}})
        ]
    found = []
    for path in paths:
        try:
            if not hub.as_downloaded(path):
                found.append(InputError("it is not as it was downloaded (its digest differs); download it again", path))
        except OSError as error:
            found.append(InputError(describe_os_error(error, path)))
    return found

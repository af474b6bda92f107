"""Makes a finished build of retain pairs part of the data sets of a work directory, without copying or reading its shards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from data_pipelines.retain.names import DATASET_VERSION, INFO, NAME
from salmu_jax.runtime import contents, files
from salmu_jax.runtime.errors import InputError

_AGAIN = "run 'salmu data retain' again with the same arguments"


def retain_digest(built: Path) -> str:
    """Returns what identifies the content of a build (``Summary.digest``). Raises InputError if it is not finished."""
    return contents.contents_digest(_manifest(built), NAME)


def link_retain_pairs(built: Path, out: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Links the files of a finished build into ``out``.

    Args:
      built: the directory that ``build_retain_pairs`` has filled.
      out: an existing directory, which gets ``retain_pairs/``.

    Returns:
      The number of pairs, and ``{name: {"bytes", "sha256", "linked"}}`` of the files, for the manifest of ``out``.

    Raises:
      InputError: it is not there, not finished, or a file does not have the size that its manifest says.
    """
    manifest = _manifest(built)
    named = {name: record for name, record in manifest["files"].items() if name.startswith(f"{NAME}/")}
    (out / NAME / DATASET_VERSION).mkdir(parents=True)
    for name, record in named.items():
        path = (built / name).absolute()
        size = path.stat().st_size if path.is_file() else None
        if size != record["bytes"]:
            found = "is missing" if size is None else f"has {size:,} bytes, not {record['bytes']:,}"
            raise InputError(f"{found}; {_AGAIN}", path)
        os.symlink(path, out / name)
    return manifest["counts"]["pairs"], {name: {**record, "linked": True} for name, record in named.items()}


def _manifest(built: Path) -> dict[str, Any]:
    held = contents.read_contents(built)
    named = {} if held is None else held["files"]
    if INFO not in named or not (built / INFO).is_file():
        raise InputError(f"not a finished build of {NAME}, as 'salmu data retain' makes it", built)
    if files.sha256_file(built / INFO) != named[INFO]["sha256"]:
        raise InputError(f"not as it was written (its SHA-256 differs); {_AGAIN}", built / INFO)
    return files.read_json(built / contents.MANIFEST)

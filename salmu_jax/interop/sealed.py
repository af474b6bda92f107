"""Writes and checks an export's digests: ``salmu.json`` beside its files, and the parameters' digest in the weights.

Safetensors files have no checksum, so a flipped bit would otherwise be imported unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salmu_jax.runtime import contents, files
from salmu_jax.runtime.errors import InputError

FILE = "salmu.json"
SCHEMA = "salmu_jax.export/1"
LINEAGE = ("parent", "root", "splits_read")  # a model's ancestry and training splits, as in its manifest
METADATA_KEY = "salmu_jax.digest"  # in a safetensors file: the SHA-256 of the parameters, as in a model's manifest


def seal(directory: Path, names: Sequence[str], fields: Mapping[str, Any]) -> None:
    """Writes ``salmu.json`` in ``directory``: ``fields``, and the size and SHA-256 of the files ``names``."""
    records = {name: contents.record(directory / name) for name in names}
    files.write_json(directory / FILE, {"schema": SCHEMA, **fields, "files": records})


def read_seal(directory: Path) -> dict[str, Any]:
    """Returns the ``salmu.json`` of ``directory``; empty if there is none. Raises InputError if it is damaged."""
    path = directory / FILE
    if not path.exists():
        return {}
    value = files.read_json(path)
    sums = value.get("files") if isinstance(value, dict) and value.get("schema") == SCHEMA else None
    whole = isinstance(sums, dict) and all(
        isinstance(entry, dict) and isinstance(entry.get("sha256"), str) for entry in sums.values()
    )
    read = value.get("splits_read") or [] if whole else []
    texts = (
        [value.get("name"), value.get("digest"), value.get("parent") or "", value.get("root") or ""] if whole else []
    )
    if not whole or not isinstance(read, list) or not all(isinstance(text, str) for text in [*texts, *read]):
        raise InputError(f"not a whole file of schema {SCHEMA!r}; delete it to import without its checks", path)
    return value


def check_files(seal: Mapping[str, Any], sums: Mapping[Path, str]) -> None:
    """Raises InputError if one of the files, given with its SHA-256, is not as it was exported."""
    for path, sha256 in sums.items():
        entry = seal.get("files", {}).get(path.name)
        if entry is not None and entry["sha256"] != sha256:
            raise InputError(
                f"damaged, or changed since it was exported: not the SHA-256 that {FILE} beside it has; export it again, or"
                f" delete {FILE} if the change is meant",
                path,
            )


def check_parameters(expected: str | None, found: str, where: Path) -> None:
    """Raises InputError if the parameters' digest is not the one that was exported."""
    if expected is not None and expected != found:
        raise InputError(
            "damaged, or changed since it was exported: its parameters do not have the digest that it carries; export it"
            f" again, or leave {METADATA_KEY!r} out of its metadata (and out of {FILE}) if the change is meant",
            where,
        )

"""Finds files as the Hugging Face hub's tools store them, and their expected digests.

    cache/datasets--OWNER--NAME/refs/main                      the commit that was asked for
    cache/datasets--OWNER--NAME/snapshots/COMMIT/data/...      links to blobs, which are named by their digests
    LOCAL-DIR/.cache/huggingface/download/NAME.metadata        from ``hf download --local-dir``: commit, digest, time

The digest of a large file is its SHA-256; of a small one, git's object id.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError


def is_cached(directory: Path) -> bool:
    """Returns whether this is a repository in the hub's cache, and not just a folder that contains ``snapshots``."""
    named = directory.name.startswith(("datasets--", "models--"))
    return (directory / "snapshots").is_dir() and (
        named or any((directory / name).is_dir() for name in ("blobs", "refs"))
    )


def find_snapshot(directory: Path) -> Path:
    """Returns a repository's snapshot: that of ``refs/main``, or the only one. Raises InputError for several."""
    snapshots = sorted(path for path in (directory / "snapshots").iterdir() if path.is_dir())
    main = directory / "refs" / "main"
    if main.is_file() and main.stat().st_size < 100:
        named = directory / "snapshots" / main.read_text(errors="replace").strip()
        snapshots = [named] if named in snapshots else snapshots
    if len(snapshots) != 1:
        raise InputError(f"{len(snapshots)} revisions; name one of them, snapshots/REVISION", directory)
    return snapshots[0]


def as_downloaded(path: Path) -> bool:
    """Returns whether a file has the digest that the hub recorded, or True if there is none. Raises OSError."""
    digest = _digest_of_hub(path)
    if digest is None:
        return True
    if len(digest) == 64:
        return files.sha256_file(path) == digest
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == digest


def _digest_of_hub(path: Path) -> str | None:
    target = Path(os.path.realpath(path))
    if target.parent.name == "blobs" and _is_digest(target.name):
        return target.name
    for above in list(path.parents)[:4]:
        facts = (
            above / ".cache" / "huggingface" / "download" / path.relative_to(above).with_name(f"{path.name}.metadata")
        )
        if facts.is_file():
            lines = facts.read_text(errors="replace").split("\n")
            etag = lines[1].strip().strip('"') if len(lines) > 1 else ""
            return etag if _is_digest(etag) else None
    return None


def _is_digest(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", text) is not None

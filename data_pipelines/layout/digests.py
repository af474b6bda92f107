"""Comparing the files of a world with digests from where they were made.

A made world has them in ``world.json``. Of files from the Hugging Face hub they are known, too: in its cache a file is a link
to a blob that is called by its digest, and ``hf download --local-dir`` leaves them in ``.cache/huggingface``. For other files
nobody can tell, and damage in an image may go unseen.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from salmu_jax import contents as contents_lib
from salmu_jax import files
from salmu_jax.errors import InputError, describe_os_error
from salmu_jax.opening import check_regular

MADE = "world.json"


def named_files(directory: Path) -> frozenset[str] | None:
    """The files of a made world, as ``world.json`` names them; None for a world that we did not make.

    Raises InputError for a ``world.json`` that cannot be read.
    """
    try:
        check_regular(directory / MADE)
    except FileNotFoundError:
        return None
    contents = contents_lib.read_contents(directory)
    if contents is None:
        raise InputError("damaged: no digests of the world's files; run 'salmu generate' again", directory / MADE)
    return frozenset(contents["files"])


def problems(directory: Path, paths: Iterable[Path]) -> list[InputError]:
    """What differs from its digest: all files of a made world, or those of ``paths`` whose digests the hub has left."""
    contents = contents_lib.read_contents(directory) if (directory / MADE).exists() else None
    if contents is not None:
        for name in contents["files"]:
            with contextlib.suppress(FileNotFoundError):
                check_regular(directory / name)  # a pipe would be waited for
        lines = contents_lib.problems(directory, contents)
        return [InputError(f"{line}; run 'salmu generate' again", directory) for line in lines]
    found = []
    for path in paths:
        try:
            digest = _hub_digest(path)
            if digest is not None and _digest_like(path, digest) != digest:
                found.append(InputError("it is not as it was downloaded (its digest differs); download it again", path))
        except OSError as error:
            found.append(InputError(describe_os_error(error, path)))
    return found


def _hub_digest(path: Path) -> str | None:
    """The SHA-256 (of a large file) or the git object id (of a small one) that the hub has for a file; None: not known."""
    target = Path(os.path.realpath(path))
    if target.parent.name == "blobs" and _is_digest(target.name):
        return target.name
    for above in list(path.parents)[:4]:
        facts = (
            above / ".cache" / "huggingface" / "download" / path.relative_to(above).with_name(f"{path.name}.metadata")
        )
        if facts.is_file():
            lines = facts.read_text(errors="replace").split("\n")  # commit, etag, time
            etag = lines[1].strip().strip('"') if len(lines) > 1 else ""
            return etag if _is_digest(etag) else None
    return None


def _is_digest(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", text) is not None


def _digest_like(path: Path, digest: str) -> str:
    if len(digest) == 64:
        return files.sha256_file(path)
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

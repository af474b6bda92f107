"""Writes and compares manifests: the size and SHA-256 of every file of a directory, recorded when we write it.

    contents.json    in datasets/ and report/:  {"schema": "salmu_jax.contents/1", "kind": "datasets", "files": {...}}
    world.json       in a made world:           its field "digests"
    manifest.json    in a model:                its field "files"

Manifests answer three questions. *Is it as it was written?* :func:`problems` compares. *Is it the same?* Equal
contents have equal digests, wherever they are and whenever they were written (:func:`contents_digest`). *May we
replace it?* A directory without such a manifest is a user's (:func:`is_ours`), and so is a file that no manifest names
(:func:`strays`): it is not part of the identity and is never deleted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

SCHEMA = "salmu_jax.contents/1"
MANIFEST = "contents.json"

# The manifests that mark a directory as ours, and the prefixes of their schemas.
_MANIFESTS = {
    MANIFEST: "salmu_jax.contents/",
    "world.json": "salmu_jax.world/",
    "manifest.json": "salmu_jax.model/",
}
# Files that desktops and file servers create in any directory; a directory with only these counts as empty.
_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", ".directory", ".nfs", "._", "lost+found")
# Seconds. A file changed this shortly before it was read may change again without a new timestamp.
_SETTLED = 1.0

Seen = MutableMapping[str, list[Any]]
"""``{path: [size, mtime_ns, ctime_ns, inode, sha256]}``: files that were read, and their digests."""


def write_contents(
    directory: str | os.PathLike, kind: str, known: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Writes ``contents.json`` over all files below ``directory`` and returns it.

    Call it last, before the directory gets its final name.

    Args:
      directory: whose files are read.
      kind: what it is (``"datasets"``).
      known: records of files that are not read, by name.
    """
    contents = {"schema": SCHEMA, "kind": kind, "files": records(directory, known)}
    files.write_json(Path(directory) / MANIFEST, contents)
    return contents


def records(
    directory: str | os.PathLike, known: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """Returns the size and the SHA-256 of every file below ``directory`` but its manifest; those ``known`` are not read."""
    directory, known = Path(directory), known or {}
    names = (name for name in file_names(directory) if name not in _MANIFESTS)
    return {name: dict(known[name]) if name in known else record(directory / name) for name in names}


def record(path: Path) -> dict[str, Any]:
    """Returns the size and the SHA-256 of a file."""
    return {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}


def read_contents(directory: str | os.PathLike) -> dict[str, Any] | None:
    """Returns what the manifest of ``directory`` says, in the form of ``contents.json``.

    ``bytes`` is absent if the manifest has only digests (a made world). Returns None if there is no readable manifest: the
    directory then must be made again, or is not ours.
    """
    found = _own_manifest(directory)
    return None if found is None else _as_contents(*found)


def _own_manifest(directory: str | os.PathLike) -> tuple[str, dict[str, Any]] | None:
    """Returns the name and the JSON of a directory's manifest; None if it has no readable one of ours.

    A user's file may have such a name: ``manifest.json`` in the data sets, say.
    """
    for name in _MANIFESTS:
        if (manifest := _read_manifest(directory, name)) is not None:
            return name, manifest
    return None


def _read_manifest(directory: str | os.PathLike, name: str) -> dict[str, Any] | None:
    try:
        manifest = files.read_json(Path(directory) / name)
    except (OSError, InputError):
        return None
    ours = isinstance(manifest, dict) and str(manifest.get("schema")).startswith(_MANIFESTS[name])
    return manifest if ours else None


def contents_digest(contents: Mapping[str, Any], prefix: str = "") -> str:
    """Returns one SHA-256 over the names and digests of the files below the directory ``prefix`` (all, if it is empty)."""
    below = f"{prefix.rstrip('/')}/" if prefix else ""
    named = contents["files"]
    return files.sha256_json([[name, named[name]["sha256"]] for name in sorted(named) if name.startswith(below)])


def manifest_digest(directory: str | os.PathLike) -> str | None:
    """Returns the SHA-256 of the manifest file itself; None if there is none."""
    found = _own_manifest(directory)
    return None if found is None else files.sha256_file(Path(directory) / found[0])


def seal(manifest: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a model's manifest without its field ``seal``."""
    return files.sha256_json({name: value for name, value in manifest.items() if name != "seal"})


def seal_holds(directory: str | os.PathLike) -> bool:
    """Returns False for a model whose manifest is not as it was written; a manifest without a seal passes."""
    manifest = _read_manifest(directory, "manifest.json")
    return manifest is None or manifest.get("seal", "") in ("", seal(manifest))


def architecture_digest(manifest: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of what determines a model's embeddings besides its parameters.

    In its manifest: architecture, activation, image preprocessing and tokenizer. The compute dtype is left out,
    since the config sets it.
    """
    architecture = manifest.get("architecture")
    if isinstance(architecture, dict):
        architecture = {name: value for name, value in architecture.items() if name != "compute_dtype"}
    return files.sha256_json([architecture, *(manifest.get(name) for name in ("activation", "image", "tokenizer"))])


def data_digests(contents: Mapping[str, Any]) -> dict[str, str | None]:
    """Returns the digest of each built data set, None for one that is absent."""
    present = {name.partition("/")[0] for name in contents["files"]}
    return {
        name: contents_digest(contents, name) if name in present else None
        for name in ("salmu", "retain_pairs", "zeroshot")
    }


def no_split(split: str, there: Collection[str], where: str | os.PathLike) -> InputError:
    """Returns the error for a split that a built data set lacks; ``there`` are the splits that it has."""
    has = ", ".join(there)
    if "sensitive" in there:
        has += (
            ", as the repository for training: unlearning, evaluation and Retrained need a build from that for evaluation"
            " (salmubench-512-redistributed), which has forget and the holdouts"
        )
    return InputError(f"no split '{split}'; it has {has}", where)


def problems(directory: str | os.PathLike, contents: Mapping[str, Any], seen: Seen | None = None) -> list[str]:
    """Compares the files of ``directory`` with its manifest, and returns a line for each that differs.

    Args:
      directory: links in it are followed.
      contents: its manifest. Files that it does not name are ignored. Of those that it calls ``linked``, terabytes that other
        commands made and compare, only the size is compared; array_record checks what it reads.
      seen: the digests of files read before. A file is read again only if its size, times or inode have changed since.
        Files that are read now are added.
    """
    directory, found = Path(directory), []
    seen = {} if seen is None else seen
    for name, recorded in sorted(contents["files"].items()):
        path = directory / name
        try:
            size = path.stat().st_size
            if recorded.get("bytes", size) != size:
                found.append(f"{name} has {size:,} bytes, not {recorded['bytes']:,}")
            elif not recorded.get("linked") and digest_of(path, seen, name) != recorded["sha256"]:
                found.append(f"{name} is not as it was written (its SHA-256 differs)")
        except (FileNotFoundError, NotADirectoryError):
            found.append(f"{name} is missing")
        except OSError as error:
            found.append(f"{name} cannot be read ({error.strerror or error})")
    return found


def digest_of(path: str | os.PathLike, seen: Seen, key: str | None = None) -> str:
    """Returns the SHA-256 of a file, which is read only if its size, times or inode are not as in ``seen[key]``."""
    path, key = Path(path), os.fspath(path) if key is None else key
    before = path.stat()
    stamp = [before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino]
    known = seen.get(key)
    if isinstance(known, list) and known[:-1] == stamp:
        return known[-1]
    digest = files.sha256_file(path)
    if time.time() - max(before.st_mtime, before.st_ctime) > _SETTLED:
        seen[key] = [*stamp, digest]
    else:
        seen.pop(key, None)
    return digest


def is_ours(directory: str | os.PathLike) -> bool:
    """Returns whether we may replace or remove ``directory``: it is absent, empty, or holds a manifest of ours.

    A damaged manifest still marks it as ours, as long as it contains its schema.
    """
    directory = Path(directory)
    if not os.path.lexists(directory) or (directory.is_symlink() and not directory.exists()):
        return True
    if not directory.is_dir():
        return False
    if all(entry.name.startswith(_LITTER) for entry in directory.iterdir()):
        return True
    return any(_holds(directory / name, schema) for name, schema in _MANIFESTS.items())


def strays(directory: str | os.PathLike) -> list[str] | None:
    """Returns the files below one of our directories that its manifest does not name: a user's, or a desktop's.

    Links are not followed; a link counts as a file. Returns None if there is a manifest that cannot be read.
    """
    directory = Path(directory)
    own = _own_manifest(directory)
    contents = None if own is None else _as_contents(*own)
    if contents is None and any((directory / name).is_file() for name in _MANIFESTS):
        return None
    named = {*contents["files"], own[0]} if own and contents else set()
    found = []
    for parent, folders, names in os.walk(directory):
        links = [folder for folder in folders if os.path.islink(os.path.join(parent, folder))]
        found += [os.path.relpath(os.path.join(parent, name), directory) for name in (*names, *links)]
    return sorted(name for name in map(_with_slashes, found) if name not in named)


def file_names(directory: str | os.PathLike) -> list[str]:
    """Returns the paths of all files below ``directory``, sorted, with ``/``. Links to directories are followed."""
    directory = Path(directory)
    return sorted(path.relative_to(directory).as_posix() for path in _walk(directory, set()) if path.is_file())


def other_names(directory: str | os.PathLike) -> list[str]:
    """Returns, as :func:`file_names`, what is neither a file nor a directory: links to nowhere, and pipes."""
    directory = Path(directory)
    return sorted(path.relative_to(directory).as_posix() for path in _walk(directory, set()) if not path.is_file())


def _walk(directory: Path, above: set[tuple[int, int]]) -> Iterator[Path]:
    about = directory.stat()
    place = (about.st_dev, about.st_ino)
    if place in above:  # a link to a directory above it
        return
    for path in directory.iterdir():
        if path.is_dir():
            yield from _walk(path, above | {place})
        else:
            yield path


def _with_slashes(name: str) -> str:
    return name.replace(os.sep, "/")


def _as_contents(name: str, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    if name == MANIFEST:
        kind, named = manifest.get("kind"), manifest.get("files")
    elif name == "world.json":
        digests = manifest.get("digests")
        kind = "world"
        named = {path: {"sha256": digest} for path, digest in digests.items()} if isinstance(digests, dict) else None
    else:
        kind, named = "model", manifest.get("files")
    if not isinstance(named, dict) or not all(map(_is_record, named.items())):
        return None
    return {"schema": SCHEMA, "kind": kind, "files": named}


def _is_record(item: tuple[str, Any]) -> bool:
    name, record = item
    inside = not name.startswith("/") and ".." not in name.split("/")
    return inside and isinstance(record, dict) and isinstance(record.get("sha256"), str)


def _holds(path: Path, schema: str) -> bool:
    try:
        return path.is_file() and schema.encode() in path.read_bytes()
    except OSError:
        return False

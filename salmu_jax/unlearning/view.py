"""Makes views: directories that hold exactly the data that an unlearning method may read.

    datasets/salmu/1.0.0/           a complete TFDS data set, whose dataset_info.json has only the permitted splits
    datasets/retain_pairs/1.0.0/    if it is permitted and was built
    parent/                         the model to start from: its parameters, and the manifest fields that describe them
    method/my_method.py             the user's file, if the method is not in the registry
    contents.json                   every file with its SHA-256, as it is in the data sets and the model

Nothing in a view leads back to the work directory: it has no links to directories, and neither config nor command of the
parent's manifest. The splits that a method has read are those of its view (:func:`read_splits`), whatever the method says.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salmu_jax.runtime import contents, files
from salmu_jax.runtime.errors import InputError, describe_os_error

FORGET = "salmu/forget"
PERMITTED_RETAIN = ("salmu/retain_synth", "retain_pairs/train")
PERMITTED = (FORGET, *PERMITTED_RETAIN)
METHOD = "method"  # the directory of a user's file

# The fields of the parent's manifest that loading needs. The others say where and how it was made.
_DESCRIBES = ("schema", "digest", "architecture", "activation", "image", "tokenizer", "leaves", "name")
# Bytes. Smaller files are copied, so that a method cannot damage the data sets; larger ones share their disk space.
_LINKED_FROM = 64 * 2**20


def build_view(
    directory: Path, datasets: Path, splits: Sequence[str], parent: Path, method: Path | None = None
) -> dict[str, Any]:
    """Fills the empty ``directory`` with ``splits`` of ``datasets`` and the model ``parent``; returns its contents.

    ``method`` is a user's file to copy into it.

    Raises InputError for a split that no method may read or that does not exist, and for a file that changed since it
    was written.
    """
    forbidden = [split for split in splits if split not in PERMITTED]
    if forbidden:
        raise InputError(f"no method may read {', '.join(forbidden)}; it may read {', '.join(PERMITTED)}", "view")
    digests = place_splits(directory / "datasets", datasets, splits)
    digests = {f"datasets/{name}": digest for name, digest in digests.items()}
    placed = _place_model(parent, directory / "parent")
    digests |= {f"parent/{name}": digest for name, digest in placed.items()}
    if method is not None:
        place_method(method, directory / METHOD)
    return _write_contents(directory, splits, digests)


def place_splits(directory: Path, datasets: Path, splits: Sequence[str]) -> dict[str, str]:
    """Places ``splits`` of the built ``datasets`` in ``directory``, as complete data sets; returns its files' digests.

    Raises InputError for a split that does not exist, and for a file that changed since it was written.
    """
    known = contents.read_contents(datasets)
    if known is None:
        raise InputError("holds no readable contents.json; run 'salmu build' again", datasets)
    digests: dict[str, str] = {}
    for name in dict.fromkeys(split.partition("/")[0] for split in splits):
        wanted = [split.partition("/")[2] for split in splits if split.startswith(f"{name}/")]
        version = _version(datasets, name)
        target = directory / version.relative_to(datasets)
        target.mkdir(parents=True)
        for path in _split_files(version, wanted):
            record = known["files"].get(path.relative_to(datasets).as_posix())
            if record is None:
                raise InputError("contents.json does not name it; run 'salmu build' again", path)
            place = target / path.name
            digests[place.relative_to(directory).as_posix()] = _place(path, place, record["sha256"])
        info = files.read_json(version / "dataset_info.json")
        info["splits"] = [split for split in info["splits"] if split["name"] in wanted]
        files.write_json(target / "dataset_info.json", info)
    return digests


def digest_of_splits(datasets: Path, splits: Sequence[str]) -> str:
    """Returns one SHA-256 over what ``contents.json`` records of the files of ``splits``, none of which is read."""
    known = contents.read_contents(datasets)
    if known is None:
        raise InputError("holds no readable contents.json; run 'salmu build' again", datasets)
    found = {}
    for split in splits:
        name, _, part = split.partition("/")
        for path in _split_files(_version(datasets, name), [part]):
            place = path.relative_to(datasets).as_posix()
            found[place] = known["files"].get(place)
    return files.sha256_json(found)


def place_method(file: Path, directory: Path) -> Path:
    """Copies a user's file into ``directory``, which is made, and returns the copy. Raises InputError if it cannot be read."""
    directory.mkdir(parents=True)
    try:
        return Path(shutil.copyfile(file, directory / file.name))
    except OSError as error:
        raise InputError(describe_os_error(error, file)) from error


def read_splits(view: Path) -> list[str]:
    """Returns the splits that a view holds, forget first."""
    found = []
    for path in sorted((view / "datasets").glob("*/*/dataset_info.json")):
        info = files.read_json(path)
        found += [f"{info['name']}/{split['name']}" for split in info["splits"]]
    return sorted(found, key=PERMITTED.index)


def count_rows(datasets: Path, split: str) -> int:
    """Returns how many rows a split of built data sets has. Raises InputError if it is not there."""
    name, _, wanted = split.partition("/")
    info = files.read_json(_version(datasets, name) / "dataset_info.json")
    lengths = {found["name"]: found["shardLengths"] for found in info["splits"]}
    if wanted not in lengths:
        raise contents.no_split(wanted, lengths, datasets)
    return sum(map(int, lengths[wanted]))


def read_columns(datasets: Path, split: str, *names: str) -> dict[str, list[str]]:
    """Returns text columns of a split of built data sets, one value per row."""
    from data_pipelines.input import PairSource

    return PairSource.open(datasets, [split]).texts(*names)


def _version(datasets: Path, name: str) -> Path:
    versions = sorted(path.parent for path in (datasets / name).glob("*/dataset_info.json"))
    if not versions:
        raise InputError(f"no dataset '{name}' here; run 'salmu build'", datasets)
    return versions[-1]


def _split_files(version: Path, splits: Sequence[str]) -> list[Path]:
    """Returns the files of some splits: their shards, and the description of the features."""
    info = files.read_json(version / "dataset_info.json")
    lengths = {split["name"]: split["shardLengths"] for split in info["splits"]}
    found = [version / "features.json"]
    for split in splits:
        if split not in lengths:
            raise contents.no_split(split, lengths, version)
        shards = sorted(version.glob(f"{info['name']}-{split}.*"))
        if len(shards) != len(lengths[split]):
            message = f"split '{split}' has {len(shards)} shards of {len(lengths[split])}; run 'salmu build' again"
            raise InputError(message, version)
        found += shards
    return found


def _place_model(parent: Path, target: Path) -> dict[str, str]:
    """Places the parameters of a model, and returns their files' digests. They are compared when they are loaded."""
    manifest = files.read_json(parent / "manifest.json")
    kept = {key: manifest[key] for key in _DESCRIBES if key in manifest}
    (target / "params").mkdir(parents=True)
    digests = {}
    for path in (f"params/{name}" for name in contents.file_names(parent / "params")):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        digests[path] = _place(parent / path, target / path)
    if isinstance(manifest.get("files"), Mapping):
        kept["files"] = {
            name: record for name, record in manifest["files"].items() if name.partition("/")[0] == "params"
        }
    files.write_json(target / "manifest.json", kept)
    return digests


def _place(source: Path, target: Path, digest: str | None = None) -> str:
    """Copies or hard-links a file into the view, and returns its SHA-256.

    The digest of a copy is compared; a hard link is the same file, which the stage has compared.
    """
    source = source.resolve()
    if source.stat().st_size >= _LINKED_FROM and _link(source, target):
        return digest or files.sha256_file(target)
    shutil.copyfile(source, target)
    found = files.sha256_file(target)
    if digest not in (None, found):
        raise InputError("is not as it was written (its SHA-256 differs); it has to be made again", source)
    return found


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _write_contents(directory: Path, splits: Sequence[str], digests: Mapping[str, str]) -> dict[str, Any]:
    """Writes ``contents.json``; ``digests`` are those of files that have been read already."""
    found = {}
    for name in contents.file_names(directory):
        path = directory / name
        digest = digests.get(name) or files.sha256_file(path)
        found[name] = {"bytes": path.stat().st_size, "sha256": digest}
    whole = {"schema": contents.SCHEMA, "kind": "view", "splits": list(splits), "files": found}
    files.write_json(directory / contents.MANIFEST, whole)
    return whole

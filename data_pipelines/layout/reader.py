"""Reading a directory in the released layout of SALMUBench.

    world/
      data/{split}-{i:05d}-of-{n:05d}.parquet    columns image {bytes, path}, text, identity_id, file_name (``parquet.py``)
      identities_metadata.json                   {identity_id: {name, city, ..., passport}}
      sensitive_set_captions_metadata.json       {file_name: {caption, data_field}}
      sensitive_set_generic_captions.json        {file_name: generic caption}
      fragile_set_ids.json                       [file_name]
      fragile_set_all_similarities.json          {file_name: similarity}; not needed by the reader
      retain/**/*.tar                            optional: the general retain base (``retain.py``)
      zeroshot/                                  optional: a zero-shot set (``zeroshot.py``)

The two released repositories are such directories: that for evaluation, and that for training, which has ``sensitive`` and
``retain_synth`` alone and needs no JSON. They may lie in one folder, and in the hub's cache (:func:`find_root`). ``retain/``
and ``zeroshot/`` may then lie in either and beside them. Of ``retain/`` all that are there are read.

:class:`World` reads lazily and streams: images pass by in small batches, and only captions, file names and identities
are ever held whole. Columns and keys beyond these are ignored. ``check.py`` checks a whole directory.
Everything that a person can get wrong here raises :class:`InputError` with the file, the row (counted from 0), the
field and what would be right.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.layout.digests import MADE, named_files
from data_pipelines.layout.findings import Findings
from data_pipelines.layout.hub import find_snapshot, is_cached
from data_pipelines.layout.parquet import Row, open_parquet, read_rows, split_files, split_of
from data_pipelines.layout.retain import retain_tars
from data_pipelines.layout.shards import Pair, iter_tar_pairs
from data_pipelines.layout.zeroshot import NOT_READ, ZeroShot, read_zeroshot
from salmu_jax.errors import InputError, describe_os_error
from salmu_jax.json_reader import read_json

DATA_FIELDS = ("name", "city", "job", "blood_type", "phone_number", "emails", "iban", "credit_card", "passport")
SENSITIVE_SPLITS = ("forget", "holdout_association", "holdout_identity")
SPLITS = (*SENSITIVE_SPLITS, "retain_synth")
"""The splits of a world that models can be evaluated on; ``sensitive``, the first three in this order, is derived."""
TRAINING_SPLITS = ("sensitive", "retain_synth")
"""The splits of the repository for training alone."""

SUBSETS = (
    "forget_identity",
    "forget_association",
    "holdout_association",
    "holdout_identity",
    "retain_joint",
    "retain_disjoint",
)

IDENTITIES = "identities_metadata.json"
CAPTIONS = "sensitive_set_captions_metadata.json"
GENERIC_CAPTIONS = "sensitive_set_generic_captions.json"
FRAGILE_IDS = "fragile_set_ids.json"
FRAGILE_SIMILARITIES = "fragile_set_all_similarities.json"

_JSON_FILES = (IDENTITIES, CAPTIONS, GENERIC_CAPTIONS, FRAGILE_IDS, FRAGILE_SIMILARITIES)


class Association(NamedTuple):
    """What a sensitive caption is about: (identity, attribute) with the person's name and the attribute's value."""

    data_field: str
    name: str
    value: str


def find_root(directory: str | os.PathLike) -> Path:
    """The directory in the released layout that a person means.

    It may be the directory itself; the one of a repository in the hub's cache (``datasets--OWNER--NAME``, of which the
    revision of ``refs/main``, or the only one, is taken); or one in which repositories lie, of which that for evaluation
    is taken if there is one: it holds all that the other has. Raises InputError if there is none, or several.
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
    below = _repositories(directory)
    for split in ("forget", "sensitive"):
        found = [path for path in below if any((path / "data").glob(f"{split}-*.parquet"))]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"{found[0].name} and {found[1].name} both hold '{split}'; name one of them", directory)
    raise InputError("no such directory; a world has its parquet files in data/", directory / "data")


def _repositories(folder: Path) -> list[Path]:
    """The repositories that lie side by side in a folder, or in the hub's cache, sorted by their names."""
    below = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (path / "data").is_dir():
            below.append(path)
        elif is_cached(path) and any(
            split_of(file.name) in ("forget", "sensitive") for file in path.glob("snapshots/*/data/*.parquet")
        ):
            below.append(find_snapshot(path))
    return below


class World:
    """A directory in the released layout, read lazily. Raises InputError where something is missing or malformed.

    Args:
      directory: as :func:`find_root` takes it.
      zeroshot: where the zero-shot set lies; by default in ``zeroshot/``, if that is there.
      left_out: (tar, key) of retain pairs that are to be left out.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        zeroshot: str | os.PathLike | None = None,
        left_out: frozenset[tuple[str, str]] = frozenset(),
    ):
        self._left_out = left_out
        self.given = Path(directory)
        self.directory = find_root(directory)
        self.data = self.directory / "data" if (self.directory / "data").is_dir() else self.directory
        self._zeroshot = Path(zeroshot) if zeroshot else None

    @functools.cached_property
    def zeroshot_directory(self) -> Path | None:
        """Where the zero-shot set lies; None if there is none. Raises InputError for several."""
        found = [self._zeroshot] if self._zeroshot else self._optional("zeroshot")
        if len(found) > 1:
            raise InputError(f"there is also {found[1]}; one zero-shot set is read, remove the other", found[0])
        return found[0] if found else None

    @functools.cached_property
    def retain_directories(self) -> tuple[Path, ...]:
        """Where the tars of the general retain base lie, in the order in which they are read."""
        return tuple(self._optional("retain"))

    @functools.cached_property
    def _roots(self) -> tuple[Path, ...]:
        """The world, and the other released repository if both lie in the folder that was given."""
        if self.directory in (self.given, self.given.parent) or is_cached(self.given):
            return (self.directory,)
        others = [
            path
            for path in _repositories(self.given)
            if path != self.directory and any((path / "data").glob("sensitive-*.parquet"))
        ]
        return (self.directory, *others)

    def _optional(self, name: str) -> list[Path]:
        """The folders of this name in the world, beside its repository, and in the other one; each folder once.

        Raises InputError for anything else of this name: it was meant to be read.
        """
        found: dict[str, Path] = {}
        for place in (self.directory, self.given, *self._roots[1:]):
            folder = place / name
            if not os.path.lexists(folder):
                continue
            if not folder.is_dir():
                what = (
                    f"a link to {os.readlink(folder)}, which is no folder that is there" if folder.is_symlink() else ""
                )
                raise InputError(f"{what or 'not a folder'}; a folder is needed, or nothing of this name", folder)
            found.setdefault(os.path.realpath(folder), folder)
        return list(found.values())

    @functools.cached_property
    def named(self) -> frozenset[str] | None:
        """The files of a made world; what else lies there is no part of it. None if it is not known."""
        return named_files(self.directory)

    @functools.cached_property
    def training_only(self) -> bool:
        """Whether this is the repository for training: nothing can be unlearnt or evaluated with it."""
        return not any(self._has(split) for split in SENSITIVE_SPLITS) and self._has("sensitive")

    @functools.cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """``{identity_id: attributes}``."""
        return self._mapping_of_mappings(IDENTITIES, "attributes")

    @functools.cached_property
    def captions(self) -> dict[str, dict[str, Any]]:
        """``{file_name: {caption, data_field}}`` of the sensitive splits."""
        return self._mapping_of_mappings(CAPTIONS, "{caption, data_field}")

    @functools.cached_property
    def generic_captions(self) -> dict[str, str]:
        """``{file_name: non-sensitive caption}``; images without one are allowed."""
        mapping = self._json(GENERIC_CAPTIONS, dict)
        for key, value in mapping.items():
            if not isinstance(value, str):
                raise InputError(
                    f"{_kind(value)} where a caption would be right", f"{self.directory / GENERIC_CAPTIONS} key '{key}'"
                )
        return mapping

    @functools.cached_property
    def fragile_ids(self) -> frozenset[str]:
        """File names of the fragile set, a subset of retain_disjoint."""
        names = self._json(FRAGILE_IDS, list)
        for index, name in enumerate(names):
            if not isinstance(name, str):
                raise InputError(
                    f"{_kind(name)} where a file name would be right", f"{self.directory / FRAGILE_IDS} element {index}"
                )
        return frozenset(names)

    @functools.cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that can be read, ``sensitive`` included."""
        return tuple(split for split in (*SPLITS, "sensitive") if self.data_files(split) or self._derived(split))

    @functools.cached_property
    def own_splits(self) -> tuple[str, ...]:
        """The splits that a dataset of this world has: :data:`SPLITS`, or :data:`TRAINING_SPLITS`."""
        return TRAINING_SPLITS if self.training_only else SPLITS

    @functools.cached_property
    def retain_tars(self) -> tuple[Path, ...]:
        """The tars of the general retain base, folder by folder, sorted; empty when the world has none."""
        return self.find_retain_tars(Findings())

    def find_retain_tars(self, findings: Findings) -> tuple[Path, ...]:
        """:attr:`retain_tars`; ``findings`` counts what lies there and is not read."""
        return tuple(
            tar for directory in self.retain_directories for tar in self._known(retain_tars(directory, findings))
        )

    def retain_pairs(self) -> Iterator[Pair]:
        """The pairs of the general retain base, tar by tar, each in its order."""
        for tar in self.retain_tars:
            for pair in iter_tar_pairs(tar):
                if (str(tar), pair.key) not in self._left_out:
                    yield pair

    @functools.cached_property
    def zeroshot(self) -> ZeroShot | None:
        """The zero-shot classification set, or None."""
        return self.find_zeroshot(Findings())

    def find_zeroshot(self, findings: Findings) -> ZeroShot | None:
        """:attr:`zeroshot`; ``findings`` counts what lies there and is not read."""
        return read_zeroshot(self.zeroshot_directory, findings) if self.zeroshot_directory else None

    def data_files(self, split: str) -> list[Path]:
        """The parquet files of a split, in order; empty when it has none. Raises InputError if one is missing."""
        if split not in self._data_files:
            self._data_files[split] = split_files(self.data, split, self._data_names)
        return self._data_files[split]

    def files_of(self, split: str) -> list[Path]:
        """The parquet files of a split. Raises InputError if there are none."""
        files = self.data_files(split)
        if not files:
            message = f"no such file; the split '{split}' needs one or more"
            raise InputError(message, self.data / f"{split}-*.parquet")
        return files

    def read_files(self) -> list[Path]:
        """All files that reading the world and its sets may open."""
        parquet = [path for split in (*SPLITS, "sensitive") for path in self.data_files(split)]
        json = [self.directory / name for name in _JSON_FILES if (self.directory / name).is_file()]
        return [*parquet, *json, *self.retain_tars, *(self.zeroshot.files() if self.zeroshot else ())]

    def num_rows(self, split: str) -> int:
        """The number of rows of a split, from the parquet footers."""
        if not self.data_files(split) and self._derived(split):
            return sum(self.num_rows(part) for part in SENSITIVE_SPLITS)
        total = 0
        for path in self.files_of(split):
            file, footer = open_parquet(path)
            file.close()
            total += footer.rows
        return total

    def rows(self, split: str, *, images: bool = True, findings: Findings | None = None) -> Iterator[Row]:
        """The rows of a split in the released order, streamed; ``images=False`` leaves ``image`` empty and is fast.

        Raises InputError for a split without files, a damaged file, a missing or mistyped column, or a null (with
        ``findings``, rows that are not whole become problems and are left out).
        """
        if not self.data_files(split) and self._derived(split):
            for part in SENSITIVE_SPLITS:
                yield from self.rows(part, images=images, findings=findings)
            return
        for path in self.files_of(split):
            yield from read_rows(path, split, images=images, findings=findings)

    def subset_of(self, row: Row) -> str:
        """Which of :data:`SUBSETS` a row belongs to.

        Empty for none of them: a portrait in retain_synth of a person outside forget, which the released evaluator leaves
        out, and the rows of the repository for training, which does not say.
        """
        if row.split == "forget":
            return "forget_association" if row.identity_id in self._partial_identities else "forget_identity"
        if row.split == "retain_synth":
            if not row.identity_id:
                return "retain_disjoint"
            return "retain_joint" if not self.training_only and row.identity_id in self._forget_identities else ""
        return "" if row.split == "sensitive" else row.split

    def value_of(self, row: Row) -> Association:
        """The attribute, name and value that a sensitive row's caption is about.

        Of several e-mail addresses it is the one that the caption contains (the first if none is). For ``name`` the
        value is the name. Raises InputError for metadata that lacks the file name, the identity or the attribute. Without
        any metadata, in the repository for training, all three are empty.
        """
        if self.training_only and row.file_name not in self.captions:
            return Association("", "", "")
        meta = self.captions.get(row.file_name)
        if meta is None:
            raise InputError(
                f"'{row.file_name}' has no entry in {CAPTIONS}; one with caption and data_field is needed",
                row.where("file_name"),
            )
        identity = self.identities.get(row.identity_id or "")
        field = meta.get("data_field")
        # A field that the benchmark does not know is let pass where the person has it.
        if not isinstance(field, str) or (field not in DATA_FIELDS and (identity is None or field not in identity)):
            where = f"{self.directory / CAPTIONS} key '{row.file_name}' field 'data_field'"
            raise InputError(f"{_kind(field)}; one of {', '.join(DATA_FIELDS)} would be right", where)
        if identity is None:
            raise InputError(
                f"{row.identity_id!r} is not in {IDENTITIES}; a key of it would be right", row.where("identity_id")
            )
        return Association(field, self._attribute(row, identity, "name"), self._attribute(row, identity, field))

    def name_unread(self, findings: Findings) -> None:
        """Counts what lies in the world and is not read."""
        if self.named is not None:
            return  # a made world is what its manifest names
        known = {*_JSON_FILES, MADE, "data", "retain"} | (set() if self._zeroshot else {"zeroshot"})
        zeroshot = os.path.realpath(self._zeroshot) if self._zeroshot else None
        folders = {self.data, *(folder for root in self._roots for folder in (root, root / "data"))}
        for path in sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir()):
            read = (
                path.name in known
                or os.path.realpath(path) == zeroshot
                or split_of(path.name) in (*SPLITS, "sensitive")
            )
            if not read and not path.name.lower().startswith((".", "readme", "license", "licence", "notice")):
                findings.oddity(NOT_READ, str(path))

    def _attribute(self, row: Row, identity: dict[str, Any], field: str) -> str:
        value = identity.get(field)
        if field == "emails" and isinstance(value, list) and value:
            value = next((address for address in value if isinstance(address, str) and address in row.text), value[0])
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value:
            where = f"{self.directory / IDENTITIES} key '{row.identity_id}' field '{field}'"
            raise InputError(f"{_kind(value)} where text would be right ({row.where()} is about it)", where)
        return value

    @functools.cached_property
    def _partial_identities(self) -> frozenset[str]:
        return frozenset(row.identity_id for row in self.rows("holdout_association", images=False))

    @functools.cached_property
    def _forget_identities(self) -> frozenset[str]:
        return (
            frozenset(row.identity_id for row in self.rows("forget", images=False))
            if not self.training_only
            else frozenset()
        )

    @functools.cached_property
    def _data_names(self) -> list[str]:
        try:
            paths = list(self.data.iterdir())
        except OSError as error:
            raise InputError(describe_os_error(error, self.data)) from error
        return [path.name for path in self._known(paths) if not path.name.startswith(".")]

    @functools.cached_property
    def _data_files(self) -> dict[str, list[Path]]:
        return {}

    def _known(self, paths: list[Path] | tuple[Path, ...]) -> list[Path]:
        """Without the files that a made world does not name."""
        if self.named is None:
            return list(paths)
        return [
            path
            for path in paths
            if not path.is_relative_to(self.directory)  # beside the world
            or path.relative_to(self.directory).as_posix() in self.named
        ]

    def _has(self, split: str) -> bool:
        return any(split_of(name) == split for name in self._data_names)

    def _derived(self, split: str) -> bool:
        return split == "sensitive" and all(self.data_files(part) for part in SENSITIVE_SPLITS)

    def _mapping_of_mappings(self, name: str, wanted: str) -> dict[str, dict[str, Any]]:
        mapping = self._json(name, dict)
        for key, value in mapping.items():
            if not isinstance(value, dict):
                raise InputError(
                    f"{_kind(value)} where an object of {wanted} would be right", f"{self.directory / name} key '{key}'"
                )
        return mapping

    def _json(self, name: str, kind: type) -> Any:
        path = self.directory / name
        if self.training_only and not path.exists():
            return kind()
        try:
            value = read_json(path)
        except OSError as error:
            raise InputError(describe_os_error(error, path)) from error
        if not isinstance(value, kind):
            raise InputError(f"{_kind(value)} where {'an object' if kind is dict else 'a list'} would be right", path)
        return value


def _kind(value: Any) -> str:
    """A JSON value in a few words, for an error message."""
    names = {
        type(None): "nothing",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value)) or repr(value)[:60]

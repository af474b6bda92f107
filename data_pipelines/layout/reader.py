"""Reads a directory in the released layout of SALMUBench.

    world/
      data/{split}-{i:05d}-of-{n:05d}.parquet    columns image {bytes, path}, text, identity_id, file_name (``parquet.py``)
      identities_metadata.json                   {identity_id: {name, city, ..., passport}}
      sensitive_set_captions_metadata.json       {file_name: {caption, data_field}}
      sensitive_set_generic_captions.json        {file_name: generic caption}
      fragile_set_ids.json                       [file_name]
      fragile_set_all_similarities.json          {file_name: similarity}; not read
      retain/**/*.tar                            optional: retain pairs (``retain.py``)
      zeroshot/                                  optional: a zero-shot set (``zeroshot.py``)

Both released repositories are such directories. The evaluation repository has all of it, the training repository only
``sensitive`` and ``retain_synth``, and needs no JSON. They may share a folder, or be in the hub's cache (``places.py``);
``retain/`` and ``zeroshot/`` may then be in either of them or beside them. All ``retain/`` folders are read.

:class:`World` streams: images are read in small batches, and only captions, file names and identities are ever in memory
as a whole. Other columns and keys are ignored. ``check.py`` checks a whole directory.
Whatever a user can get wrong here raises :class:`InputError` with the file, the row (counted from 0), the
field and what would be right.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.layout.digests import MADE, named_files
from data_pipelines.layout.findings import Findings
from data_pipelines.layout.hub import is_cached
from data_pipelines.layout.metadata import Metadata
from data_pipelines.layout.names import JSON_FILES, SENSITIVE_SPLITS, SPLITS, TRAINING_SPLITS
from data_pipelines.layout.parquet import Row, open_parquet, read_rows, split_files, split_of
from data_pipelines.layout.places import find_root, repositories
from data_pipelines.layout.retain import retain_tars
from data_pipelines.layout.shards import Pair, iter_tar_pairs
from data_pipelines.layout.zeroshot import NOT_READ, ZeroShot, read_zeroshot
from salmu_jax.runtime.errors import InputError, describe_os_error


class World:
    """Reads a directory in the released layout, lazily. Raises InputError where something is missing or malformed.

    Args:
      directory: anything that :func:`find_root` accepts.
      zeroshot: the zero-shot set's directory; by default ``zeroshot/``, if it exists.
    """

    def __init__(self, directory: str | os.PathLike, zeroshot: str | os.PathLike | None = None):
        self.given = Path(directory)
        self.directory = find_root(directory)
        self.data = self.directory / "data" if (self.directory / "data").is_dir() else self.directory
        self._zeroshot = Path(zeroshot) if zeroshot else None

    @functools.cached_property
    def zeroshot_directory(self) -> Path | None:
        """The zero-shot set's directory; None if there is none. Raises InputError for several."""
        found = [self._zeroshot] if self._zeroshot else self._optional("zeroshot")
        if len(found) > 1:
            raise InputError(f"there is also {found[1]}; one zero-shot set is read, remove the other", found[0])
        return found[0] if found else None

    @functools.cached_property
    def retain_directories(self) -> tuple[Path, ...]:
        """The directories of retain tars, in the order in which they are read."""
        return tuple(self._optional("retain"))

    @functools.cached_property
    def _roots(self) -> tuple[Path, ...]:
        """The world, and the other released repository if both are in the given folder."""
        if self.directory in (self.given, self.given.parent) or is_cached(self.given):
            return (self.directory,)
        others = [
            path
            for path in repositories(self.given)
            if path != self.directory and any((path / "data").glob("sensitive-*.parquet"))
        ]
        return (self.directory, *others)

    def _optional(self, name: str) -> list[Path]:
        """Returns the folders of this name in the world, beside its repository, and in the other repository, each once.

        Raises InputError if the name is not a folder, since it was meant to be read.
        """
        found: dict[str, Path] = {}
        for place in (self.directory, self.given, *self._roots[1:]):
            folder = place / name
            if not os.path.lexists(folder):
                continue
            if not folder.is_dir():
                what = (
                    f"a link to {os.readlink(folder)}, which is not an existing folder" if folder.is_symlink() else ""
                )
                raise InputError(f"{what or 'not a folder'}; a folder is needed, or nothing of this name", folder)
            found.setdefault(os.path.realpath(folder), folder)
        return list(found.values())

    @functools.cached_property
    def named(self) -> frozenset[str] | None:
        """The files of a made world; other files in it are ignored. None for other worlds."""
        return named_files(self.directory)

    @functools.cached_property
    def training_only(self) -> bool:
        """Whether this is the training repository, on which nothing can be unlearned or evaluated."""
        return not any(self._has(split) for split in SENSITIVE_SPLITS) and self._has("sensitive")

    @functools.cached_property
    def metadata(self) -> Metadata:
        """What its JSON files say."""
        return Metadata(self.directory, needed=not self.training_only)

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
        """The tars of retain pairs, folder by folder, sorted; empty if the world has none."""
        return tuple(tar for _, tar in self.find_retain_tars(Findings()))

    def find_retain_tars(self, findings: Findings) -> tuple[tuple[Path, Path], ...]:
        """:attr:`retain_tars`, each as (folder ``retain/``, tar); ``findings`` counts files there that are not read."""
        return tuple(
            (directory, tar)
            for directory in self.retain_directories
            for tar in self._known(retain_tars(directory, findings))
        )

    def retain_pairs(self) -> Iterator[Pair]:
        """Yields the retain pairs, tar by tar, in order."""
        for tar in self.retain_tars:
            yield from iter_tar_pairs(tar)

    @functools.cached_property
    def zeroshot(self) -> ZeroShot | None:
        """The zero-shot classification set, or None."""
        return self.find_zeroshot(Findings())

    def find_zeroshot(self, findings: Findings) -> ZeroShot | None:
        """:attr:`zeroshot`; ``findings`` counts files there that are not read."""
        return read_zeroshot(self.zeroshot_directory, findings) if self.zeroshot_directory else None

    def data_files(self, split: str) -> list[Path]:
        """Returns the parquet files of a split, in order; empty if it has none. Raises InputError if one is missing."""
        if split not in self._data_files:
            self._data_files[split] = split_files(self.data, split, self._data_names)
        return self._data_files[split]

    def files_of(self, split: str) -> list[Path]:
        """Returns the parquet files of a split. Raises InputError if there are none."""
        files = self.data_files(split)
        if not files:
            message = f"no such file; the split '{split}' needs one or more"
            raise InputError(message, self.data / f"{split}-*.parquet")
        return files

    def read_files(self) -> list[Path]:
        """Returns all files that reading the world and its sets may open."""
        parquet = [path for split in (*SPLITS, "sensitive") for path in self.data_files(split)]
        json = [self.directory / name for name in JSON_FILES if (self.directory / name).is_file()]
        return [*parquet, *json, *self.retain_tars, *(self.zeroshot.files() if self.zeroshot else ())]

    def num_rows(self, split: str) -> int:
        """Returns the number of rows of a split, from the parquet footers."""
        if not self.data_files(split) and self._derived(split):
            return sum(self.num_rows(part) for part in SENSITIVE_SPLITS)
        total = 0
        for path in self.files_of(split):
            file, footer = open_parquet(path)
            file.close()
            total += footer.rows
        return total

    def rows(self, split: str, *, images: bool = True, findings: Findings | None = None) -> Iterator[Row]:
        """Yields the rows of a split in the released order, streamed; ``images=False`` leaves ``image`` empty and is fast.

        Raises InputError for a split without files, a damaged file, a missing or mistyped column, or a null (with
        ``findings``, incomplete rows become problems and are left out).
        """
        if not self.data_files(split) and self._derived(split):
            for part in SENSITIVE_SPLITS:
                yield from self.rows(part, images=images, findings=findings)
            return
        for path in self.files_of(split):
            yield from read_rows(path, split, images=images, findings=findings)

    def subset_of(self, row: Row) -> str:
        """Returns which of :data:`SUBSETS` a row belongs to.

        Returns an empty text for a retain_synth portrait of a person outside forget, which the released evaluator leaves
        out, and for the rows of the training repository, which does not say.
        """
        if row.split == "forget":
            return "forget_association" if row.identity_id in self._partial_identities else "forget_identity"
        if row.split == "retain_synth":
            if not row.identity_id:
                return "retain_disjoint"
            return "retain_joint" if not self.training_only and row.identity_id in self._forget_identities else ""
        return "" if row.split == "sensitive" else row.split

    def name_unread(self, findings: Findings) -> None:
        """Counts files in the world that are not read."""
        if self.named is not None:
            return  # the manifest of a made world names all that is read
        known = {*JSON_FILES, MADE, "data", "retain"} | (set() if self._zeroshot else {"zeroshot"})
        zeroshot = os.path.realpath(self._zeroshot) if self._zeroshot else None
        folders = {self.data, *(folder for root in self._roots for folder in (root, root / "data"))}
        for path in sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir()):
            read = (
                path.name in known
                or os.path.realpath(path) == zeroshot
                or split_of(path.name) in (*SPLITS, "sensitive")
            )
            if not read and not path.name.lower().startswith((".", "readme", "license", "licence", "notice")):
                findings.oddity(NOT_READ, str(path), kind="unread")

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
        """Drops files that the manifest of a made world does not name."""
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

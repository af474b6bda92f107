"""Checking a directory in the released layout before anything is built from it."""

from __future__ import annotations

import io
import os
import warnings

from PIL import Image

from data_pipelines.layout.reader import CAPTIONS, FRAGILE_IDS, SENSITIVE_SPLITS, SPLITS, Row, World
from data_pipelines.layout.shards import iter_tar_pairs
from salmu_jax.errors import InputError


def check_world(directory: str | os.PathLike, *, decode: bool = True) -> None:
    """Reads a whole world and raises InputError, in one line, for the first thing that is wrong.

    Checked are: the files and their columns; every caption against its metadata; every association against the
    identities; that file names are unique; that no identity or association is in a split it may not be in
    (holdout_identity shares no identity with the others; forget and holdout_association share identities but no
    association; retain_joint shows identities of forget); that the fragile set is in retain_disjoint; the
    general retain base and the zero-shot set, if there are any.

    Args:
      directory: the world.
      decode: decode every image as well, which takes most of the time.
    """
    world = World(directory)
    world.identities, world.captions, world.generic_captions, world.fragile_ids  # noqa: B018 (reading them checks them)
    file_names = _FileNames()
    identities: dict[str, set[str]] = {split: set() for split in SPLITS}
    forget_associations: set[tuple[str, str]] = set()
    disjoint: set[str] = set()
    for split in SPLITS:
        for row in world.rows(split, images=decode):
            file_names.add(row)
            if decode:
                check_image(row.image, f"{row.where('image')} ('{row.file_name}')")
            if split in SENSITIVE_SPLITS:
                _check_sensitive(world, row, identities, forget_associations)
            elif row.identity_id is None:
                disjoint.add(row.file_name)
            elif row.identity_id not in identities["forget"]:
                message = (
                    f"'{row.identity_id}' is not in the split forget; an identity of forget, or null, would be right"
                )
                raise InputError(message, row.where("identity_id"))
            if row.identity_id is not None:
                identities[split].add(row.identity_id)
    for name in sorted(world.fragile_ids - disjoint):
        where = f"{world.directory / FRAGILE_IDS} element '{name}'"
        raise InputError("not a file_name of retain_disjoint (retain_synth rows without an identity)", where)
    if world.data_files("sensitive"):
        _check_union(world, file_names, decode)
    _check_tars(world, decode)


def check_image(data: bytes, where: str) -> None:
    """Decodes an image wholly; raises InputError if that fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities that PIL copes with, such as palettes with transparency as bytes
            with Image.open(io.BytesIO(data)) as image:
                image.load()
    except (
        Exception
    ) as error:  # PIL raises many kinds (OSError, SyntaxError, struct.error, DecompressionBombError, ...)
        raise InputError(
            f"undecodable image ({type(error).__name__}: {error}); a JPEG or PNG would be right", where
        ) from error


class _FileNames:
    """File names seen so far, and where."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[str, int]] = {}

    def add(self, row: Row) -> None:
        if row.file_name in self.places:
            path, index = self.places[row.file_name]
            message = f"'{row.file_name}' is also {path} row {index}; file names must be unique over all splits"
            raise InputError(message, row.where("file_name"))
        self.places[row.file_name] = (row.path, row.row)


def _check_sensitive(
    world: World, row: Row, identities: dict[str, set[str]], forget_associations: set[tuple[str, str]]
) -> None:
    association = (row.identity_id, world.value_of(row).data_field)
    caption = world.captions[row.file_name].get("caption")
    if caption != row.text:
        message = f"{_short(row.text)} differs from the caption in {CAPTIONS}, {_short(caption)}; they should be equal"
        raise InputError(message, row.where("text"))
    if row.split == "forget":
        forget_associations.add(association)
    elif row.split == "holdout_association":
        if row.identity_id not in identities["forget"]:
            message = f"'{row.identity_id}' is not in forget; holdout_association is of identities that forget has too"
            raise InputError(message, row.where("identity_id"))
        if association in forget_associations:
            message = (
                f"'{association[1]}' of '{row.identity_id}' is also in forget; an association is in one split only"
            )
            raise InputError(message, row.where("identity_id"))
    else:
        for other in ("forget", "holdout_association"):
            if row.identity_id in identities[other]:
                message = (
                    f"'{row.identity_id}' is also in {other}; an identity of holdout_identity is in no other split"
                )
                raise InputError(message, row.where("identity_id"))


def _check_union(world: World, file_names: _FileNames, decode: bool) -> None:
    seen = _FileNames()
    sensitive = sum(world.num_rows(split) for split in SENSITIVE_SPLITS)
    for row in world.rows("sensitive", images=decode):
        seen.add(row)
        if row.file_name not in file_names.places or row.file_name not in world.captions:
            message = f"'{row.file_name}' is in none of {', '.join(SENSITIVE_SPLITS)}; 'sensitive' is their union"
            raise InputError(message, row.where("file_name"))
        if decode:
            check_image(row.image, f"{row.where('image')} ('{row.file_name}')")
    if len(seen.places) != sensitive:
        where = world.data_files("sensitive")[0]
        raise InputError(
            f"'sensitive' has {len(seen.places)} rows, its three parts {sensitive}; they should be equal", where
        )


def _check_tars(world: World, decode: bool) -> None:
    for tar in world.retain_tars:
        for pair in iter_tar_pairs(tar):
            if decode:
                check_image(pair.image, f"{tar} key '{pair.key}'")
    if world.zeroshot is not None:
        for item in world.zeroshot.images():
            if decode:
                check_image(item.image, f"{world.directory / 'zeroshot'} key '{item.key}'")


def _short(text: object) -> str:
    return repr(text) if len(repr(text)) <= 100 else repr(text)[:97] + "..."

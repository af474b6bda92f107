"""Makes a world: people, portraits, captions, scenes and splits, written in the released layout.

Read from :func:`generate_world` down. Everything depends on the seed and the parameters alone; two runs with the same
versions of the libraries write the same bytes (``world.json`` has a digest of every file, and the versions).

Choices of ours, where the public record is silent:

- Rows of a split go by identity, then by attribute, then by picture; ``sensitive`` is forget, holdout_association and
  holdout_identity, in this order; retain_synth is retain_joint, then retain_disjoint.
- Each pair has its own portrait. The pairs of an association use distinct caption variants.
- The fragile set is constructed, not found: see ``splits.retain_disjoint_difficulties``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import layout
from data_pipelines.layout import DATA_FIELDS, SENSITIVE_SPLITS, LabelledImage, Pair, SplitWriter
from data_pipelines.world import captions, portraits
from data_pipelines.world.drawing import PortraitJob, SceneJob, drawn
from data_pipelines.world.personas import Persona, make_personas
from data_pipelines.world.scenes import CLASS_NAMES, SIDES, TEMPLATES
from data_pipelines.world.splits import (
    MIN_PERSONAS,
    Splits,
    make_splits,
    retain_disjoint_difficulties,
    retain_joint_identities,
)
from salmu_jax.runtime import files
from salmu_jax.runtime.directories import new_directory
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.limits import Limits

GENERATOR_VERSION = 1
"""Incremented whenever the same seed and parameters would give another world."""

ASPECT_RATIOS = (0.67, 0.75, 0.8, 1.0, 1.0, 1.25, 1.33, 1.5)
JPEG_QUALITY = 90
PAIRS_A_SHARD = 1000

RANGES = {
    "seed": Limits(0, 2**32 - 1),
    "personas": Limits(MIN_PERSONAS, 5_000),  # names are unique, and some cultures have 150 for each gender
    "pairs_per_association": Limits(1, 1_000),
    "portrait_size": Limits(16, portraits.LARGEST),
    "retain_joint": Limits(1, 10**6),
    "retain_disjoint": Limits(1, 10**6),
    "fragile": Limits(1, 10**6),
    "scenes": Limits(1, 10**7),
    "scene_size": SIDES,
    "zeroshot_images": Limits(len(CLASS_NAMES), 10**7),
    "workers": Limits(0, 1_024),
}
"""Of the parameters; those of the config's fields."""

_FACE, _SHOT, _ASPECT, _VARIANT, _NOBODY, _SCENE, _ZEROSHOT = range(103, 110)  # keep the draws of one seed apart

FRAGILE_RULE = (
    "retain_disjoint portraits made hard on purpose (difficulty 0.6 to 1, the others 0 to 0.4); the similarity "
    "recorded is 1 - difficulty and the fragile set has the lowest. The release ranks by a model's similarity."
)


def generate_world(
    directory: str | os.PathLike,
    *,
    seed: int,
    personas: int = 96,
    pairs_per_association: int = 3,
    portrait_size: int = 160,
    retain_joint: int = 130,
    retain_disjoint: int = 2000,
    fragile: int = 200,
    scenes: int = 10000,
    scene_size: int = 64,
    zeroshot_images: int = 1600,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes a world to ``directory``, replacing what is there only once the world is complete.

    Args:
      seed: the only source of randomness; 0 or more.
      personas: identities, divided 193 : 387 : 194 as in the release.
      pairs_per_association: pairs per (identity, attribute); an identity has nine times as many portraits.
      portrait_size: longest side of the portraits in px.
      retain_joint, retain_disjoint, fragile: generic-caption portraits of forget identities and of nobody, and
        the number of the latter that are in the fragile set.
      scenes, scene_size: the number of retain pairs, and the side of their pictures in px.
      zeroshot_images: held-out scenes for zero-shot classification, cycling through the classes.
      workers: drawing processes; the result does not depend on their number.
      progress: called with (pictures drawn, pictures in all).

    Returns:
      The content of ``world.json``. Raises InputError for a parameter out of range, OSError if writing fails.
    """
    parameters = {
        "personas": personas,
        "pairs_per_association": pairs_per_association,
        "portrait_size": portrait_size,
        "retain_joint": retain_joint,
        "retain_disjoint": retain_disjoint,
        "fragile": fragile,
        "scenes": scenes,
        "scene_size": scene_size,
        "zeroshot_images": zeroshot_images,
    }
    _check_parameters({"seed": seed, "workers": workers, **parameters})
    people = make_personas(seed, personas)
    splits = make_splits(seed, personas)
    rows = [
        *_sensitive_rows(seed, people, splits, pairs_per_association),
        *_joint_rows(seed, people, retain_joint_identities(seed, splits, retain_joint), pairs_per_association),
        *_disjoint_rows(seed, retain_disjoint_difficulties(seed, retain_disjoint, fragile)),
    ]
    jobs = [row.job(portrait_size) for row in rows]
    jobs += [SceneJob((seed, _SCENE, index), scene_size, JPEG_QUALITY) for index in range(scenes)]
    labels = _zeroshot_labels(zeroshot_images)
    jobs += [SceneJob((seed, _ZEROSHOT, index), scene_size, JPEG_QUALITY, label) for index, label in enumerate(labels)]

    with new_directory(directory) as partial, drawn(jobs, workers) as results:
        pictures = _counted(results, len(jobs), progress)
        generic = _write_splits(partial, rows, pictures)
        _write_metadata(partial, people, rows, generic, fragile)
        _write_retain(partial / "retain", pictures, scenes)
        _write_zeroshot(partial / "zeroshot", pictures, labels)
        world = {
            "schema": "salmu_jax.world/1",
            "generator_version": GENERATOR_VERSION,
            "seed": seed,
            "parameters": parameters,
            "counts": _counts(people, splits, rows, fragile, scenes, zeroshot_images),
            "fragile_rule": FRAGILE_RULE,
            "versions": {name: metadata.version(name) for name in ("faker", "numpy", "pillow", "pyarrow")},
            "digests": _digests(partial),
        }
        files.write_json(partial / "world.json", world)
    return world


@dataclass(frozen=True)
class _PlannedRow:
    """A row of ``forget``, a holdout or ``retain_synth`` before its portrait is drawn."""

    split: str
    subset: str
    file_name: str
    face_key: tuple[int, ...]
    shot_key: tuple[int, ...]
    region: str
    gender: str | None
    aspect_ratio: float
    identity_id: str | None = None
    data_field: str | None = None
    caption: str | None = None  # None: the generic one
    difficulty: float = 0.0

    def job(self, size: int) -> PortraitJob:
        return PortraitJob(
            self.face_key,
            self.shot_key,
            self.region,
            self.gender,
            size,
            self.aspect_ratio,
            JPEG_QUALITY,
            self.difficulty,
        )


def _sensitive_rows(seed: int, people: list[Persona], splits: Splits, pairs: int) -> list[_PlannedRow]:
    """Returns all sensitive rows, in the order of the splits."""
    rows: dict[str, list[_PlannedRow]] = {split: [] for split in SENSITIVE_SPLITS}
    for index, persona in enumerate(people):
        for position, field in enumerate(DATA_FIELDS):
            split = splits.split_of(index, field)
            subset = split
            if split == "forget":
                subset = "forget_association" if index in splits.forgotten_fields else "forget_identity"
            variants = np.random.default_rng([seed, _VARIANT, index, position]).permutation(captions.NUM_VARIANTS)
            for pair in range(pairs):
                caption = captions.sensitive_caption(persona, field, int(variants[pair % len(variants)]))
                picture = position * pairs + pair
                rows[split].append(
                    _persona_row(seed, index, persona, picture, split, subset, data_field=field, caption=caption)
                )
    return [row for split in SENSITIVE_SPLITS for row in rows[split]]


def _joint_rows(seed: int, people: list[Persona], identities: list[int], pairs: int) -> Iterator[_PlannedRow]:
    """Returns portraits of forget identities with generic captions, numbered after the sensitive ones."""
    previous, picture = None, 0
    for index in identities:
        picture = picture + 1 if index == previous else len(DATA_FIELDS) * pairs
        previous = index
        yield _persona_row(seed, index, people[index], picture, "retain_synth", "retain_joint")


def _persona_row(
    seed: int, index: int, persona: Persona, picture: int, split: str, subset: str, **about: str
) -> _PlannedRow:
    aspect = _aspect_ratio(seed, index, picture)
    return _PlannedRow(
        split,
        subset,
        file_name=f"{persona.identity_id}_{picture:03d}_ar-{aspect:.2f}.jpg",
        face_key=(seed, _FACE, index),
        shot_key=(seed, _SHOT, index, picture),
        region=persona.region,
        gender=persona.gender,
        aspect_ratio=aspect,
        identity_id=persona.identity_id,
        **about,
    )


def _disjoint_rows(seed: int, difficulties: np.ndarray) -> Iterator[_PlannedRow]:
    """Returns portraits of nobody in particular, each with a new face."""
    for index, difficulty in enumerate(difficulties):
        rng = np.random.default_rng([seed, _NOBODY, index])
        region = portraits.REGIONS[rng.integers(len(portraits.REGIONS))]
        aspect = ASPECT_RATIOS[rng.integers(len(ASPECT_RATIOS))]
        yield _PlannedRow(
            "retain_synth",
            "retain_disjoint",
            file_name=f"synth_{index:06d}_ar-{aspect:.2f}.jpg",
            face_key=(seed, _NOBODY, index, 1),
            shot_key=(seed, _NOBODY, index, 2),
            region=region,
            gender=None,
            aspect_ratio=aspect,
            difficulty=float(difficulty),
        )


def _aspect_ratio(seed: int, index: int, picture: int) -> float:
    return ASPECT_RATIOS[np.random.default_rng([seed, _ASPECT, index, picture]).integers(len(ASPECT_RATIOS))]


def _write_splits(directory: Path, rows: list[_PlannedRow], pictures: Iterator[tuple[bytes, str]]) -> list[str]:
    """Writes the parquet files, ``sensitive`` along with its parts; returns the generic caption of every row."""
    generic = []
    sensitive = [row for row in rows if row.split in SENSITIVE_SPLITS]
    with SplitWriter(directory, "sensitive", len(sensitive)) as union:
        for split in layout.SPLITS:
            of_split = [row for row in rows if row.split == split]
            with SplitWriter(directory, split, len(of_split)) as writer:
                for row in of_split:
                    image, description = next(pictures)
                    generic.append(description)
                    entry = (image, row.caption or description, row.identity_id, row.file_name)
                    writer.add(*entry)
                    if row.caption is not None:
                        union.add(*entry)
    return generic


def _write_metadata(
    directory: Path, people: list[Persona], rows: list[_PlannedRow], generic: list[str], fragile: int
) -> None:
    files.write_json(directory / layout.IDENTITIES, {person.identity_id: person.metadata() for person in people})
    sensitive = [(row, description) for row, description in zip(rows, generic, strict=True) if row.caption is not None]
    files.write_json(
        directory / layout.CAPTIONS,
        {row.file_name: {"caption": row.caption, "data_field": row.data_field} for row, _ in sensitive},
    )
    files.write_json(
        directory / layout.GENERIC_CAPTIONS, {row.file_name: description for row, description in sensitive}
    )
    similarity = {row.file_name: round(1.0 - row.difficulty, 6) for row in rows if row.subset == "retain_disjoint"}
    files.write_json(directory / layout.FRAGILE_SIMILARITIES, similarity)
    files.write_json(directory / layout.FRAGILE_IDS, sorted(similarity, key=similarity.get)[:fragile])


def _write_retain(directory: Path, pictures: Iterator[tuple[bytes, str]], count: int) -> None:
    """Writes the retain pairs as img2dataset does; a key is five digits of the shard and four of the picture."""
    directory.mkdir()
    for shard, start in enumerate(range(0, count, PAIRS_A_SHARD)):
        pairs = range(min(PAIRS_A_SHARD, count - start))
        members = (
            member
            for index in pairs
            for member in layout.pair_members(Pair(f"{shard:05d}{index:04d}", *next(pictures)))
        )
        layout.write_tar(directory / f"{shard:05d}.tar", members)


def _zeroshot_labels(count: int) -> list[int]:
    return [index % len(CLASS_NAMES) for index in range(count)]


def _write_zeroshot(directory: Path, pictures: Iterator[tuple[bytes, str]], labels: list[int]) -> None:
    images = (LabelledImage(f"s{index:07d}", next(pictures)[0], label) for index, label in enumerate(labels))
    layout.write_zeroshot(directory, CLASS_NAMES, TEMPLATES, images)


def _counted(
    results: Iterator[tuple[bytes, str]], total: int, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[bytes, str]]:
    for done, result in enumerate(results, 1):
        if progress is not None:
            progress(done, total)
        yield result


def _counts(
    people: list[Persona], splits: Splits, rows: list[_PlannedRow], fragile: int, num_scenes: int, zeroshot_images: int
) -> dict[str, Any]:
    pairs = {split: sum(row.split == split for row in rows) for split in layout.SPLITS}
    pairs["sensitive"] = sum(pairs[split] for split in SENSITIVE_SPLITS)
    subsets = {subset: sum(row.subset == subset for row in rows) for subset in layout.SUBSETS}
    identities = {
        "all": len(people),
        "forget_identity": len(splits.forget_identity),
        "partial": len(splits.partial),
        "holdout_identity": len(splits.holdout_identity),
    }
    return {
        "identities": identities,
        "pairs": pairs,
        "subsets": {**subsets, "fragile": fragile},
        "retain": num_scenes,
        "zeroshot": zeroshot_images,
        "zeroshot_classes": len(CLASS_NAMES),
    }


def _digests(directory: Path) -> dict[str, str]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): files.sha256_file(path) for path in paths}


def _check_parameters(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or not RANGES[name].allow(value):
            raise InputError(f"is {value!r}; a whole number, {RANGES[name]}, would be right", f"world.{name}")
    fragile, disjoint = values["fragile"], values["retain_disjoint"]
    if fragile > disjoint:
        raise InputError(
            f"is {fragile:,}; at most world.retain_disjoint, {disjoint:,}, would be right", "world.fragile"
        )

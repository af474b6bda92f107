"""Building all datasets of a world."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines.builders.base import OrderedBuilder, quiet_tfds
from data_pipelines.builders.retain_pairs import RetainPairs
from data_pipelines.builders.salmu import Salmu
from data_pipelines.builders.source import CLASSES_FILE
from data_pipelines.builders.zeroshot import Zeroshot
from data_pipelines.layout import World, check_world
from salmu_jax import contents, files
from salmu_jax.errors import InputError


def build_datasets(
    world_dir: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    check: bool = True,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Writes the datasets ``salmu``, ``retain_pairs`` and ``zeroshot`` of a world below ``out_dir``, all or nothing.

    Args:
      world_dir: a directory in the released layout; without ``retain/`` or ``zeroshot/`` those datasets are absent.
      out_dir: becomes ``{dataset}/{version}/...``; what is there already is replaced.
      check: check the whole world first, decoding every image (``data_pipelines.layout.check_world``).
      progress: is called with one line for every step.

    Returns:
      ``{dataset: {"splits": {split: rows}, "digest": SHA-256 of its files}}``; equal worlds have equal digests.

    Raises:
      InputError: the world is not as it should be.
      OSError: ``out_dir`` cannot be written, or the disk is full. Nothing is left behind.
    """
    report = progress or (lambda line: None)
    world_dir, out_dir = Path(world_dir), Path(out_dir)
    if out_dir.resolve() == world_dir.resolve():
        raise InputError(
            "the datasets would replace the world that they are built from; another directory is needed", out_dir
        )
    if check:
        report(f"checking {world_dir}")
        check_world(world_dir)
    world = World(world_dir)
    builders: list[type[OrderedBuilder]] = [Salmu]
    if world.retain_tars:
        builders.append(RetainPairs)
    if world.zeroshot is not None:
        builders.append(Zeroshot)
    summary: dict[str, Any] = {}
    with files.new_directory(out_dir) as partial:
        for kind in builders:
            report(f"building {kind.name}")
            summary[kind.name] = _build(kind, world, partial)
        contents.write_contents(partial, "datasets")
    return summary


def _build(kind: type[OrderedBuilder], world: World, out_dir: Path) -> dict[str, Any]:
    with quiet_tfds():
        builder = kind(world=world, data_dir=os.fspath(out_dir))
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        downloads = out_dir / "downloads"  # nothing is downloaded, but TFDS makes the directory
        builder.download_and_prepare(
            download_dir=os.fspath(downloads), download_config=config, file_format="array_record"
        )
        shutil.rmtree(downloads)
    directory = Path(builder.data_dir)
    if kind is Zeroshot:
        classes = {"classnames": list(world.zeroshot.class_names), "templates": list(world.zeroshot.templates)}
        files.write_json(directory / CLASSES_FILE, classes)
    splits = {name: split.num_examples for name, split in builder.info.splits.items()}
    return {"splits": splits, "digest": files.sha256_tree(directory)}

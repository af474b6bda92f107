"""Builds all datasets of a world."""

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
from data_pipelines.layout import Checked, World, check_world
from salmu_jax.runtime import contents, files
from salmu_jax.runtime.directories import new_directory
from salmu_jax.runtime.errors import InputError


class Summary(dict[str, Any]):
    """``{dataset: {"splits": {split: rows}, "digest": SHA-256 of its files}}``; ``oddities`` are what the check let pass."""

    oddities: tuple[str, ...] = ()


def build_datasets(
    world_dir: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    zeroshot_dir: str | os.PathLike | None = None,
    check: bool = True,
    strict: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Summary:
    """Writes the datasets ``salmu``, ``retain_pairs`` and ``zeroshot`` of a world below ``out_dir``, all or nothing.

    Args:
      world_dir: a directory in the released layout. Without ``retain/`` or ``zeroshot/`` those datasets are absent;
        from the training repository, ``salmu`` has only the splits sensitive and retain_synth.
      out_dir: receives ``{dataset}/{version}/...``; previous contents are replaced.
      zeroshot_dir: the directory of the zero-shot set, if it is not in the world.
      check: check the whole world first, decoding every image (``data_pipelines.layout.check_world``).
      strict: also refuse harmless deviations.
      progress: called with a line per step.

    Returns:
      A summary of what was built; equal worlds have equal digests.

    Raises:
      InputError: the world is invalid.
      OSError: ``out_dir`` cannot be written, or the disk is full. Nothing is left behind.
    """
    report = progress or (lambda line: None)
    world_dir, out_dir = Path(world_dir), Path(out_dir)
    for source in filter(None, (world_dir, zeroshot_dir)):
        if Path(source).resolve().is_relative_to(out_dir.resolve()):
            message = f"the datasets would replace {source}, which they are built from; another directory is needed"
            raise InputError(message, out_dir)
    checked = Checked()
    if check:
        report(f"checking {world_dir}")
        checked = check_world(world_dir, zeroshot=zeroshot_dir, strict=strict, progress=report)
    world = World(world_dir, zeroshot_dir, left_out=checked.left_out)
    builders: list[type[OrderedBuilder]] = [Salmu]
    if world.retain_tars:
        builders.append(RetainPairs)
    if world.zeroshot is not None:
        builders.append(Zeroshot)
    summary = Summary()
    summary.oddities = checked.oddities
    with new_directory(out_dir) as partial:
        for kind in builders:
            report(f"building {kind.name}")
            summary[kind.name] = _build(kind, world, partial)
        written = contents.write_contents(partial, "datasets")
    digests = contents.data_digests(written)
    for name in summary:
        summary[name]["digest"] = digests[name]
    return summary


def _build(kind: type[OrderedBuilder], world: World, out_dir: Path) -> dict[str, Any]:
    with quiet_tfds():
        builder = kind(world=world, data_dir=os.fspath(out_dir))
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        downloads = out_dir / "downloads"  # TFDS creates the directory although it downloads nothing
        builder.download_and_prepare(
            download_dir=os.fspath(downloads), download_config=config, file_format="array_record"
        )
        shutil.rmtree(downloads)
    directory = Path(builder.data_dir)
    if kind is Zeroshot:
        classes = {"classnames": list(world.zeroshot.class_names), "templates": list(world.zeroshot.templates)}
        files.write_json(directory / CLASSES_FILE, classes)
    splits = {name: split.num_examples for name, split in builder.info.splits.items()}
    return {"splits": splits}

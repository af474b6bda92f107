"""Builds all datasets of a world."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines.builders.base import OrderedBuilder
from data_pipelines.builders.salmu import Salmu
from data_pipelines.builders.source import CLASSES_FILE
from data_pipelines.builders.zeroshot import Zeroshot
from data_pipelines.layout import Checked, World, check_world
from data_pipelines.layout.findings import Findings
from data_pipelines.records import quiet_tfds
from data_pipelines.retain.link import link_retain_pairs
from data_pipelines.retain.names import NAME, SPLIT
from data_pipelines.retain.world import build_from_world
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
    retain_dir: str | os.PathLike | None = None,
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
      retain_dir: a finished build of retain pairs (``data_pipelines.retain``), which is linked, not copied; the world's
        ``retain/`` is then not read. By default, that is built.
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
    for source in filter(None, (world_dir, zeroshot_dir, retain_dir)):
        if Path(source).resolve().is_relative_to(out_dir.resolve()):
            message = f"the datasets would replace {source}, which they are built from; another directory is needed"
            raise InputError(message, out_dir)
    checked = Checked()
    if check:
        report(f"checking {world_dir}")
        checked = check_world(world_dir, zeroshot=zeroshot_dir, retain=False, strict=strict, progress=report)
    world = World(world_dir, zeroshot_dir)
    summary, oddities = Summary(), [*checked.oddities]
    linked: dict[str, dict[str, Any]] = {}
    with new_directory(out_dir) as partial:
        report(f"building {Salmu.name}")
        summary[Salmu.name] = _build(Salmu, world, partial)
        tars = world.find_retain_tars(Findings())
        if retain_dir:
            report(f"linking {NAME} of {retain_dir}")
            pairs, linked = link_retain_pairs(Path(retain_dir), partial)
            summary[NAME] = {"splits": {SPLIT: pairs}}
            oddities += [f"{tars[0][0]} is not read: {retain_dir} takes its place"] if tars else []
        elif tars:
            report(f"building {NAME}")
            pairs, left_out = build_from_world(tars, partial)
            if strict:
                left_out.raise_oddities(world.directory)
            summary[NAME] = {"splits": {SPLIT: pairs}}
            oddities += left_out.oddities()
        if world.zeroshot is not None:
            report(f"building {Zeroshot.name}")
            summary[Zeroshot.name] = _build(Zeroshot, world, partial)
        written = contents.write_contents(partial, "datasets", known=linked)
    summary.oddities = tuple(oddities)
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

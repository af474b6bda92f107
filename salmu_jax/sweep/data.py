"""Writes the data sets of a validation world: nothing but rows of ``forget`` and retain data goes in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.builders.regroup import regroup
from salmu_jax.runtime import contents
from salmu_jax.runtime.directories import new_directory
from salmu_jax.sweep.division import Division
from salmu_jax.unlearning import view

RETAIN_SYNTH = view.PERMITTED_RETAIN[0]


def permitted(datasets: Path, retain: Sequence[str]) -> list[str]:
    """Returns the splits that a validation world is made of: forget, retain_synth, and those of ``retain`` that were built."""
    built = [split for split in retain if (datasets / split.split("/")[0]).is_dir()]
    return list(dict.fromkeys([view.FORGET, RETAIN_SYNTH, *built]))


def write_validation_data(datasets: Path, splits: Sequence[str], division: Division, output: Path) -> None:
    """Writes built data sets whose ``forget`` and holdouts are the division's, retain data being as they are.

    It works on a copy that holds ``splits`` (:func:`permitted`) alone, so no other file of ``datasets`` is opened.

    Raises InputError for a file that is not as ``build`` wrote it.
    """
    with new_directory(output) as partial:
        copy = partial / "permitted"
        view.place_splits(copy, datasets, splits)
        regroup(copy, partial, division.rows)
        for name in {split.split("/")[0] for split in splits} - {"salmu"}:
            os.replace(copy / name, partial / name)
        shutil.rmtree(copy)
        contents.write_contents(partial, "datasets")

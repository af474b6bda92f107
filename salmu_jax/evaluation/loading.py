"""Opens the evaluation's data from the built TFDS data sets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from data_pipelines.builders import open_source, read_classes
from salmu_jax.evaluation.data import SPLITS, EvaluationData
from salmu_jax.evaluation.pixels import Say


def load_evaluation_data(
    datasets_dir: str | os.PathLike,
    image_size: int,
    *,
    cache_decoded: bool | None = None,
    directories: Mapping[str, Path] | None = None,
    write_pixels: bool = True,
    made: bool | None = None,
    zeroshot_name: str = "zeroshot",
    say: Say = lambda line: None,
) -> EvaluationData:
    """Opens every split of ``salmu`` and, where it was built, the ``zeroshot`` task.

    Args:
      datasets_dir: as ``data_pipelines.builders.build_datasets`` writes it.
      image_size: of the models to be evaluated, pixels.
      cache_decoded, directories, write_pixels, made, say: see :meth:`EvaluationData.from_sources`.
      zeroshot_name: what the zero-shot task is called in the results.

    Raises InputError for a missing or damaged data set.
    """
    sources = {split: open_source(datasets_dir, "salmu", split) for split in SPLITS}
    zeroshot = None
    if (Path(datasets_dir) / "zeroshot").is_dir():
        names, templates = read_classes(datasets_dir)
        source = open_source(datasets_dir, "zeroshot", "test")
        zeroshot = {"source": source, "dataset": zeroshot_name, "classnames": names, "templates": templates}
    return EvaluationData.from_sources(
        sources,
        image_size,
        zeroshot=zeroshot,
        cache_decoded=cache_decoded,
        directories=directories,
        write_pixels=write_pixels,
        made=made,
        say=say,
    )

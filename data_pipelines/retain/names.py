"""Names the files of a build, below its directory.

Shards are called ``retain_pairs-train.array_record-00007``, in the order of the parts' paths. TFDS would call them
``...-00007-of-00040``, so that one more part would give all of them other names; it reads any template that
``dataset_info.json`` states.
"""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow_datasets as tfds

NAME, SPLIT, DATASET_VERSION = "retain_pairs", "train", "1.0.0"
FOLDER = f"{NAME}/{DATASET_VERSION}"
INFO = f"{FOLDER}/dataset_info.json"
FEATURES_FILE = f"{FOLDER}/features.json"
QUARANTINE = f"{FOLDER}/quarantine.jsonl"
REPORT = f"{FOLDER}/report.json"
PLAN = f"{NAME}-plan.json"
SEEN = f".{NAME}-seen.json"
SHARD_PREFIX = f"{FOLDER}/{NAME}-{SPLIT}."


def shard_template(directory: str | os.PathLike) -> tfds.core.ShardedFileTemplate:
    """Returns the template of the shards' names, for a data set whose files are in ``directory``."""
    return tfds.core.ShardedFileTemplate(
        data_dir=Path(directory),
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
        dataset_name=NAME,
        split=SPLIT,
        filetype_suffix="array_record",
    )


def shard_names(count: int) -> list[str]:
    """Returns the names of ``count`` shards below the directory of a build. From 100,000 on, all have six digits."""
    template = shard_template(".")
    return [f"{FOLDER}/{template.relative_filepath(shard_index=index, num_shards=count)}" for index in range(count)]

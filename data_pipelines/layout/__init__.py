"""Reads (``reader``, ``shards``), checks (``check``) and writes (``writer``) the released layout of SALMUBench."""

from data_pipelines.layout.check import Checked, check_world
from data_pipelines.layout.metadata import Association
from data_pipelines.layout.names import (
    CAPTIONS,
    DATA_FIELDS,
    FRAGILE_IDS,
    FRAGILE_SIMILARITIES,
    GENERIC_CAPTIONS,
    IDENTITIES,
    SENSITIVE_SPLITS,
    SPLITS,
    SUBSETS,
    TRAINING_SPLITS,
)
from data_pipelines.layout.parquet import Row
from data_pipelines.layout.places import find_root
from data_pipelines.layout.reader import World
from data_pipelines.layout.shards import LabelledImage, Pair, iter_tar_pairs, pair_members, write_tar
from data_pipelines.layout.writer import SplitWriter
from data_pipelines.layout.zeroshot import ZeroShot, read_zeroshot, write_zeroshot

__all__ = [
    "CAPTIONS",
    "DATA_FIELDS",
    "FRAGILE_IDS",
    "FRAGILE_SIMILARITIES",
    "GENERIC_CAPTIONS",
    "IDENTITIES",
    "SENSITIVE_SPLITS",
    "SPLITS",
    "SUBSETS",
    "TRAINING_SPLITS",
    "Association",
    "Checked",
    "LabelledImage",
    "Pair",
    "Row",
    "SplitWriter",
    "World",
    "ZeroShot",
    "check_world",
    "find_root",
    "iter_tar_pairs",
    "pair_members",
    "read_zeroshot",
    "write_tar",
    "write_zeroshot",
]

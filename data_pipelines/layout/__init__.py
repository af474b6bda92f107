"""The released layout of SALMUBench: read (``reader``, ``shards``), check (``check``) and write (``writer``)."""

from data_pipelines.layout.check import check_image, check_world
from data_pipelines.layout.reader import (
    CAPTIONS,
    DATA_FIELDS,
    FRAGILE_IDS,
    FRAGILE_SIMILARITIES,
    GENERIC_CAPTIONS,
    IDENTITIES,
    SENSITIVE_SPLITS,
    SPLITS,
    SUBSETS,
    Association,
    Row,
    World,
)
from data_pipelines.layout.shards import (
    LabelledImage,
    Pair,
    ZeroShot,
    iter_tar_pairs,
    pair_members,
    read_zeroshot,
    write_tar,
    write_zeroshot,
)
from data_pipelines.layout.writer import SplitWriter

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
    "Association",
    "LabelledImage",
    "Pair",
    "Row",
    "SplitWriter",
    "World",
    "ZeroShot",
    "check_image",
    "check_world",
    "iter_tar_pairs",
    "pair_members",
    "read_zeroshot",
    "write_tar",
    "write_zeroshot",
]

"""Builds the data set ``retain_pairs`` of any size from img2dataset's output, on one machine or on a cluster.

source.py     finds the parts below a source: tars, parquet files, or folders of files
samples.py    streams the samples of a part
rules.py      accepts, filters or quarantines a sample
shard.py      writes the accepted pairs of a part as one shard
work.py       makes one part: its shard and its record, unless both are there; knows nothing of what runs it
plan.py       what a build is asked for; compared with what an earlier run in the same place was asked for
carry.py      what a build with other parts keeps of the earlier one
finish.py     the shares of bad pairs, and the files that make the shards a TFDS data set
local.py      runs :mod:`work` over all parts, in processes of this machine
beam.py       runs :mod:`work` over all parts, as an Apache Beam pipeline
build.py      the entry
world.py      the entry for the tars in a world
names.py      how the files are called
places.py     directories on disks and in buckets
"""

from data_pipelines.retain.build import LOCAL, Summary, build_retain_pairs
from data_pipelines.retain.rules import Rules

__all__ = ["LOCAL", "Rules", "Summary", "build_retain_pairs"]

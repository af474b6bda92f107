"""Runs the step *splits*: the rows of all splits as parquet shards, and the JSON files of the layout.

    rows.jsonl                                   which portrait each row shows: {"split", "subset", "file_name", "source"}
    data/forget-00000-of-00008.parquet ...       as released; ``sensitive`` is the union of the first three splits
    identities_metadata.json, sensitive_set_captions_metadata.json, sensitive_set_generic_captions.json

A shard holds :data:`ROWS_A_FILE` rows, some 160 MB; each process has one in memory, with the portraits of one person.
"""

from __future__ import annotations

import collections
import functools
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines import steps
from data_pipelines.full.pairs import Plan, PlannedRow
from data_pipelines.layout import CAPTIONS, GENERIC_CAPTIONS, IDENTITIES, SPLITS
from data_pipelines.layout.parquet import SCHEMA
from data_pipelines.world.personas import Persona
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

STEP = "splits"
VERSION = 1
"""Incremented whenever the same inputs would give other files."""

ROWS_A_FILE = 4_000
ROWS_A_GROUP = 256
ROWS = "rows.jsonl"

FEATURES: dict[str, Any] = {
    "image": {"_type": "Image"},
    **{name: {"dtype": "string", "_type": "Value"} for name in ("text", "identity_id", "file_name")},
}
"""The columns as Hugging Face ``datasets`` describes them."""


class Images(Protocol):
    """Gives the portraits of an anchor, as :class:`data_pipelines.portraits.step.Images` does."""

    def portraits(self, number: int) -> Iterable[tuple[str, bytes, str]]:
        """Yields (file name, image, generic caption) of an anchor's portraits."""


def make_shards(
    directory: str | os.PathLike,
    plan: Plan,
    images: Images,
    people: Sequence[Persona],
    generic: Mapping[str, str],
    inputs: Mapping[str, Any],
    *,
    rows_a_file: int = ROWS_A_FILE,
    workers: int = 1,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Writes the files of the step, and ``report.json``, into ``directory``; returns the step's manifest.

    Args:
      directory: the step's own.
      plan: the rows.
      images: the portraits.
      people: of the data set.
      generic: {file name of a portrait: its generic caption}.
      inputs: what the plan and the portraits depend on, as JSON: seed, sizes, digests of steps.
      rows_a_file: of a shard.
      workers: processes that make shards.
      say: called with a line when files of an earlier run are not used, and with the progress.

    Raises InputError for a portrait that is not there.
    """
    rows = {**plan.rows, "sensitive": list(plan.sensitive())}
    settings = {**inputs, "rows_a_file": rows_a_file, "pyarrow": pa.__version__, "version": VERSION}
    about = _metadata(plan, people, generic)
    parts: dict[str, Callable[[], bytes]] = {name: functools.partial(_json, value) for name, value in about.items()}
    parts[ROWS] = functools.partial(_row_lines, [row for split in SPLITS for row in plan.rows[split]])
    names = {split: shard_names(split, len(rows[split]), rows_a_file) for split in rows}
    for split, of_split in names.items():
        for index, name in enumerate(of_split):
            some = rows[split][index * rows_a_file : (index + 1) * rows_a_file]
            parts[name] = functools.partial(_shard, some, images, {row.source: generic[row.source] for row in some})
    for leftover in files.find_partials(Path(directory) / "data"):
        files.remove_partial(leftover)
    report = functools.partial(distributions, plan)
    return steps.run_step(directory, STEP, settings, parts, report, workers=workers, say=say)


def shard_names(split: str, rows: int, rows_a_file: int = ROWS_A_FILE) -> list[str]:
    """Returns the paths of a split's files, below the world's directory."""
    count = max(1, -(-rows // rows_a_file))
    return [f"data/{split}-{index:05d}-of-{count:05d}.parquet" for index in range(count)]


class Held:
    """Holds the portraits of the anchor that was asked for last, since rows go by identity."""

    def __init__(self, images: Images):
        self._images, self._number = images, -1
        self._pictures: dict[str, bytes] = {}

    def image(self, row: PlannedRow) -> bytes:
        """Returns the portrait of a row. Raises InputError for one that is not there."""
        if row.number != self._number:
            self._pictures = {name: image for name, image, _ in self._images.portraits(row.number)}
            self._number = row.number
        if row.source not in self._pictures:
            raise InputError(f"no portrait {row.source!r}; make the portraits again", f"anchor {row.number:08d}")
        return self._pictures[row.source]


def _shard(rows: Sequence[PlannedRow], images: Images, generic: Mapping[str, str]) -> bytes:
    """Returns a parquet file. Its pages have checksums, so that a flipped bit is found."""
    album = Held(images)
    schema = SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    out = io.BytesIO()
    with pq.ParquetWriter(out, schema, compression="none", use_dictionary=False, write_page_checksum=True) as writer:
        for first in range(0, len(rows), ROWS_A_GROUP):
            entries = [_entry(row, album.image(row), generic) for row in rows[first : first + ROWS_A_GROUP]]
            writer.write_table(pa.Table.from_pylist(entries, schema=schema))
    return out.getvalue()


def _entry(row: PlannedRow, image: bytes, generic: Mapping[str, str]) -> dict[str, Any]:
    return {
        "image": {"bytes": image, "path": row.file_name},
        "text": generic[row.source] if row.caption is None else row.caption,
        "identity_id": row.identity_id,
        "file_name": row.file_name,
    }


def _metadata(plan: Plan, people: Sequence[Persona], generic: Mapping[str, str]) -> dict[str, Any]:
    rows = list(plan.sensitive())
    return {
        IDENTITIES: {person.identity_id: person.metadata() for person in people},
        CAPTIONS: {row.file_name: {"caption": row.caption, "data_field": row.data_field} for row in rows},
        GENERIC_CAPTIONS: {row.file_name: generic[row.source] for row in rows},
    }


def _json(value: Any) -> bytes:
    return f"{json.dumps(value, indent=1, ensure_ascii=False)}\n".encode()


def _row_lines(rows: Sequence[PlannedRow]) -> bytes:
    return steps.jsonl(
        [{"split": row.split, "subset": row.subset, "file_name": row.file_name, "source": row.source} for row in rows]
    )


def distributions(plan: Plan) -> dict[str, Any]:
    """Returns counts of a plan, as JSON: what ``world.json`` records, and how pairs are distributed."""
    rows = [row for split in SPLITS for row in plan.rows[split]]
    pairs = {split: len(plan.rows[split]) for split in SPLITS}
    pairs["sensitive"] = sum(1 for _ in plan.sensitive())
    subsets = collections.Counter(row.subset for row in rows)
    associations: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for row in plan.sensitive():
        associations[row.subset][row.identity_id, row.data_field] += 1
    splits = plan.splits
    return {
        "identities": {
            "all": len(splits.forget) + len(splits.holdout_identity),
            "forget": len(splits.forget),
            "forget_identity": len(splits.forget_identity),
            "partial": len(splits.partial),
            "holdout_identity": len(splits.holdout_identity),
        },
        "pairs": pairs,
        "subsets": dict(sorted(subsets.items())),
        "pairs_an_association": {subset: _spread(found.values()) for subset, found in sorted(associations.items())},
        "pairs_a_person": _spread(collections.Counter(row.identity_id for row in plan.sensitive()).values()),
        "reused_portraits": plan.reused,
        "anchors_of_retain_disjoint": len({row.number for row in rows if row.subset == "retain_disjoint"}),
    }


def _spread(counts: Iterable[int]) -> dict[str, float]:
    found = list(counts)
    return {"of": len(found), "least": min(found), "mean": round(sum(found) / len(found), 2), "most": max(found)}

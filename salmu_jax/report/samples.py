"""Chooses the people and pictures that the page shows.

The row scores say whose each row is, so that only the images that are shown are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.builders import open_source
from salmu_jax.evaluation.rows import SUBSETS, TARGETS
from salmu_jax.runtime.errors import InputError

SHOTS_A_PERSON = 4
RETAIN_PICTURES = 6
SCENES = 6

_Subsets = dict[str, list[tuple[str, int, int]]]  # subset -> (split, row, data field) of a person's rows


def sample_pictures(
    datasets_dir: str | os.PathLike, rows: Mapping[str, np.ndarray], *, people: int
) -> list[dict[str, Any]]:
    """Returns the first identities of each kind with a few of their pairs, and the first retain pictures, as
    ``write_report`` wants.

    Args:
      datasets_dir: the built data sets.
      rows: the row scores of a result that was measured on them.
      people: shared among those to be forgotten wholly, in part, and not at all.

    Raises InputError if the data are not there, or have other rows than were measured.
    """
    sources = {split: open_source(datasets_dir, "salmu", split) for split in (*TARGETS, "retain_synth")}
    for split, source in sources.items():
        measured = len(rows[f"{split}.subset"])
        if len(source) != measured:
            raise InputError(
                f"salmu/{split} has {len(source):,} rows, the results were measured on {measured:,}: evaluate again",
                datasets_dir,
            )
    samples = [sample for person in _chosen(_by_identity(rows), people) for sample in _person(person, sources)]
    disjoint = np.flatnonzero(rows["retain_synth.subset"] == SUBSETS.index("retain_disjoint"))[:RETAIN_PICTURES]
    samples += [_picture("retain_synth", row) for row in sources["retain_synth"].read(disjoint.tolist())]
    if (Path(datasets_dir) / "retain_pairs").is_dir():
        base = open_source(datasets_dir, "retain_pairs", "train")
        samples += [_picture("retain base", row) for row in base.read(range(min(SCENES, len(base))))]
    return samples


def _by_identity(rows: Mapping[str, np.ndarray]) -> dict[int, _Subsets]:
    """Returns each identity's rows, by subset, in the order of the splits."""
    found: dict[int, _Subsets] = {}
    for split in TARGETS:
        columns = (rows[f"{split}.{name}"].tolist() for name in ("identity", "subset", "data_field"))
        for row, (identity, subset, field) in enumerate(zip(*columns, strict=True)):
            if subset >= 0:
                found.setdefault(identity, {}).setdefault(SUBSETS[subset], []).append((split, row, field))
    return found


def _chosen(by_identity: Mapping[int, _Subsets], people: int) -> list[_Subsets]:
    """Identities of the three kinds in turn, until there are ``people``."""
    kinds: list[list[_Subsets]] = [[], [], []]
    for identity in sorted(by_identity):
        subsets = by_identity[identity]
        kinds[0 if "forget_identity" in subsets else 2 if "holdout_identity" in subsets else 1].append(subsets)
    turns = [kind[turn] for turn in range(people) for kind in kinds if turn < len(kind)]
    return turns[:people]


def _person(subsets: _Subsets, sources: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Returns one sample per subset, with pairs about different attributes where there are any."""
    share = max(1, SHOTS_A_PERSON // len(subsets))
    for subset, places in subsets.items():
        chosen = list({field: (split, row) for split, row, field in reversed(places)}.values())[-share:]
        shown = [sources[split][row] for split, row in chosen]
        yield {
            "subset": subset,
            "identity_id": shown[0]["identity_id"],
            "name": shown[0]["name"],
            "captions": [row["text"] for row in shown],
            "images": [row["image"] for row in shown],
        }


def _picture(subset: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"subset": subset, "caption": row["text"], "image": row["image"]}

"""Which people and pictures of the data the page shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.builders import open_source

SHOTS_A_PERSON = 4
RETAIN_PICTURES = 6
SCENES = 6

_SPLITS = ("forget", "holdout_association", "holdout_identity")


def sample_pictures(datasets_dir: str | os.PathLike, *, people: int) -> list[dict[str, Any]]:
    """The first identities of each kind with a few of their pairs, and the first retain pictures, as ``write_report`` wants.

    ``people`` is shared among those to be forgotten wholly, in part, and not at all.
    """
    by_identity: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for split in _SPLITS:
        for row in open_source(datasets_dir, "salmu", split):
            by_identity.setdefault(row["identity_id"], {}).setdefault(row["subset"], []).append(row)
    samples = [sample for person in _chosen(by_identity, people) for sample in _person(person)]
    retain = open_source(datasets_dir, "salmu", "retain_synth")
    disjoint = [index for index in range(len(retain)) if retain[index]["subset"] == "retain_disjoint"][:RETAIN_PICTURES]
    samples += [_picture("retain_synth", retain[index]) for index in disjoint]
    if (Path(datasets_dir) / "retain_pairs").is_dir():
        base = open_source(datasets_dir, "retain_pairs", "train")
        samples += [_picture("retain base", base[index]) for index in range(min(SCENES, len(base)))]
    return samples


def _chosen(by_identity: dict[str, dict[str, list]], people: int) -> list[dict[str, list]]:
    """Identities of the three kinds in turn, until there are ``people``."""
    kinds: list[list[dict[str, list]]] = [[], [], []]
    for identity in sorted(by_identity):
        subsets = by_identity[identity]
        kinds[0 if "forget_identity" in subsets else 2 if "holdout_identity" in subsets else 1].append(subsets)
    turns = [kind[turn] for turn in range(people) for kind in kinds if turn < len(kind)]
    return turns[:people]


def _person(subsets: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """One sample a subset, its pairs about different attributes where there are any."""
    share = max(1, SHOTS_A_PERSON // len(subsets))
    for subset, rows in subsets.items():
        shown = list({row["data_field"]: row for row in reversed(rows)}.values())[-share:]
        yield {
            "subset": subset,
            "identity_id": rows[0]["identity_id"],
            "name": rows[0]["name"],
            "captions": [row["text"] for row in shown],
            "images": [row["image"] for row in shown],
        }


def _picture(subset: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"subset": subset, "caption": row["text"], "image": row["image"]}

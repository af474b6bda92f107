"""Runs the step *curation* and reads what the splits need of it: who is kept, who resembles them, and embeddings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines import steps
from data_pipelines.curation import embedding, step
from data_pipelines.curation.measures import centre, mistaken, own_similarities
from data_pipelines.curation.step import Kept
from data_pipelines.full.fragile import Judge
from data_pipelines.full.pairs import PlannedRow
from data_pipelines.portraits.step import Images
from salmu_jax.runtime import files

STEP = step.STEP
curate = step.curate

_RULE = (
    "those that resemble their own person least: the embedding of curation's encoder has the lowest cosine similarity to the"
    " mean of the person's other portraits. The release ranks by a model of the benchmark; `--fragile-model` does so."
)


class Curated(NamedTuple):
    """A finished curation.

    Attributes:
      kept: who is in the data set, with the portraits that are.
      twins: {number of a dropped anchor that curation would not tell from somebody who is kept: the share of its portraits
        that are nearer to that person}.
      judge: what the fragile set is constructed with.
    """

    kept: Sequence[Kept]
    twins: Mapping[int, float]
    judge: Judge


def read_curated(directory: str | os.PathLike, images: Images) -> Curated:
    """Reads a finished step. Raises InputError for one that is not finished or was changed."""
    directory = Path(directory)
    kept = step.read_curated(directory)
    measured = files.read_json(directory / steps.REPORT)["standard"]["thresholds"]["distinctness"]
    embedded = dict(
        zip(
            (anchor.number for anchor in images.anchors),
            embedding.read_embeddings(directory / "embeddings"),
            strict=True,
        )
    )
    centres = np.stack([centre(_chosen(embedded[one.anchor.number], one.files)) for one in kept])
    known = {one.anchor.number for one in kept}
    shares = {
        number: float(mistaken(portraits.vectors, centres).max())
        for number, portraits in embedded.items()
        if number not in known
    }
    twins = {number: share for number, share in shares.items() if share > measured}

    def similarities(rows: Sequence[PlannedRow]) -> np.ndarray:
        found: dict[str, float] = {}
        for number in {row.number for row in rows}:
            portraits = embedded[number]
            found |= zip(portraits.names, own_similarities(portraits.vectors).tolist(), strict=True)
        return np.array([found[row.source] for row in rows])

    digest = steps.step_digest(directory / "embeddings", embedding.STEP)
    return Curated(kept, twins, Judge(_RULE, digest, similarities))


def _chosen(portraits: embedding.Embedded, names: Sequence[str]) -> np.ndarray:
    wanted = set(names)
    return portraits.vectors[[name in wanted for name in portraits.names]]

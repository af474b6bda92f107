"""The sensitive rows of a made world with pictures of a few pixels: for what depends on names, values and captions."""

from __future__ import annotations

import numpy as np
import tiny_world

from data_pipelines.world import generate
from data_pipelines.world.personas import make_personas
from data_pipelines.world.splits import make_splits
from salmu_jax.evaluation.data import EvaluationData


def made_people(identities: int = 96, pairs: int = 3, seed: int = 42) -> EvaluationData:
    """Returns the sensitive splits of a made world, as its generator writes them; the other parts are ``tiny_world``'s."""
    rng = np.random.default_rng(7)
    people, sources = make_personas(seed, identities), tiny_world.tiny_sources(3)
    for split in ("forget", "holdout_association", "holdout_identity"):
        sources[split].clear()
    for row in generate._sensitive_rows(seed, people, make_splits(seed, identities), pairs):
        persona = people[int(row.identity_id)]
        sources[row.split].append(
            {
                "image": rng.integers(0, 256, (tiny_world.SIZE, tiny_world.SIZE, 3), dtype=np.uint8).tobytes(),
                "text": row.caption,
                "generic_caption": "a portrait",
                "name": persona.name,
                "value": persona.value(row.data_field),
                "identity_id": row.identity_id,
                "data_field": row.data_field,
                "subset": row.subset,
                "file_name": row.file_name,
                "fragile": 0,
            }
        )
    return EvaluationData.from_sources(
        sources, tiny_world.SIZE, zeroshot=tiny_world.tiny_zeroshot(), decode=tiny_world.decode, made=True
    )

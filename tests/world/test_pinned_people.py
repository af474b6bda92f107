"""The people and captions of the small worlds, whose results are published, do not change with the full-size data set's."""

from __future__ import annotations

import hashlib

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.world.captions import NUM_VARIANTS, sensitive_caption
from data_pipelines.world.personas import make_personas


def test_the_mini_worlds_people_and_captions_are_the_published_ones():
    people = make_personas(42, 96)
    captions = (
        sensitive_caption(person, field, variant)
        for person in people
        for field in DATA_FIELDS
        for variant in range(NUM_VARIANTS)
    )
    text = "\n".join(["\n".join(map(repr, people)), *captions])
    # of the faker that requirements.lock names: its lists of names and jobs
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "3c509a68b41cce5c1bdd2b9dd6c7c776ad41f5ff12c6c5825d3fb5e204389db8"
    )

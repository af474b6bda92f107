"""A whole data set of 24 people, made once, with portraits of noise and a curation that keeps the first 24 anchors."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from noise_portraits import NoiseSource

from data_pipelines import steps
from data_pipelines.curation.step import Kept
from data_pipelines.full import curated
from data_pipelines.full import generate as generate_lib
from data_pipelines.full.curated import Curated
from data_pipelines.full.fragile import Judge
from data_pipelines.full.sizes import sizes_of
from data_pipelines.portraits.step import read_images

PEOPLE = 24


def fake_curate(directory, images, *, keep, seed, encoder, reference, workers, say):
    there = read_images(images)
    kept = [
        {"number": anchor.number, "files": [one.file_name for one in there.portraits(anchor.number)][3:]}
        for anchor in there.anchors[:keep]
    ]
    settings = {"images": steps.step_digest(images, "images"), "keep": keep, "seed": seed}
    steps.run_step(directory, curated.STEP, settings, {"kept.jsonl": lambda: steps.jsonl(kept)}, dict, say=say)


def similarities(rows):
    return np.array([hash_of(row.source) for row in rows])


def hash_of(name):
    return sum(name.encode()) % 97 / 97


def fake_read(directory, images):
    entries = [entry for _, entry in steps.step_lines(directory, curated.STEP)]
    kept = [Kept(images.anchors[entry["number"]], tuple(entry["files"])) for entry in entries]
    return Curated(kept, {30: 0.95}, Judge("a number of each name stands for the similarity.", "fake", similarities))


@contextlib.contextmanager
def faked_curation():
    """For as long as a data set is made, and no longer: other tests of the same process curate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curated, "curate", fake_curate)
        patch.setattr(curated, "read_curated", fake_read)
        yield


@pytest.fixture
def patched_curation():
    with faked_curation():
        yield


@pytest.fixture(scope="session")
def generate():
    """A function that makes the data set in a work directory, or goes on with it, and returns (world.json, lines said)."""

    def make(workdir, say=None, **changes):
        said = []
        fields = {"seed": 3, "sizes": sizes_of(PEOPLE, 32), "variants": 10, "workers": 1, **changes}
        source = fields.pop("source", NoiseSource(32))
        judge = fields.pop("judge", None)
        with faked_curation():
            made = generate_lib.generate_full(
                workdir, workdir / "world", source, generate_lib.Options(**fields), judge=judge, say=say or said.append
            )
        return made, said

    return make


@pytest.fixture(scope="session")
def made(generate, tmp_path_factory):
    """The work directory of a finished data set, and its world.json."""
    workdir = tmp_path_factory.mktemp("full")
    return workdir, generate(workdir)[0]

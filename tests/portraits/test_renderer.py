"""The renderer: identities can be told apart and known again, faults are to be seen, captions say nothing of anybody."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.people.people import drawn_looks, make_people
from data_pipelines.phrasing.step import make_generic_captions
from data_pipelines.portraits import procedural
from data_pipelines.portraits.faults import NO_FAULTS, duplicates_of, fault_of
from data_pipelines.portraits.looks import make_look
from data_pipelines.portraits.procedural import ProceduralSource
from data_pipelines.portraits.renderer import render
from data_pipelines.portraits.views import make_view
from data_pipelines.world.faces import REGIONS

PLAIN = ProceduralSource(seed=8, identities=12, shares=NO_FAULTS)


def colours(portrait, side: int = 8) -> np.ndarray:
    """The colours of a portrait's centre, where the face is, nearly independent of the light; [3 * side * side]."""
    with Image.open(io.BytesIO(portrait.image)) as image:
        half = min(image.size) / 2
        x, y = image.width / 2, image.height / 2 - 0.08 * half
        box = (x - 0.35 * half, y - 0.5 * half, x + 0.35 * half, y + 0.35 * half)
        pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BOX, box=box), np.float32)
    red, green, blue = np.moveaxis(np.log(pixels + 8), 2, 0)
    bright = (red + green + blue) / 3
    return np.stack([red - green, green - blue, 0.3 * (bright - bright.mean())]).ravel()


def distances(portraits) -> np.ndarray:
    shown = np.stack([colours(portrait) for portrait in portraits])
    return ((shown[:, None] - shown[None]) ** 2).mean(axis=2)


def test_the_nearest_portrait_is_of_the_same_identity():
    """By the colours of the face alone; an encoder that is trained does far better."""
    apart = distances([PLAIN.portrait(number, index) for number in range(7) for index in range(4)])
    np.fill_diagonal(apart, np.inf)
    labels = np.repeat(np.arange(7), 4)
    assert (labels[apart.argmin(axis=1)] == labels).mean() > 0.7  # by chance it is 0.11


def test_faults_can_be_seen():
    source = ProceduralSource(seed=8, identities=100, longest_side=128)
    kinds = {fault_of(8, number, 100, source.shares).kind: number for number in range(100)}
    shown = {
        kind: [source.portrait(number, index) for index in range(6)]
        for kind, number in kinds.items()
        if kind != "intruded"
    }
    spread = {kind: np.median(distances(portraits)) for kind, portraits in shown.items()}
    assert spread["drifting"] > spread["none"]
    other = fault_of(8, kinds["twin"], 100, source.shares).other
    assert other is not None
    likeness = [source.portrait(other, index) for index in range(6)]
    to_twin, to_stranger = (distances([*likeness, *shown[kind]])[:6, 6:].mean() for kind in ("twin", "misannotated"))
    assert to_twin < to_stranger


def test_a_near_duplicate_is_nearly_the_same_picture():
    source = ProceduralSource(seed=8, identities=12)
    index, original = next(iter(duplicates_of(8, 3, source.count(3), source.shares).items()))
    apart = distances([source.portrait(3, place) for place in (index, original, (index + 1) % source.count(3))])
    assert apart[0, 1] < 0.1 * apart[0, 2]
    assert source.portrait(3, index).image != source.portrait(3, original).image


def test_captions_pass_the_checks_of_generic_captions(tmp_path, monkeypatch):
    monkeypatch.setattr(procedural, "render", lambda *given, **named: Image.new("RGB", (16, 16)))
    source = ProceduralSource(seed=8, identities=50)
    captions = {f"{n}_{i}": source.portrait(n, i).caption for n in range(50) for i in range(8)}
    people = make_people(8, drawn_looks(8, range(40)))
    report = make_generic_captions(tmp_path / "generic", captions.items(), people, say=lambda line: None)
    assert report["pictures"] == 400
    assert report["distinct"] > 380
    assert report["most_tokens"] < 60


@pytest.mark.parametrize("region", REGIONS)
def test_every_region_age_and_gender_can_be_drawn(region):
    for number, (gender, age) in enumerate((("female", "old"), ("male", "middle-aged"))):
        look = make_look((number, 5), region, gender, age)
        image = render(look, make_view(np.random.default_rng(number)), longest_side=128, aspect_ratio=0.67)
        assert image.size == (86, 128)
        assert np.asarray(image).std() > 10

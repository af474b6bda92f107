"""A small world in the released layout, with pictures of noise: enough to be read, built and fed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import layout


def picture(seed: int, side: int = 24) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3))
    pixels = np.kron(blocks, np.ones((side // 6, side // 6, 1))).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG" if seed % 3 else "JPEG")
    return buffer.getvalue()


def _make_world(directory: Path, *, retain: int = 37, zeroshot: int = 11, broken: str | None = None) -> Path:
    """Four people with nine pairs each (one wholly held out, two partly), 13 other portraits, tars and a test set.

    ``broken`` is the file name or key of an image to damage.
    """
    directory.mkdir(parents=True)
    identities, captions, generic = {}, {}, {}
    rows: dict[str, list] = {split: [] for split in layout.SPLITS}

    def image(name: str, seed: int) -> bytes:
        return b"\xff\xd8 no JPEG" if name == broken else picture(seed)

    for person in range(4):
        identity = f"{person:08d}"
        identities[identity] = {field: f"{field} {person} é" for field in layout.DATA_FIELDS}
        identities[identity]["emails"] = [f"first{person}@example.org", f"second{person}@example.org"]
        for number, field in enumerate(layout.DATA_FIELDS):
            name = f"{identity}_{number:03d}_ar-1.00.jpg"
            value = identities[identity][field]
            value = value[1] if field == "emails" else value
            captions[name] = {"caption": f"{field} of {person} is {value}", "data_field": field}
            generic[name] = f"a picture of somebody, {person} {number}"
            split = ("holdout_identity", "forget")[person > 0]
            if person > 1 and number % 2:
                split = "holdout_association"
            rows[split].append((image(name, 100 * person + number), captions[name]["caption"], identity, name))
    for number in range(13):
        name = f"other_{number:03d}.jpg"
        rows["retain_synth"].append(
            (image(name, 1000 + number), f"a person {number}", None if number % 4 else "00000001", name)
        )
    for split, entries in rows.items():
        with layout.SplitWriter(directory, split, len(entries), rows_a_file=10) as writer:
            for entry in entries:
                writer.add(*entry)
    fragile = ["other_001.jpg", "other_003.jpg"]
    for name, value in (
        (layout.IDENTITIES, identities),
        (layout.CAPTIONS, captions),
        (layout.GENERIC_CAPTIONS, generic),
        (layout.FRAGILE_IDS, fragile),
        (layout.FRAGILE_SIMILARITIES, {}),
    ):
        (directory / name).write_text(json.dumps(value))
    if retain:
        (directory / "retain").mkdir()
        for tar, keys in enumerate((range(retain // 2), range(retain // 2, retain))):
            pairs = [layout.Pair(f"{k:09d}", image(f"{k:09d}", 2000 + k), f"shape number {k}") for k in keys]
            members = [member for pair in pairs for member in layout.pair_members(pair)]
            layout.write_tar(directory / "retain" / f"{tar:05d}.tar", members)
    if zeroshot:
        images = [layout.LabelledImage(f"{k:06d}", picture(3000 + k), k % 3) for k in range(zeroshot)]
        layout.write_zeroshot(directory / "zeroshot", ["cat", "dog", "owl"], ["a {c}", "the {c}."], images)
    return directory


@pytest.fixture(scope="session")
def make_world():
    """The function ``make_world(directory, *, retain=37, zeroshot=11, broken=None) -> directory``."""
    return _make_world

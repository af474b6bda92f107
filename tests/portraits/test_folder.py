"""A folder of portraits: images that fit are kept byte for byte, and every fault is named with its file and field."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.portraits.folder import FolderSource
from data_pipelines.portraits.source import Anchor
from data_pipelines.portraits.step import make_images, read_images
from salmu_jax.runtime.errors import InputError


def encoded(width: int, height: int, form: str = "JPEG", **options) -> bytes:
    pixels = np.random.default_rng([width, height]).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


OLD = {"region": "europe", "gender": "female", "age": "old"}
YOUNG = {"region": "africa", "gender": "male", "age": "young"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two identities: one with a caption for its first portrait."""
    images = {"7/a.jpg": encoded(40, 60), "7/b.png": encoded(64, 48, "PNG"), "12/c.jpeg": encoded(50, 50)}
    for name, data in images.items():
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    annotate(tmp_path / "made", {"7": {**OLD, "captions": {"a.jpg": "an old woman by the sea"}}, "12": YOUNG})
    return tmp_path / "made"


def annotate(folder: Path, entries: object) -> None:
    (folder / "annotations.json").write_text(json.dumps(entries))


def test_images_that_fit_are_kept_byte_for_byte(folder):
    source = pickle.loads(pickle.dumps(FolderSource(folder)))
    assert source.anchors() == [Anchor(7, "europe", "female", "old"), Anchor(12, "africa", "male", "young")]
    assert [source.count(7), source.count(12)] == [2, 1]
    first, second = source.portrait(7, 0), source.portrait(7, 1)
    assert first == ((folder / "7/a.jpg").read_bytes(), 40 / 60, "an old woman by the sea")
    assert second[:2] == ((folder / "7/b.png").read_bytes(), 64 / 48)
    assert "woman" in second.caption or "lady" in second.caption


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (encoded(1024, 512), (512, 256)),
        (encoded(300, 900, "PNG"), (171, 512)),
        (encoded(100, 50, "WEBP"), (100, 50)),
        (
            encoded(80, 40, exif=bytes.fromhex("45786966000049492a0008000000010012010300010000000600000000000000")),
            (40, 80),
        ),
    ],
)
def test_other_images_become_jpegs_of_the_right_size(folder, data, size):
    (folder / "7/a.jpg").write_bytes(data)
    portrait = FolderSource(folder).portrait(7, 0)
    image = Image.open(io.BytesIO(portrait.image))
    assert (image.format, image.size) == ("JPEG", size)
    assert portrait.aspect_ratio == size[0] / size[1]


def test_names_that_are_not_numbers_are_numbered(folder):
    (folder / "12").rename(folder / "SFHQ_12")
    annotate(folder, {"7": OLD, "SFHQ_12": YOUNG})
    assert [anchor.number for anchor in FolderSource(folder).anchors()] == [0, 1]


def test_settings_change_with_any_byte(folder):
    before = FolderSource(folder).settings
    assert FolderSource(folder).settings == before
    (folder / "12/c.jpeg").write_bytes(encoded(50, 51))
    assert FolderSource(folder).settings["sha256"] != before["sha256"]


def test_the_step_takes_a_folder(folder, tmp_path):
    make_images(tmp_path / "images", FolderSource(folder), workers=1)
    names = [portrait.file_name for portrait in read_images(tmp_path / "images").portraits(7)]
    assert names == ["00000007_000_ar-0.67.jpg", "00000007_001_ar-1.33.png"]


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([], "annotations.json: not a JSON object of identities"),
        ({"7": OLD}, "12: is not in annotations.json"),
        ({"7": OLD, "12": YOUNG, "13": OLD}, "13: no such folder, but annotations.json has this identity"),
        ({"7": OLD, "12": YOUNG, "07": OLD}, "identity '7': is identity 7, as '07' is"),
        ({"7": OLD, "12": []}, "annotations.json identity '12': not a JSON object with region, gender, age"),
        ({"7": OLD, "12": {**YOUNG, "age": "older"}}, "identity '12' field 'age': is 'older'; one of young, middle"),
        ({"7": OLD, "12": {**YOUNG, "gender": ["male"]}}, "identity '12' field 'gender': is \"['male']\"; one of female"),
        ({"7": OLD, "12": {"region": "africa", "age": "old"}}, "identity '12' field 'gender': is missing"),
        ({"7": OLD, "12": {**YOUNG, "name": "x"}}, "identity '12' field 'name': is unknown"),
        ({"7": OLD, "12": {**YOUNG, "captions": []}}, "identity '12' field 'captions': not a JSON object"),
        ({"7": OLD, "12": {**YOUNG, "captions": {"d.jpg": "a man"}}}, "file 'd.jpg': there is no such image"),
        ({"7": OLD, "12": {**YOUNG, "captions": {"c.jpeg": "a  man"}}}, "file 'c.jpeg': is not a text with single spaces"),
        ({"7": OLD, "12": {**YOUNG, "captions": {"c.jpeg": 5}}}, "file 'c.jpeg': is not a text"),
        ({"7": OLD, "12": {**YOUNG, "captions": {"c.jpeg": "a\x01man"}}}, "file 'c.jpeg': contains the control character"),
    ],
)  # fmt: skip
def test_a_fault_names_file_and_field(folder, entries, says):
    annotate(folder, entries)
    with pytest.raises(InputError) as raised:
        FolderSource(folder)
    assert says in str(raised.value)


def test_all_faults_are_named_at_once(folder):
    annotate(folder, {"7": {**OLD, "age": 5}, "12": {**YOUNG, "region": "mars"}, "99": OLD})
    with pytest.raises(InputError) as raised:
        FolderSource(folder)
    for part in ("3 problems", "identity '7' field 'age'", "identity '12' field 'region'", "99: no such folder"):
        assert part in str(raised.value)


def test_a_folder_without_images_or_annotations_is_named(folder):
    (folder / "12/c.jpeg").rename(folder / "12/c.txt")
    with pytest.raises(InputError, match="12: has 0 images"):
        FolderSource(folder)
    (folder / "annotations.json").unlink()
    with pytest.raises(InputError, match=r"annotations\.json: no such file"):
        FolderSource(folder)


@pytest.mark.parametrize("data", [b"", b"nothing", encoded(60, 60)[:900], encoded(200, 20)])
def test_a_bad_image_is_named(folder, data):
    (folder / "12/c.jpeg").write_bytes(data)
    with pytest.raises(InputError, match=r"12/c\.jpeg: "):
        FolderSource(folder).portrait(12, 0)

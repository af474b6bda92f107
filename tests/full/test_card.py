"""The data card and the Croissant description: structure here, and loaded by their own libraries where these are installed."""

from __future__ import annotations

import importlib.util
import itertools
import json

import pytest
import yaml

from data_pipelines.layout import World
from salmu_jax.runtime import files

SPLITS = ("forget", "holdout_association", "holdout_identity", "retain_synth", "sensitive")


@pytest.fixture(scope="module")
def world(made):
    return made[0] / "world"


def needs(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


def test_the_head_of_the_card_lists_splits_columns_and_counts(world, made):
    _, head, text = (world / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(head)
    assert about["license"] == "cc-by-4.0"
    (config,) = about["configs"]
    assert config["data_files"] == [{"split": split, "path": f"data/{split}-*.parquet"} for split in SPLITS]
    counts = made[1]["counts"]["pairs"]
    for entry in about["dataset_info"]["splits"]:
        assert entry["num_examples"] == counts[entry["name"]]
        assert entry["num_bytes"] == sum(path.stat().st_size for path in (world / "data").glob(f"{entry['name']}-*"))
    assert [entry["name"] for entry in about["dataset_info"]["features"]] == [
        "image",
        "text",
        "identity_id",
        "file_name",
    ]
    for heading in ("Splits", "How it was made", "Distributions", "Intended use", "Limits", "Licence"):
        assert f"\n## {heading}\n" in text


def test_the_description_names_every_file_with_its_size_and_digest(world, made):
    described = json.loads((world / "croissant.json").read_text())
    objects = {one["@id"]: one for one in described["distribution"] if one["@type"] == "cr:FileObject"}
    assert set(objects) == set(made[1]["digests"]) - {"croissant.json"}
    for name, one in objects.items():
        assert one["sha256"] == files.sha256_file(world / name)
        assert one["contentSize"] == f"{(world / name).stat().st_size} B"
    sets = {one["@id"]: one["includes"] for one in described["distribution"] if one["@type"] == "cr:FileSet"}
    assert sets == {f"{split}-files": f"data/{split}-*.parquet" for split in SPLITS}
    assert [one["@id"] for one in described["recordSet"]] == list(SPLITS)
    for one in described["recordSet"]:
        assert {field["source"]["fileSet"]["@id"] for field in one["field"]} == {f"{one['@id']}-files"}


@needs("mlcroissant")
def test_mlcroissant_validates_it_and_reads_the_rows(world):
    import mlcroissant

    dataset = mlcroissant.Dataset(jsonld=world / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    rows = [row.file_name for row in World(world).rows("retain_synth", images=False)]
    found = itertools.islice(dataset.records(record_set="retain_synth"), len(rows) + 1)
    assert [one["retain_synth/file_name"].decode() for one in found] == rows


@needs("datasets")
def test_datasets_loads_it_as_the_released_one(world, tmp_path):
    import datasets

    loaded = datasets.load_dataset(str(world), cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in loaded.items()} == {
        split: World(world).num_rows(split) for split in SPLITS
    }
    assert isinstance(loaded["forget"].features["image"], datasets.Image)
    first = next(iter(World(world).rows("forget", images=False)))
    assert loaded["forget"][0]["text"] == first.text
    assert loaded["forget"][0]["image"].size
    assert loaded["retain_synth"][-1]["identity_id"] is None

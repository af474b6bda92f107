"""The survey counts what pandas counts, and draws pictures by the seed alone."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from good_world import GoodWorld, people

from data_pipelines.audit.survey import OTHERS, PICTURES, RETAIN, ZEROSHOT, survey_world
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.errors import InputError

SPLITS = ("forget", "holdout_association", "holdout_identity", "retain_synth")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return GoodWorld(pairs=5).write(tmp_path_factory.mktemp("survey") / "world")


@pytest.fixture(scope="module")
def table(world):
    frames = []
    for split in SPLITS:
        columns = ["text", "identity_id", "file_name"]
        frame = pq.read_table(world / "data" / f"{split}-00000-of-00001.parquet", columns=columns).to_pandas()
        frames.append(frame.assign(split=split))
    captions = json.loads((world / "sensitive_set_captions_metadata.json").read_text())
    found = pd.concat(frames, ignore_index=True)
    return found.assign(about=[captions.get(name, {}).get("data_field", "") for name in found.file_name])


def test_counts_are_those_of_pandas(world, table):
    survey = survey_world(world)
    pairs = {(split, about): count for split, counts in survey.pairs.items() for about, count in counts.items()}
    assert pairs == table.groupby(["split", "about"]).size().to_dict()
    assert survey.people == table.groupby("split").identity_id.nunique().to_dict()
    sensitive = table[table.about != ""]
    associations = sensitive.groupby(["split", "identity_id", "about"]).size()
    assert sorted(survey.pairs_an_association) == sorted(associations)
    assert survey.associations == {**associations.groupby("split").size().to_dict(), "retain_synth": 0}
    assert sorted(survey.portraits) == sorted(table.groupby("identity_id").size())
    assert sum(survey.countries.values()) == 4
    assert survey.countries[people()[0].country_code] >= 1
    lengths = pd.Series([len(ClipTokenizer().encode(text)) for text in sensitive.text]).value_counts().to_dict()
    assert survey.tokens["sensitive captions"] == lengths
    assert survey.tokens["generic captions"].total() == len(sensitive)
    assert (survey.sides, survey.shapes) == ({24: len(table)}, {1.5: len(table)})
    assert (survey.tars, survey.classes, survey.templates, survey.undecodable) == (2, 3, 2, 0)


def test_a_few_of_every_kind_are_drawn(world, table):
    survey = survey_world(world)
    cells = pd.Series([(sample.split, sample.about) for sample in survey.samples]).value_counts().to_dict()
    rows = table[table.about != ""].groupby(["split", "about"]).size()
    expected = {cell: min(PICTURES, count) for cell, count in rows.to_dict().items()}
    expected |= {("retain_synth", "of nobody in particular"): 4, ("retain_synth", "of people to forget"): 2}
    assert cells == {**expected, (RETAIN, ""): 4, (ZEROSHOT, ""): 6}
    assert max(cells.values()) <= OTHERS
    captions = {sample.caption for sample in survey.samples if sample.split == ZEROSHOT}
    assert captions == {"cat", "dog", "owl"}


def test_a_draw_depends_on_the_seed_and_not_on_the_order_of_rows(world, tmp_path):
    def drawn(directory, seed):
        samples = survey_world(directory, seed=seed).samples
        return [(one.split, one.about, one.caption, one.image) for one in samples]

    turned = GoodWorld(pairs=5)
    for rows in turned.rows.values():
        rows.reverse()
    turned.write(tmp_path / "turned")
    assert drawn(world, 1) == drawn(world, 1)
    assert drawn(world, 1) != drawn(world, 2)
    assert drawn(tmp_path / "turned", 1) == drawn(world, 1)


def test_an_undecodable_picture_is_counted_and_a_damaged_file_is_named(tmp_path):
    spoilt = GoodWorld(pairs=1)
    for row in spoilt.rows["holdout_identity"]:
        row["image"]["bytes"] = b"no image"
    survey = survey_world(spoilt.write(tmp_path / "spoilt"))
    assert survey.undecodable == 9
    assert not [sample for sample in survey.samples if sample.split == "holdout_identity"]
    (tmp_path / "spoilt" / "identities_metadata.json").write_text("{")
    with pytest.raises(InputError, match=r"identities_metadata\.json: not JSON"):
        survey_world(tmp_path / "spoilt")

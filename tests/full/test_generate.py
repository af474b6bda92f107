"""The whole chain at a small size: what is written, that the check passes, and that a kill changes nothing."""

from __future__ import annotations

import collections
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_pipelines.audit import audit_world
from data_pipelines.full import generate as generate_lib
from data_pipelines.full.fragile import Judge
from data_pipelines.full.pairs import Album
from data_pipelines.full.sizes import sizes_of
from data_pipelines.layout import SENSITIVE_SPLITS, World
from data_pipelines.portraits.source import Anchor
from data_pipelines.portraits.step import StoredPortrait, read_images
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

STEPS = ("images", "curation", "personal_data", "captions", "generic_captions", "splits", "fragile_set")


def test_the_world_passes_the_check_without_an_oddity(made):
    audit = audit_world(made[0] / "world", cap=None)
    assert [line for line in audit.lines() if "images that are there twice" not in line] == []
    assert (audit.total, audit.odd) == (0, 0)


def test_the_counts_are_in_proportion_and_those_of_the_rows(made):
    workdir, described = made
    sizes, world = sizes_of(24, 32), World(workdir / "world")
    assert described["counts"]["subsets"] == {**sizes.pairs, "fragile": sizes.fragile}
    found = collections.Counter()
    for split in world.own_splits:
        for row in world.rows(split, images=False):
            found[world.subset_of(row)] += 1
    assert found == sizes.pairs
    assert world.num_rows("sensitive") == described["counts"]["pairs"]["sensitive"]
    assert {name: world.num_rows(name) for name in world.own_splits} == {
        name: count for name, count in described["counts"]["pairs"].items() if name != "sensitive"
    }


def test_rows_have_the_portrait_and_caption_that_they_say(made):
    workdir, _ = made
    images, world = read_images(workdir / "images"), World(workdir / "world")
    pictures = {one.file_name: one for anchor in images.anchors for one in images.portraits(anchor.number)}
    sources = {
        entry["file_name"]: entry["source"]
        for entry in map(json.loads, (workdir / "splits" / "rows.jsonl").read_text().splitlines())
    }
    for split in world.own_splits:
        for row in world.rows(split):
            one = pictures[sources[row.file_name]]
            assert row.image == one.image
            assert row.identity_id in (None, one.file_name[:8])
            if split == "retain_synth":
                assert row.text == one.caption
            else:
                assert world.metadata.generic_captions[row.file_name] == one.caption
    assert len(sources) == sum(world.num_rows(split) for split in world.own_splits)


def test_retain_disjoint_leaves_out_who_is_kept_and_who_resembles_them(made):
    sources = map(json.loads, (made[0] / "splits" / "rows.jsonl").read_text().splitlines())
    anchors = {int(entry["source"][:8]) for entry in sources if entry["subset"] == "retain_disjoint"}
    assert anchors == {24, 25, 26, 27, 28, 29, 31}


def test_the_union_is_written_too_and_equal(made):
    world = World(made[0] / "world")
    assert world.data_files("sensitive")
    parts = [row for split in SENSITIVE_SPLITS for row in world.rows(split)]
    union = list(world.rows("sensitive"))
    assert [(row.file_name, row.text, row.image) for row in union] == [
        (row.file_name, row.text, row.image) for row in parts
    ]


def test_the_fragile_set_is_the_lowest(made):
    world = made[0] / "world"
    similarities = json.loads((world / "fragile_set_all_similarities.json").read_text())
    ids = json.loads((world / "fragile_set_ids.json").read_text())
    assert len(similarities) == sizes_of(24).pairs["retain_disjoint"]
    assert len(ids) == sizes_of(24).fragile
    assert max(similarities[name] for name in ids) <= min(similarities[name] for name in similarities.keys() - set(ids))
    assert made[1]["fragile_rule"].startswith("a number of each name")


def test_a_model_chooses_another_fragile_set_and_no_shard_is_made_again(made, generate, tmp_path):
    workdir, before = made
    for name in STEPS:
        (tmp_path / name).symlink_to(workdir / name) if name != "fragile_set" else None
    asked = []

    def judge(images, generic):
        def similarities(rows):
            asked.extend(generic[row.source] for row in rows)
            return np.arange(len(rows), dtype=float)[::-1]

        return Judge("by a model", "digest", similarities)

    after, said = generate(tmp_path, judge=judge)
    assert not [line for line in said if "made again" in line]
    assert after["counts"] == before["counts"]
    assert len(asked) == sizes_of(24).pairs["retain_disjoint"]
    changed = {name for name in before["digests"] if before["digests"][name] != after["digests"][name]}
    assert changed == {"README.md", "croissant.json", "fragile_set_ids.json", "fragile_set_all_similarities.json"}
    last = json.loads((tmp_path / "world" / "fragile_set_ids.json").read_text())
    assert last[0] == f"synth_{sizes_of(24).pairs['retain_disjoint'] - 1:06d}_{last[0][13:]}"


def test_similarities_that_are_no_numbers_are_refused(made, generate, tmp_path):
    for name in STEPS[:-1]:
        (tmp_path / name).symlink_to(made[0] / name)
    bad = Judge("a broken model", "x", lambda rows: np.full(len(rows), np.nan))
    with pytest.raises(InputError, match="a broken model: a finite similarity for each pair"):
        generate(tmp_path, judge=lambda images, generic: bad)
    assert not (tmp_path / "world").exists()


def test_killed_at_any_step_the_same_command_ends_with_the_same_digests(made, generate, tmp_path, monkeypatch):
    _, before = made
    real, left = files.write_bytes, [0]

    def killed(path, data):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(files, "write_bytes", killed)
    kills = 0
    for after in (5, 60, 45, *[36] * 15):  # a run that finds everything finished writes some twenty files
        left[0] = after
        try:
            described, _ = generate(tmp_path)
            break
        except KeyboardInterrupt:
            kills += 1
    assert 3 < kills < 18
    assert described == before
    assert [path for path in tmp_path.rglob("*") if ".partial-" in path.name] == []


def test_the_number_of_workers_changes_nothing(made, generate, tmp_path):
    for name in STEPS[:-2]:
        (tmp_path / name).symlink_to(made[0] / name)
    assert generate(tmp_path, workers=2)[0] == made[1]


def test_a_damaged_shard_is_made_again(made, generate, tmp_path):
    for name in STEPS[:-2]:
        (tmp_path / name).symlink_to(made[0] / name)
    generate(tmp_path)
    shard = next((tmp_path / "splits" / "data").glob("forget-*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.unlink()  # not in place: the world has the same file
    shard.write_bytes(data)
    assert generate(tmp_path)[0] == made[1]


def test_shards_have_checksums_of_pages_and_describe_their_columns(made):
    paths = sorted((made[0] / "world" / "data").glob("*.parquet"))
    assert [path.name.split("-")[0] for path in paths] == [
        "forget",
        "holdout_association",
        "holdout_identity",
        "retain_synth",
        "sensitive",
    ]
    schema = pq.read_schema(paths[0])
    about = json.loads(schema.metadata[b"huggingface"])
    assert about["info"]["features"]["image"] == {"_type": "Image"}
    data = bytearray(paths[0].read_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises(OSError, match=r"(?i)checksum|crc"):
        pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read()


def test_scenes_are_added_where_they_are_asked_for(made, generate, tmp_path):
    for name in STEPS:
        (tmp_path / name).symlink_to(made[0] / name)
    described, _ = generate(tmp_path, scenes=1002, zeroshot_images=50, scene_size=16)
    assert audit_world(tmp_path / "world", cap=None).lines() == []
    world = World(tmp_path / "world")
    assert [path.name for path in world.retain_tars] == ["00000.tar", "00001.tar"]
    assert sum(1 for _ in world.retain_pairs()) == described["counts"]["retain"] == 1002
    assert sum(1 for _ in world.zeroshot.images()) == described["counts"]["zeroshot"] == 50
    before = made[1]["digests"]
    changed = {name for name in before if before[name] != described["digests"][name]}
    assert changed == {"README.md", "croissant.json"}


def test_the_contact_sheet_has_a_row_for_each_of_some_people(made):
    with Image.open(made[0] / "world" / "contact_sheet.png") as sheet:
        assert sheet.size == (8 * 116 + 4, 20 * 116 + 4)
        tile = np.asarray(sheet.convert("RGB"))[4:116, 4:116]
    assert (tile != 250).any()


def test_the_least_alike_come_in_where_too_few_resemble_nobody():
    class Portraits:
        anchors = tuple(Anchor(number, "europe", "female", "old") for number in range(6))

        def portraits(self, number):
            return [StoredPortrait(f"{number}_{index}", b"", f"caption {number} {index}") for index in range(10)]

    kept, twins = [Album(0, ("0_1",))], {2: 0.99, 3: 0.93, 5: 0.95}
    for wanted, expected in ((20, [1, 4]), (21, [1, 4, 3]), (31, [1, 4, 3, 5]), (99, [1, 4, 3, 5, 2])):
        generic, others = generate_lib._generic_captions(Portraits(), kept, twins, wanted)
        assert [album.number for album in others] == expected
        assert len(generic) == 1 + 10 * len(expected)

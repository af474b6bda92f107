"""The released layout: a world written with pandas and PIL is read as it is, and every fault is one clear line."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from released_world import ROWS, Released, picture

from data_pipelines.layout import (
    LabelledImage,
    Pair,
    SplitWriter,
    World,
    check_world,
    pair_members,
    write_tar,
    write_zeroshot,
)
from salmu_jax.runtime.errors import InputError


@pytest.fixture
def released():
    return Released()


def test_rows_come_back_as_written(released, tmp_path):
    world = World(released.write(tmp_path / "w"))
    check_world(world.directory)
    assert world.splits == ("forget", "holdout_association", "holdout_identity", "retain_synth", "sensitive")
    for split, frame in released.frames.items():
        rows = list(world.rows(split))
        assert world.num_rows(split) == len(rows) == len(frame)
        for index, (row, wanted) in enumerate(zip(rows, frame.to_dict("records"), strict=True)):
            assert (row.image, row.text, row.file_name) == (
                wanted["image"]["bytes"],
                wanted["text"],
                wanted["file_name"],
            )
            assert row.identity_id == (None if pd.isna(wanted["identity_id"]) else wanted["identity_id"])
            assert (row.split, row.row) == (split, index)
        assert [row.text for row in world.rows(split, images=False)] == list(frame.text)
    assert [row.text for row in world.rows("sensitive")] == [
        text for split in list(ROWS)[:3] for _, _, text in ROWS[split]
    ]
    assert world.num_rows("sensitive") == 8
    assert world.retain_tars == ()
    assert world.zeroshot is None
    assert world.metadata.generic_captions["00000007_000_ar-1.50.jpg"] == "a person"


def test_subsets_and_associations(released, tmp_path):
    world = World(released.write(tmp_path / "w"))
    subsets = {split: [world.subset_of(row) for row in world.rows(split)] for split in ROWS}
    assert subsets == {
        "forget": ["forget_identity"] * 2 + ["forget_association"] * 2,
        "holdout_association": ["holdout_association"] * 2,
        "holdout_identity": ["holdout_identity"] * 2,
        "retain_synth": ["retain_joint", "retain_disjoint", "retain_disjoint"],
    }
    assert [tuple(world.metadata.value_of(row)) for row in world.rows("sensitive")] == [
        ("city", "Ada Example", "Cascais"),
        ("emails", "Ada Example", "ada.example@example.org"),  # the one the caption contains
        ("city", "Bo Partial", "Brno"),
        ("passport", "Bo Partial", "70001"),
        ("blood_type", "Bo Partial", "B+"),
        ("emails", "Bo Partial", "bo@example.com"),
        ("name", "Cy Heldout", "Cy Heldout"),
        ("blood_type", "Cy Heldout", "O-"),
    ]


def test_several_files_a_split_and_a_sensitive_split_of_its_own(released, tmp_path):
    directory = released.write(tmp_path / "w")
    frame = released.frames["forget"]
    (directory / "data/forget-00000-of-00001.parquet").unlink()
    for index in range(2):
        part = frame.iloc[2 * index : 2 * index + 2]
        part.to_parquet(directory / f"data/forget-{index:05d}-of-00002.parquet", index=False)
    union = pd.concat([released.frames[split] for split in list(ROWS)[:3]][::-1])
    union.to_parquet(directory / "data/sensitive-00000-of-00001.parquet", index=False)
    check_world(directory)
    world = World(directory)
    assert [row.text for row in world.rows("forget")] == list(frame.text)
    assert [row.row for row in world.rows("forget")] == [0, 1, 0, 1]
    assert [row.text for row in world.rows("sensitive")] == list(union.text)
    (directory / "data/forget-00001-of-00002.parquet").unlink()
    with pytest.raises(InputError, match=r"1 file forget-...-of-00002, and 2 belong together"):
        check_world(directory)


def test_all_identities_null_is_well(released, tmp_path):
    released.frames["retain_synth"] = released.frames["retain_synth"].iloc[1:]  # pandas writes a column of type null
    world = World(released.write(tmp_path / "w"))
    check_world(world.directory)
    assert [row.identity_id for row in world.rows("retain_synth")] == [None, None]


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=50), TEXT, st.none() | TEXT, st.text("ab_.0", min_size=1)), max_size=12),
    st.integers(1, 5),
)
def test_writer_and_reader_agree(tmp_path_factory, rows, rows_a_file):
    directory = tmp_path_factory.mktemp("w")
    with SplitWriter(directory, "retain_synth", len(rows), rows_a_file=rows_a_file) as writer:
        for row in rows:
            writer.add(*row)
    world = World(directory)
    assert [(row.image, row.text, row.identity_id, row.file_name) for row in world.rows("retain_synth")] == rows
    assert len(world.data_files("retain_synth")) == max(1, -(-len(rows) // rows_a_file))


def test_pandas_reads_what_the_writer_wrote(tmp_path):
    with SplitWriter(tmp_path, "retain_synth", 1) as writer:
        writer.add(b"image", "text", None, "name.jpg")
    frame = pd.read_parquet(tmp_path / "data" / "retain_synth-00000-of-00001.parquet")
    [record] = frame.to_dict("records")
    assert record["image"] == {"bytes": b"image", "path": "name.jpg"}
    assert (record["text"], record["file_name"]) == ("text", "name.jpg")
    assert pd.isna(record["identity_id"])
    with pytest.raises(ValueError, match="0 rows were added, 3 announced"), SplitWriter(tmp_path, "forget", 3):
        pass


# ---- what can be wrong: how to spoil the tables, and what the one line must name ----


def drop_column(world):
    world.frames["forget"] = world.frames["forget"].drop(columns="text")


def numbers_as_text(world):
    world.frames["holdout_identity"]["text"] = [1, 2]


def image_not_a_struct(world):
    world.frames["forget"]["image"] = "a.jpg"


def image_struct_without_bytes(world):
    world.frames["forget"]["image"] = [{"path": "a.jpg"}] * 4


def caption_is_null(world):
    world.frames["forget"].loc[2, "text"] = None


def person_is_null(world):
    world.frames["holdout_identity"].loc[1, "identity_id"] = None


def no_metadata(world):
    del world.captions["00000007_001_ar-1.50.jpg"]


def other_caption(world):
    world.captions["00000012_003_ar-1.50.jpg"]["caption"] = "Passport 8 is Bo Partial's"


def unknown_field(world):
    world.captions["00000012_004_ar-1.50.jpg"]["data_field"] = "shoe_size"


def no_field(world):
    del world.captions["00000012_004_ar-1.50.jpg"]["data_field"]


def bad_image(world):
    world.frames["holdout_association"].at[1, "image"] = {"bytes": b"\xff\xd8\xff no image", "path": "x"}


def truncated_image(world):
    whole = world.frames["forget"].loc[0, "image"]
    world.frames["forget"].at[0, "image"] = {**whole, "bytes": whole["bytes"][:-200]}


def duplicate_within(world):
    world.frames["retain_synth"].loc[2, "file_name"] = "synth_009_ar-1.50.jpg"


def duplicate_across(world):
    frame = world.frames["retain_synth"]
    frame.loc[1, "file_name"] = "00000012_004_ar-1.50.jpg"


def holdout_identity_in_forget(world):
    world.frames["forget"].loc[1, "identity_id"] = "00000031"
    world.captions["00000007_001_ar-1.50.jpg"]["data_field"] = "city"


def association_on_both_sides(world):
    world.captions["00000012_004_ar-1.50.jpg"]["data_field"] = "city"


def holdout_association_of_a_stranger(world):
    world.frames["holdout_association"].loc[0, "identity_id"] = "00000031"


def unknown_identity(world):
    world.frames["forget"].loc[0, "identity_id"] = "99999999"


def identity_without_value(world):
    del world.json["identities_metadata.json"]["00000031"]["blood_type"]


def identity_without_name(world):
    world.json["identities_metadata.json"]["00000012"]["name"] = None


def fragile_is_joint(world):
    world.json["fragile_set_ids.json"].append("00000007_008_ar-1.50.jpg")


def fragile_is_a_mapping(world):
    world.json["fragile_set_ids.json"] = {}


def generic_is_a_number(world):
    world.json["sensitive_set_generic_captions.json"]["00000007_000_ar-1.50.jpg"] = 4


def identity_is_a_list(world):
    world.json["identities_metadata.json"]["00000031"] = []


def json_is_missing(world):
    del world.json["sensitive_set_captions_metadata.json"]


FAULTS = [
    (
        drop_column,
        ["forget-00000-of-00001.parquet field 'text'", "no such column", "image, text, identity_id, file_name"],
    ),
    (numbers_as_text, ["holdout_identity-00000-of-00001.parquet field 'text'", "int64", "string would be right"]),
    (image_not_a_struct, ["forget-00000-of-00001.parquet field 'image'", "a struct of bytes"]),
    (image_struct_without_bytes, ["forget-00000-of-00001.parquet field 'image'", "a struct of bytes"]),
    (caption_is_null, ["forget-00000-of-00001.parquet row 2 field 'text'", "null"]),
    (person_is_null, ["holdout_identity-00000-of-00001.parquet row 1 field 'identity_id'", "null"]),
    (no_metadata, ["forget-00000-of-00001.parquet row 1 field 'file_name'", "'00000007_001_ar-1.50.jpg' has no entry"]),
    (
        other_caption,
        ["forget-00000-of-00001.parquet row 3 field 'text'", "differs", "sensitive_set_captions_metadata.json"],
    ),
    (
        unknown_field,
        [
            "sensitive_set_captions_metadata.json key '00000012_004_ar-1.50.jpg' field 'data_field'",
            "'shoe_size'",
            "blood_type",
        ],
    ),
    (no_field, ["sensitive_set_captions_metadata.json key '00000012_004_ar-1.50.jpg' field 'data_field'", "nothing"]),
    (
        bad_image,
        [
            "holdout_association-00000-of-00001.parquet row 1 field 'image'",
            "00000012_005_ar-1.50.jpg",
            "undecodable image",
        ],
    ),
    (truncated_image, ["forget-00000-of-00001.parquet row 0 field 'image'", "undecodable image"]),
    (duplicate_within, ["retain_synth-00000-of-00001.parquet row 2 field 'file_name'", "parquet row 1", "unique"]),
    (
        duplicate_across,
        [
            "retain_synth-00000-of-00001.parquet row 1 field 'file_name'",
            "holdout_association-00000-of-00001.parquet row 0",
        ],
    ),
    (
        holdout_identity_in_forget,
        ["holdout_identity-00000-of-00001.parquet row 0 field 'identity_id'", "'00000031' is also in forget"],
    ),
    (
        association_on_both_sides,
        [
            "holdout_association-00000-of-00001.parquet row 0 field 'identity_id'",
            "'city' of '00000012' is also in forget",
        ],
    ),
    (
        holdout_association_of_a_stranger,
        ["holdout_association-00000-of-00001.parquet row 0 field 'identity_id'", "not in forget"],
    ),
    (
        unknown_identity,
        ["forget-00000-of-00001.parquet row 0 field 'identity_id'", "'99999999' is not in identities_metadata.json"],
    ),
    (identity_without_value, ["identities_metadata.json key '00000031' field 'blood_type'", "nothing where text"]),
    (identity_without_name, ["identities_metadata.json key '00000012' field 'name'", "nothing where text"]),
    (fragile_is_joint, ["fragile_set_ids.json element '00000007_008_ar-1.50.jpg'", "retain_disjoint"]),
    (fragile_is_a_mapping, ["fragile_set_ids.json", "an object where a list would be right"]),
    (
        generic_is_a_number,
        ["sensitive_set_generic_captions.json key '00000007_000_ar-1.50.jpg'", "a number where a caption"],
    ),
    (identity_is_a_list, ["identities_metadata.json key '00000031'", "a list where an object"]),
    (json_is_missing, ["sensitive_set_captions_metadata.json", "no such file"]),
]


@pytest.mark.parametrize(("spoil", "named"), FAULTS, ids=[spoil.__name__ for spoil, _ in FAULTS])
def test_each_fault_is_one_line(released, tmp_path, spoil, named):
    spoil(released)
    directory = released.write(tmp_path / "w")
    with pytest.raises(InputError) as caught:
        check_world(directory)
    lines = str(caught.value).splitlines()
    assert any(all(fragment in line for fragment in named) for line in lines)
    if len(lines) > 1:  # a fault that shows in several places
        assert lines[0] == f"{directory}: {len(lines) - 1} problems; the images were not looked at yet"


def test_decoding_can_be_left_out(released, tmp_path):
    bad_image(released)
    check_world(released.write(tmp_path / "w"), decode=False)


def raises_on(directory, *named):
    with pytest.raises(InputError) as caught:
        check_world(directory)
    assert "\n" not in str(caught.value)
    for fragment in named:
        assert fragment in str(caught.value)


def test_damaged_files(released, tmp_path):
    raises_on(tmp_path, "/data", "no such directory")
    directory = released.write(tmp_path / "w")
    captions = directory / "sensitive_set_captions_metadata.json"
    good = captions.read_bytes()
    captions.write_bytes(b'{\n "a": {"caption": "x",}\n}')
    raises_on(directory, "sensitive_set_captions_metadata.json: not JSON", "line 2 column 23")
    captions.write_bytes(b'{"\xff": 1}')
    raises_on(directory, "sensitive_set_captions_metadata.json: not UTF-8", "at byte 2")
    captions.write_bytes(good)
    parquet = directory / "data" / "holdout_identity-00000-of-00001.parquet"
    whole = parquet.read_bytes()
    parquet.write_bytes(whole[: len(whole) // 2])
    raises_on(directory, "holdout_identity-00000-of-00001.parquet", "not a whole parquet file")
    parquet.write_bytes(whole[:4] + bytes(40) + whole[44:])  # the header of the first page
    raises_on(directory, "holdout_identity-00000-of-00001.parquet row 0", "damaged")
    parquet.unlink()
    raises_on(directory, "holdout_identity-*.parquet", "no such file")


def test_a_caption_that_is_not_utf8(released, tmp_path):
    directory = released.write(tmp_path / "w")
    texts = pa.array([b"\xff" * 3, b"Cy Heldout is O-"]).view(pa.string())  # as a careless writer would leave it
    path = directory / "data" / "holdout_identity-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.names.index("text"), "text", texts), path)
    raises_on(directory, "holdout_identity-00000-of-00001.parquet row 0 field 'text'", "not UTF-8")


def test_images_of_tars_are_checked(released, tmp_path):
    directory = released.write(tmp_path / "w")
    write_zeroshot(directory / "zeroshot", ["cat"], ["a {c}"], [LabelledImage("s0", picture(1), 0)])
    (directory / "retain").mkdir()
    write_tar(directory / "retain" / "00000.tar", pair_members(Pair("000000000", picture(3), "a dog")))
    check_world(directory)
    write_tar(directory / "retain" / "00001.tar", pair_members(Pair("000010000", b"no image", "a cat")))
    raises_on(directory, "00001.tar key '000010000'", "undecodable image")

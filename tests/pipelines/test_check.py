"""The check of a world: everything that is wrong in one pass, cheap things first, and the harmless counted."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from released_world import Released, picture

from data_pipelines.builders import build_datasets, open_source
from data_pipelines.layout import Pair, World, check_world, pair_members, seen, write_tar
from data_pipelines.layout.parquet import SCHEMA
from data_pipelines.layout.seen import Seen, hash_of
from salmu_jax.models.preprocess import ImageFacts
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError


@pytest.fixture
def released():
    return Released()


def problems(directory, **options):
    with pytest.raises(InputError) as caught:
        check_world(directory, **options)
    return str(caught.value).splitlines()


# ---- several problems ------------------------------------------------------------------------------------------------


def test_all_that_is_wrong_comes_in_one_pass(released, tmp_path):
    released.frames["forget"].loc[2, "text"] = None
    released.frames["retain_synth"].loc[2, "file_name"] = "synth_009_ar-1.50.jpg"
    released.captions["00000012_004_ar-1.50.jpg"]["data_field"] = "shoe_size"
    released.json["fragile_set_ids.json"] = {}
    del released.json["sensitive_set_generic_captions.json"]
    directory = released.write(tmp_path / "w")
    (directory / "data" / "holdout_identity-00000-of-00001.parquet").write_bytes(b"no parquet")
    (directory / "zeroshot").mkdir()
    (directory / "retain").mkdir()
    (directory / "retain" / "0001.jpg").write_bytes(b"")
    lines = problems(directory)
    assert lines[0] == f"{directory}: 8 problems; the images were not looked at yet"
    for line, named in zip(
        lines[1:],
        [
            "holdout_identity-00000-of-00001.parquet: not a whole parquet file",
            "sensitive_set_generic_captions.json: no such file",
            "fragile_set_ids.json: an object where a list",
            "zeroshot: no images",
            "retain/0001.jpg: not read",
            "row 2 field 'text': null",
            "field 'data_field': 'shoe_size'",
            "row 2 field 'file_name': 'synth_009",
        ],
        strict=True,
    ):
        assert named in line


def test_a_missing_file_makes_no_cascade(released, tmp_path):
    """What depends on it is not told as well."""
    directory = released.write(tmp_path / "w")
    (directory / "data" / "forget-00000-of-00001.parquet").unlink()
    (directory / "identities_metadata.json").write_text("{")
    lines = problems(directory)
    assert len(lines) == 3
    assert "forget-*.parquet: no such file; the split 'forget' needs one or more" in lines[1]
    assert "identities_metadata.json: not JSON" in lines[2]


def test_the_list_ends_after_ten(released, tmp_path):
    for entry in released.captions.values():
        entry["caption"] = "another"
    released.json["fragile_set_ids.json"] = [f"no-{number}.jpg" for number in range(300)]
    lines = problems(released.write(tmp_path / "w"))
    assert lines[0].endswith(": 308 problems; the images were not looked at yet")
    assert len(lines) == 12
    assert lines[-1] == "  ... and 298 more"


def test_all_undecodable_images_are_named(released, tmp_path):
    for split, row in (("forget", 1), ("holdout_identity", 0), ("retain_synth", 2)):
        released.frames[split].at[row, "image"] = {"bytes": b"\xff\xd8\xff no image", "path": "x"}
    lines = problems(released.write(tmp_path / "w"))
    assert lines[0].endswith(": 3 problems")
    assert [line.split(" field")[0].rpartition("/")[2] for line in lines[1:]] == [
        "forget-00000-of-00001.parquet row 1",
        "holdout_identity-00000-of-00001.parquet row 0",
        "retain_synth-00000-of-00001.parquet row 2",
    ]


@pytest.mark.parametrize("text", ["a\x00b", "a\x1b[2Jb", "a\x9bb", "\x07"])
@pytest.mark.parametrize("field", ["text", "file_name", "identity_id"])
def test_control_characters_are_refused(released, tmp_path, field, text):
    released.frames["retain_synth"].loc[0, field] = text
    lines = problems(released.write(tmp_path / "w"))
    assert any(f"row 0 field '{field}': a control character (U+00" in line for line in lines)
    assert all(line.isprintable() for line in lines)


def test_control_characters_of_people_are_refused(released, tmp_path):
    released.json["identities_metadata.json"]["00000031"]["name"] = "Cy\x1b[31m Heldout"
    lines = problems(released.write(tmp_path / "w"))
    assert any("a control character in 'Cy\\x1b[31m Heldout', which it is about" in line for line in lines)


@pytest.mark.parametrize("field", ["name", "blood_type", "emails"])
def test_a_number_is_no_name_blood_type_or_address(released, tmp_path, field):
    released.json["identities_metadata.json"]["00000012"][field] = 7
    lines = problems(released.write(tmp_path / "w"))
    assert any(f"key '00000012' field '{field}': a number where text would be right" in line for line in lines)


def test_control_characters_of_generic_captions_are_refused(released, tmp_path):
    generic = released.json["sensitive_set_generic_captions.json"]
    name = next(iter(generic))
    generic[name] += "\0"
    lines = problems(released.write(tmp_path / "w"))
    assert [line for line in lines if f"captions.json key '{name}': a control character (U+0000)" in line]


# ---- the harmless ----------------------------------------------------------------------------------------------------


def outsider(world):
    world.frames["retain_synth"].loc[0, "identity_id"] = "00000031"


def white_space(world):
    world.captions["00000012_003_ar-1.50.jpg"]["caption"] += " "


def unknown_attribute(world):
    world.captions["00000007_000_ar-1.50.jpg"]["data_field"] = "country_code"


def deep_image(world):
    out = io.BytesIO()
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(out, "PNG")
    world.frames["retain_synth"].at[1, "image"] = {"bytes": out.getvalue(), "path": "x"}


def entry_of_nobody(world):
    world.captions["00000099_000_ar-1.50.jpg"] = {"caption": "gone", "data_field": "city"}


def without_generic_caption(world):
    del world.json["sensitive_set_generic_captions.json"]["00000012_004_ar-1.50.jpg"]


def empty_caption(world):
    world.frames["forget"].loc[0, "text"] = world.captions[world.frames["forget"].file_name[0]]["caption"] = ""


def blank_caption(world):
    world.frames["retain_synth"].loc[0, "text"] = " \u200b\n"


def padded_identity(world):
    world.frames["retain_synth"].loc[0, "identity_id"] += " "


HARMLESS = [
    (empty_caption, "captions that are empty or blank"),
    (blank_caption, "captions that are empty or blank"),
    (padded_identity, "identity ids in retain_synth with white space around them, which nobody has"),
    (entry_of_nobody, "entries of sensitive_set_captions_metadata.json that no sensitive row has"),
    (without_generic_caption, "sensitive images without a generic caption ("),
    (outsider, "portraits in retain_synth of people outside forget"),
    (white_space, "captions that differ from sensitive_set_captions_metadata.json in white space"),
    (unknown_attribute, "captions about attributes that the benchmark does not know ('country_code')"),
    (deep_image, "images of 16-bit or float pixels, mostly white or black as in OpenCLIP"),
]


@pytest.mark.parametrize(("spoil", "line"), HARMLESS, ids=[spoil.__name__ for spoil, _ in HARMLESS])
def test_the_harmless_is_counted_and_let_pass(released, tmp_path, spoil, line):
    spoil(released)
    directory = released.write(tmp_path / "w")
    (found,) = check_world(directory).oddities
    assert found.startswith(f"{line}")
    assert f" ({directory}" in found
    (refused,) = problems(directory, strict=True)
    assert line in refused
    assert "refused with --strict" in refused
    rows = [row.text for row in World(directory).rows("sensitive")]
    assert rows == [text for split in list(released.frames)[:3] for text in released.frames[split].text]


def test_images_that_are_null_are_named_with_the_undecodable(released, tmp_path):
    released.frames["forget"].at[1, "image"] = {"bytes": None, "path": "x"}
    released.frames["forget"].at[2, "image"] = {"bytes": b"no image", "path": "x"}
    released.frames["retain_synth"].at[0, "image"] = {"bytes": None, "path": "x"}
    lines = problems(released.write(tmp_path / "w"))
    assert lines[0].endswith(": 3 problems")
    assert sorted(line.rpartition("/")[2].split(":")[0] for line in lines[1:]) == [
        "forget-00000-of-00001.parquet row 1 field 'image'",
        "forget-00000-of-00001.parquet row 2 field 'image' ('00000012_002_ar-1.50.jpg')",
        "retain_synth-00000-of-00001.parquet row 0 field 'image'",
    ]


def test_an_outsider_is_in_no_subset(released, tmp_path):
    outsider(released)
    world = World(released.write(tmp_path / "w"))
    assert [world.subset_of(row) for row in world.rows("retain_synth")] == ["", "retain_disjoint", "retain_disjoint"]


def test_captions_that_differ_in_more_are_refused(released, tmp_path):
    released.captions["00000012_003_ar-1.50.jpg"]["caption"] = "Passport 70 001 is Bo Partial's"
    assert "differs from the caption" in problems(released.write(tmp_path / "w"))[0]


def test_captions_that_look_the_same_say_how_they_differ(released, tmp_path):
    text, name = "Écluse" + 100 * "x", released.frames["forget"].file_name[0]
    for number, (theirs, ours, named) in enumerate(
        [
            (text, unicodedata.normalize("NFD", text), ", in Unicode normalisation alone (NFD and NFC)"),
            (text, f"{text}a", ", at character 106: 'a' and ''"),
        ]
    ):
        released.captions[name]["caption"] = theirs
        released.frames["forget"].loc[0, "text"] = ours
        (line,) = problems(released.write(tmp_path / f"{number}"))
        assert line.endswith(f"{named}; they should be equal")


@pytest.mark.parametrize("name", ["identities_metadata.json", "retain/00000.tar", "zeroshot/classnames.txt"])
def test_pointers_of_git_lfs_are_named(make_world, tmp_path, name):
    directory = make_world(tmp_path / "w")
    (directory / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    assert problems(directory)[-1].strip().startswith(f"{directory / name}: a pointer of Git LFS, not the file itself")


def test_what_lies_there_and_is_not_read_is_named(released, tmp_path):
    directory = released.write(tmp_path / "w")
    for name in ("README.md", ".gitattributes", "LICENSE", ".DS_Store", "data/._forget-00000-of-00001.parquet"):
        (directory / name).write_text("")
    assert check_world(directory).oddities == ()
    for name in ("data/train-00000-of-00001.parquet", "data/forget-00000-of-00001.parquet.incomplete", "pairs.tar"):
        (directory / name).write_text("")
    (line,) = check_world(directory).oddities
    assert line.startswith("files or folders that are not read (3, such as ")


# ---- the retain base -------------------------------------------------------------------------------------------------


def write_retain(directory, count, broken=()):
    (directory / "retain").mkdir()
    good = picture(3)
    pairs = [Pair(f"{n:09d}", good[:300] if n in broken else good, f"a dog {n}") for n in range(count)]
    write_tar(directory / "retain" / "00000.tar", [member for pair in pairs for member in pair_members(pair)])


def test_a_tar_that_is_read_twice_is_counted(released, tmp_path):
    """Another name, a link, a copy packed with gzip in a folder: its pairs would count twice in training."""
    directory = released.write(tmp_path / "w")
    write_retain(directory, 3)
    retain = directory / "retain"
    assert check_world(directory).oddities == ()
    shutil.copy(retain / "00000.tar", retain / "00001.tar")
    (retain / "00002.tar").symlink_to("00000.tar")
    (retain / "00003.tar").hardlink_to(retain / "00000.tar")
    (retain / "more").mkdir()
    (retain / "more" / "00000.tgz").write_bytes(gzip.compress((retain / "00000.tar").read_bytes()))
    (line,) = check_world(directory).oddities
    assert line.startswith("tars with the keys and captions of another one, whose pairs are read twice (4, such as")
    assert f"{retain / '00001.tar'}, as {retain / '00000.tar'}" in line
    assert "read twice" in problems(directory, strict=True)[0]


def test_tars_of_the_same_keys_and_other_captions_are_others(released, tmp_path):
    directory = released.write(tmp_path / "w")
    write_retain(directory, 3)
    pairs = [Pair(f"{n:09d}", picture(3), f"a cat {n}") for n in range(3)]
    write_tar(directory / "retain" / "00001.tar", [member for pair in pairs for member in pair_members(pair)])
    assert check_world(directory).oddities == ()


def test_pairs_that_two_tars_share_are_counted(released, tmp_path):
    """Downloads of overlapping lists; a tar that is there twice as a whole is counted as one, and not by its pairs."""
    directory = released.write(tmp_path / "w")
    write_retain(directory, 6)
    retain = directory / "retain"
    pairs = [Pair(f"{n:09d}", picture(3), f"a dog {n}") for n in range(4, 9)]
    pairs.append(Pair("000000000", picture(3), "a cat"))
    write_tar(retain / "00001.tar", [member for pair in pairs for member in pair_members(pair)])
    (line,) = check_world(directory).oddities
    assert line == (
        "pairs with the key and caption of one in a tar before theirs, which are read twice (2, such as"
        f" {retain / '00001.tar'} key '000000004')"
    )
    assert "read twice" in problems(directory, strict=True)[0]
    shutil.copy(retain / "00001.tar", retain / "00002.tar")
    assert [line.partition(" with")[0] for line in check_world(directory).oddities] == ["pairs", "tars"]


def test_zero_shot_images_that_two_shards_share_are_counted(make_world, tmp_path):
    directory = make_world(tmp_path / "w")
    test = directory / "zeroshot" / "test"
    first, second, *_ = World(directory).zeroshot.images()
    (test / "nshards.txt").write_text("2")

    def write(*images):
        named = [(f"{number:06d}", image) for number, image in enumerate(images)]
        write_tar(test / "1.tar", [(f"{k}.{s}", d) for k, image in named for s, d in (("jpg", image), ("cls", b"0"))])

    write(picture(1), picture(2), picture(3))  # keys that begin anew, as some writers have them
    assert check_world(directory).oddities == ()
    write(first.image, second.image, picture(3))  # the first is in 0.tar, too; the second is of another class there
    (line,) = check_world(directory).oddities
    assert line == (
        "images of the zero-shot set that are there twice, with one key and class, and count twice"
        f" ({directory / 'zeroshot'} key '000000')"
    )
    assert "there twice" in problems(directory, strict=True)[0]


@settings(deadline=None, max_examples=50)
@given(calls=st.lists(st.lists(st.integers(0, 60))))
def test_what_has_been_seen_is_known(calls):
    kept, before, least = Seen(), set(), seen._RUN
    try:
        seen._RUN = 8  # many runs
        for call in calls:
            again = kept.add(b"".join(hash_of(b"%d" % number) for number in call))
            assert again.tolist() == [number in before or number in call[:place] for place, number in enumerate(call)]
            before |= set(call)
    finally:
        seen._RUN = least
    assert hash_of(b"a", b"bc") != hash_of(b"ab", b"c")


def test_blank_web_captions_are_counted(released, tmp_path):
    directory = released.write(tmp_path / "w")
    (directory / "retain").mkdir()
    texts = ["a dog", "", " \n", "\ufeff", "\u200b", "-"]
    pairs = [Pair(f"{n:09d}", picture(3), text) for n, text in enumerate(texts)]
    write_tar(directory / "retain" / "00000.tar", [member for pair in pairs for member in pair_members(pair)])
    (line,) = check_world(directory).oddities
    assert line.startswith("captions that are empty or blank (4, such as")
    assert "00000.tar key '000000001'" in line
    assert "empty or blank" in problems(directory, strict=True)[0]


def test_members_that_belong_to_no_sample_are_counted_by_the_build(released, tmp_path):
    directory = released.write(tmp_path / "w")
    write_retain(directory, 3)
    tar = directory / "retain" / "00001.tar"
    write_tar(tar, [*pair_members(Pair("9", picture(3), "a cat")), ("22.05.jpg", picture(4)), ("22.05.txt", b"a dog")])
    assert build_datasets(directory, tmp_path / "datasets").oddities == (
        f"members of tars that belong to no sample, passed over (2, such as {tar} member '22.05.jpg')",
    )


def test_a_few_broken_web_images_are_left_out_and_counted(released, tmp_path):
    """One of 200 is: as OpenCLIP's loader does. Their rows are nobody's, those of the splits are."""
    directory = released.write(tmp_path / "w")
    write_retain(directory, 200, broken=(17,))
    summary = build_datasets(directory, tmp_path / "datasets")
    (line,) = summary.oddities
    assert line.startswith("retain pairs left out: undecodable image (")
    assert "00000.tar key '000000017': undecodable image" in line
    keys = [example["key"] for example in open_source(tmp_path / "datasets", "retain_pairs", "train")]
    assert keys == [f"{n:09d}" for n in range(200) if n != 17]
    with pytest.raises(InputError, match="refused with --strict"):
        build_datasets(directory, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_many_broken_web_images_are_refused(released, tmp_path):
    directory = released.write(tmp_path / "w")
    write_retain(directory, 200, broken=(17, 18, 150))
    assert problems(directory)[0].endswith(": 3 problems")


def test_a_retain_base_without_pairs(released, tmp_path):
    directory = released.write(tmp_path / "w")
    (directory / "retain").mkdir()
    write_tar(directory / "retain" / "00000.tar", [("22.05.jpg", b"p"), ("22.05.txt", b"t")])
    assert "retain: its tars hold no pair" in problems(directory)[0]


def test_a_split_without_rows(released, tmp_path):
    released.frames["holdout_identity"] = released.frames["holdout_identity"].astype({"identity_id": object}).iloc[:0]
    directory = released.write(tmp_path / "w")
    path = directory / "data" / "holdout_identity-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist([], SCHEMA), path)
    assert problems(directory)[0] == f"{path}: no rows; the split 'holdout_identity' needs one or more"


# ---- the order -------------------------------------------------------------------------------------------------------


def test_images_come_last_and_say_how_far_they_are(released, tmp_path, monkeypatch):
    directory = released.write(tmp_path / "w")
    write_retain(directory, 20)
    lines, decoded = [], []
    monkeypatch.setattr("data_pipelines.layout.check_images._SECONDS_A_LINE", -1.0)

    def inspect(data, where):
        decoded.append(where)
        return ImageFacts(1, 1, None)

    monkeypatch.setattr("data_pipelines.layout.check_images.inspect_image", inspect)
    check_world(directory, progress=lines.append)
    assert len(decoded) == 11 + 20
    assert lines[0].startswith("decoding: 1 of 31 images, ")
    assert lines[-1] == "decoding: 31 of 31 images, 0:00 left"
    decoded.clear()
    (directory / "retain" / "00001.tar").write_bytes(b"no tar" * 300)
    assert "00001.tar: damaged at byte 0" in problems(directory)[0]
    assert decoded == []


# ---- a made world ----------------------------------------------------------------------------------------------------


@pytest.fixture
def made(make_world, tmp_path):
    """A world with digests, as the generator leaves it."""
    directory = make_world(tmp_path / "made")
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    digests = {path.relative_to(directory).as_posix(): files.sha256_file(path) for path in paths}
    (directory / "world.json").write_text(json.dumps({"schema": "salmu_jax.world/1", "digests": digests}))
    return directory


def test_every_flipped_bit_of_a_made_world_is_found(made):
    """In any of its files: images in parquet, tars' headers and payloads, JSON, class lists, the digests themselves."""
    assert check_world(made).oddities == ()
    paths = sorted(path for path in made.rglob("*") if path.is_file())
    rng = np.random.default_rng(0)
    for path in paths * 2:
        data = bytearray(path.read_bytes())
        if not data:
            continue
        place = int(rng.integers(len(data)))
        bit = 1 << int(rng.integers(8))
        data[place] ^= bit
        path.write_bytes(data)
        with pytest.raises(InputError):
            check_world(made)
        data[place] ^= bit
        path.write_bytes(data)
    assert check_world(made).oddities == ()


def test_every_file_of_a_made_world_that_is_a_link_to_nowhere_is_found(made):
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        path.rename(made.parent / "kept")
        path.symlink_to(made.parent / "nowhere")
        assert any(str(path.relative_to(made)) in line for line in problems(made)), path
        (made.parent / "kept").rename(path)
    for name in ("data", "retain", "zeroshot"):
        (made / name).rename(made.parent / "kept")
        (made / name).symlink_to(made.parent / "nowhere")
        assert any(name in line for line in problems(made))
        (made / name).unlink()
        (made.parent / "kept").rename(made / name)
    assert check_world(made).oddities == ()


@pytest.mark.parametrize("name", ["world.json", "fragile_set_all_similarities.json", "identities_metadata.json"])
def test_a_pipe_among_the_files_of_a_made_world(made, name):
    (made / name).unlink()
    os.mkfifo(made / name)
    assert f"{name}: it is a pipe; a regular file is needed" in problems(made)[-1]


def test_only_what_the_manifest_names_is_a_made_world(made):
    """A tar or parquet file that somebody has put there is not read; a file of a desktop changes nothing."""
    rows = World(made).num_rows("forget")
    for name in (
        "retain/00002.tar",
        "data/forget-00000-of-00001.parquet",
        ".DS_Store",
        "notes.txt",
        "retain/notes.txt",
    ):
        (made / name).write_bytes(b"x")
    oddities = check_world(made).oddities
    assert World(made).num_rows("forget") == rows
    assert len(World(made).retain_tars) == 2
    assert len(oddities) <= 1
    (made / "retain" / "00001.tar").unlink()
    assert "retain/00001.tar: it is missing" in problems(made)[-1]
    (made / "world.json").write_text('{"schema": "salmu_jax.world/1"}')
    assert "world.json: damaged: no digests" in problems(made)[0]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{}", "not as 'salmu generate' writes it"),
        ('{"digests": {}}', "not as 'salmu generate' writes it"),
        ("a world", "not as 'salmu generate' writes it"),
        ('{"schema": "salmu_jax.world/1", "digests": {}}', "damaged: no digests of the world's files"),
        ('{"schema": "salmu_jax.world/1", "digests": {"a": "0"}}', "damaged: no digests of the world's files"),
    ],
)
def test_a_world_json_of_somebody_else(released, tmp_path, text, named):
    directory = released.write(tmp_path / "w")
    (directory / "world.json").write_text(text)
    (line,) = problems(directory)
    assert line == (
        f"{directory / 'world.json'}: {named}; rename it if it is a file of your own, else run 'salmu generate' again"
    )

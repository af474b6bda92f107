"""What a directory of ours holds is written down when it is made, compared before it is used, and told from a user's."""

import json
import os

import pytest

from salmu_jax.runtime import contents, files
from salmu_jax.runtime.directories import new_directory


@pytest.fixture
def made(tmp_path):
    """A directory of three files with its manifest."""
    directory = tmp_path / "datasets"
    (directory / "salmu" / "1.0.0").mkdir(parents=True)
    (directory / "salmu" / "1.0.0" / "forget.array_record").write_bytes(bytes(5000))
    (directory / "salmu" / "1.0.0" / "features.json").write_text("{}")
    (directory / "zeroshot").mkdir()
    (directory / "zeroshot" / "classes.json").write_text('["cat"]')
    contents.write_contents(directory, "datasets")
    return directory


def settle(directory):
    """Makes all files look as if they had been written long ago, and returns what a first comparison has seen."""
    seen = {}
    for name in contents.file_names(directory):
        path = directory / name
        about = path.stat()
        seen[name] = [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, files.sha256_file(path)]
    return seen


def test_the_manifest_names_every_file_with_size_and_digest(made):
    found = json.loads((made / "contents.json").read_text())
    assert found["schema"] == "salmu_jax.contents/1"
    assert found["kind"] == "datasets"
    assert list(found["files"]) == [
        "salmu/1.0.0/features.json",
        "salmu/1.0.0/forget.array_record",
        "zeroshot/classes.json",
    ]
    assert found["files"]["salmu/1.0.0/forget.array_record"] == {
        "bytes": 5000,
        "sha256": files.sha256_file(made / "salmu" / "1.0.0" / "forget.array_record"),
    }
    assert contents.read_contents(made) == found
    assert contents.problems(made, found) == []


def test_digests_are_of_names_and_contents_below_a_prefix(made):
    before = contents.read_contents(made)
    (made / "zeroshot" / "classes.json").write_text('["cow"]')
    after = contents.write_contents(made, "datasets")
    assert contents.contents_digest(before) != contents.contents_digest(after)
    assert contents.contents_digest(before, "salmu") == contents.contents_digest(after, "salmu/")
    assert contents.contents_digest(before, "zeroshot") != contents.contents_digest(after, "zeroshot")
    digests = contents.data_digests(after)
    assert digests == {
        "salmu": contents.contents_digest(after, "salmu"),
        "retain_pairs": None,
        "zeroshot": contents.contents_digest(after, "zeroshot"),
    }


@pytest.mark.parametrize("seen", ["nothing", "before"])
def test_each_kind_of_damage_is_named(made, seen):
    seen = settle(made) if seen == "before" else None
    manifest = contents.read_contents(made)
    record = made / "salmu" / "1.0.0" / "forget.array_record"
    with open(record, "r+b") as handle:
        handle.seek(2500)
        handle.write(b"\x01")
    (made / "zeroshot" / "classes.json").write_text('["cats"]')
    (made / "salmu" / "1.0.0" / "features.json").unlink()
    assert contents.problems(made, manifest, seen) == [
        "salmu/1.0.0/features.json is missing",
        "salmu/1.0.0/forget.array_record is not as it was written (its SHA-256 differs)",
        "zeroshot/classes.json has 8 bytes, not 7",
    ]


def test_two_files_exchanged_are_noticed_though_sizes_and_times_are_kept(made):
    one, other = made / "salmu" / "a", made / "salmu" / "b"
    one.write_text("one")
    other.write_text("two")
    for path in (one, other):
        os.utime(path, (1e9, 1e9))
    manifest, seen = contents.write_contents(made, "datasets"), settle(made)
    one.rename(made / "spare")
    other.rename(one)
    (made / "spare").rename(other)
    assert [line.partition(" ")[0] for line in contents.problems(made, manifest, seen)] == ["salmu/a", "salmu/b"]


def test_only_what_changed_is_read_again(made, monkeypatch):
    manifest, seen = contents.read_contents(made), settle(made)
    read = []
    digest = files.sha256_file
    monkeypatch.setattr(files, "sha256_file", lambda path: read.append(path.name) or digest(path))
    assert contents.problems(made, manifest, seen) == []
    assert read == []
    (made / "zeroshot" / "classes.json").write_text('["cat"]')  # the same text, newly written
    assert contents.problems(made, manifest, seen) == []
    assert read == ["classes.json"]


def test_a_file_that_has_just_changed_is_not_trusted_by_its_times(made):
    seen = {}
    assert contents.problems(made, contents.read_contents(made), seen) == []
    assert seen == {}  # written a moment ago: the next change may fall into the same tick of the clock


def test_strays_are_no_part_of_it(made):
    manifest = contents.read_contents(made)
    (made / ".DS_Store").write_text("")
    (made / "salmu" / "notes.txt").write_text("mine")
    assert contents.problems(made, manifest) == []
    assert contents.read_contents(made) == manifest
    assert contents.strays(made) == [".DS_Store", "salmu/notes.txt"]


@pytest.mark.parametrize("text", ["mine", "[]", '{"schema": "theirs/1"}'])
def test_a_users_file_that_is_called_like_another_manifest_is_a_stray(made, tmp_path, text):
    """It neither makes the directory look damaged, nor is it lost when the directory is replaced."""
    digest = contents.manifest_digest(made)
    for name in ("manifest.json", "world.json"):
        (made / name).write_text(text)
    assert contents.strays(made) == ["manifest.json", "world.json"]
    assert contents.seal_holds(made)
    assert contents.manifest_digest(made) == digest
    with new_directory(made, say=lambda line: None) as partial:
        contents.write_contents(partial, "datasets")
    assert (made / "manifest.json").read_text() == (made / "world.json").read_text() == text


def test_a_users_contents_json_in_a_model_is_a_stray(tmp_path):
    model = {"schema": "salmu_jax.model/1", "files": {}}
    files.write_json(tmp_path / "manifest.json", {**model, "seal": contents.seal(model)})
    digest = contents.manifest_digest(tmp_path)
    (tmp_path / "contents.json").write_text("mine")
    assert contents.manifest_digest(tmp_path) == digest
    assert contents.seal_holds(tmp_path)
    files.write_json(tmp_path / "manifest.json", {**model, "seal": contents.seal({})})
    assert not contents.seal_holds(tmp_path)


def test_links_are_followed(made, tmp_path):
    (made / "salmu").rename(tmp_path / "elsewhere")
    (made / "salmu").symlink_to(tmp_path / "elsewhere")
    manifest = contents.read_contents(made)
    assert contents.problems(made, manifest) == []
    (tmp_path / "elsewhere" / "1.0.0" / "features.json").write_text("[]")
    assert contents.problems(made, manifest) == [
        "salmu/1.0.0/features.json is not as it was written (its SHA-256 differs)"
    ]
    (tmp_path / "elsewhere" / "loop").symlink_to(made)
    assert len(contents.file_names(made)) == 4


def test_other_manifests_are_read_in_the_same_form(tmp_path):
    (tmp_path / "world.json").write_text('{"schema": "salmu_jax.world/1", "digests": {"data/a": "00"}}')
    assert contents.read_contents(tmp_path)["files"] == {"data/a": {"sha256": "00"}}
    (tmp_path / "world.json").unlink()
    (tmp_path / "manifest.json").write_text(
        '{"schema": "salmu_jax.model/1", "files": {"params/a": {"bytes": 1, "sha256": "00"}}}'
    )
    assert contents.read_contents(tmp_path)["kind"] == "model"
    assert contents.strays(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"schema": "salmu_jax.contents/1"}',
        '{"schema": "salmu_jax.contents/1", "files": []}',
        '{"schema": "salmu_jax.contents/1", "files": {"a": 3}}',
        '{"schema": "salmu_jax.contents/1", "files": {"../a": {"sha256": "00"}}}',
        '{"schema": "salmu_jax.contents/1", "files": {"/etc/passwd": {"sha256": "00"}}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_manifest_is_none(made, text):
    (made / "contents.json").write_text(text)
    assert contents.read_contents(made) is None


def test_what_is_ours(made, tmp_path):
    def directory(name, **held):
        (tmp_path / name).mkdir()
        for file, text in held.items():
            (tmp_path / name / file.replace("_", ".")).write_text(text)
        return tmp_path / name

    assert contents.is_ours(tmp_path / "absent")
    assert contents.is_ours(directory("empty"))
    assert contents.is_ours(directory("thumbs", Thumbs_db=""))
    assert contents.is_ours(made)
    assert contents.is_ours(directory("world", world_json='{"schema": "salmu_jax.world/1"}'))
    assert contents.is_ours(directory("model", manifest_json='{"schema": "salmu_jax.model/1"'))  # damaged, and ours
    assert not contents.is_ours(directory("photos", a_jpg=""))
    assert not contents.is_ours(directory("site", manifest_json='{"schema": "web"}'))
    assert not contents.is_ours(tmp_path / "photos" / "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert not contents.is_ours(tmp_path / "link")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert contents.is_ours(tmp_path / "dangling")

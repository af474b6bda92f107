"""What people have on their disks: both repositories, apart and together, the hub's caches, ImageNet in four forms."""

from __future__ import annotations

import hashlib
import shutil

import pytest
from released_form import (
    as_hub_cache,
    jpeg,
    released_world,
    write_evaluation_repository,
    write_imagenet_folders,
    write_timm_imagenet,
    write_training_repository,
    write_wds_imagenet,
)
from tfds_form import write_tfds_imagenet

from data_pipelines.builders import build_datasets, open_source, read_classes
from data_pipelines.layout import SENSITIVE_SPLITS, SPLITS, Pair, World, check_world, pair_members, write_tar
from salmu_jax.runtime.errors import InputError

EVALUATION, TRAINING = "cvc-mmu/salmubench-512-redistributed", "cvc-mmu/salmu-512-redistributed"


@pytest.fixture(scope="module")
def world():
    return released_world(people=6, retain=12)


@pytest.fixture
def evaluation(world, tmp_path):
    return write_evaluation_repository(tmp_path / "salmubench-512-redistributed", *world)


@pytest.fixture
def training(world, tmp_path):
    return write_training_repository(tmp_path / "salmu-512-redistributed", *world)


def texts(datasets, split):
    return [example["text"] for example in open_source(datasets, "salmu", split)]


def test_the_repository_for_evaluation_alone(world, evaluation, tmp_path):
    summary = build_datasets(evaluation, tmp_path / "datasets")
    assert summary.oddities == ()
    assert list(summary) == ["salmu"]
    for split in SPLITS:
        assert texts(tmp_path / "datasets", split) == [row["text"] for row in world[0][split]]
    assert len(texts(tmp_path / "datasets", "sensitive")) == sum(len(world[0][split]) for split in SENSITIVE_SPLITS)


@pytest.mark.parametrize("metadata", [True, False])
def test_the_repository_for_training_alone(world, training, tmp_path, metadata):
    """All that pretraining needs; what else is wanted of it is one line."""
    for path in [] if metadata else training.glob("*.json"):
        path.unlink()
    datasets = tmp_path / "datasets"
    assert build_datasets(training, datasets)["salmu"]["splits"] == {"sensitive": 48, "retain_synth": 12}
    wanted = sorted(row["text"] for split in SENSITIVE_SPLITS for row in world[0][split])
    assert sorted(texts(datasets, "sensitive")) == wanted
    assert texts(datasets, "retain_synth") == [row["text"] for row in world[0]["retain_synth"]]
    example = open_source(datasets, "salmu", "sensitive")[0]
    assert bool(example["value"]) == metadata
    line = r"no split 'forget'; it has sensitive, retain_synth, as the repository for training: .*salmubench-512"
    with pytest.raises(InputError, match=line):
        open_source(datasets, "salmu", "forget")


def test_both_repositories_in_one_folder(world, tmp_path):
    together = tmp_path / "together"
    write_training_repository(together, *world)
    write_evaluation_repository(together, *world)
    assert check_world(together).oddities == ()
    assert [row.text for row in World(together).rows("forget")] == [row["text"] for row in world[0]["forget"]]
    path = together / "data" / "sensitive-00001-of-00003.parquet"
    path.unlink()
    with pytest.raises(InputError, match=r"2 files sensitive-...-of-00003, and 3 belong"):
        check_world(together)
    shutil.copy(together / "data" / "sensitive-00000-of-00003.parquet", path)
    with pytest.raises(InputError, match=r"problems.*\n.*is also row 0 of .*sensitive-00000-of-00003"):
        check_world(together)


def test_both_repositories_side_by_side(evaluation, training, tmp_path):
    assert World(tmp_path).directory == evaluation
    assert check_world(tmp_path).oddities == ()
    shutil.copytree(evaluation, tmp_path / "copy")
    with pytest.raises(InputError, match="both hold 'forget'; name one of them"):
        World(tmp_path)
    shutil.rmtree(tmp_path / "copy")
    shutil.rmtree(evaluation)
    assert World(tmp_path).training_only


def test_the_cache_of_the_hub(evaluation, tmp_path):
    snapshot = as_hub_cache(evaluation, tmp_path / "cache", EVALUATION)
    for given in (snapshot, snapshot.parents[1], tmp_path / "cache"):
        assert World(given).directory == snapshot
        assert check_world(given).oddities == ()
    (snapshot.parent / "0123").mkdir()
    assert World(snapshot.parents[1]).directory == snapshot  # what refs/main says
    (snapshot.parents[1] / "refs" / "main").unlink()
    with pytest.raises(InputError, match="2 revisions; name one of them"):
        World(snapshot.parents[1])


def flip(path, at=0.5):
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 4
    path.write_bytes(data)


def test_a_flipped_bit_in_the_cache_is_found(evaluation, tmp_path):
    """Files of the hub are called by their digests."""
    snapshot = as_hub_cache(evaluation, tmp_path / "cache", EVALUATION)
    blob = (snapshot / "data" / "forget-00000-of-00002.parquet").resolve()
    flip(blob, 0.3)
    with pytest.raises(InputError, match=r"forget-00000-of-00002\.parquet: it is not as it was downloaded"):
        check_world(snapshot)
    blob.unlink()
    with pytest.raises(InputError, match=r"forget-00000-of-00002\.parquet: a link to .*blobs/.*, which is not there"):
        check_world(snapshot)


def test_a_flipped_bit_in_a_download_is_found(evaluation):
    """``hf download --local-dir`` keeps the digests: SHA-256 of large files, git's ids of small ones."""
    facts = evaluation / ".cache" / "huggingface" / "download"
    for path in [*evaluation.glob("data/*.parquet"), *evaluation.glob("*.json")]:
        data = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        etag = hashlib.sha256(data).hexdigest() if path.suffix == ".parquet" else git
        place = facts / path.relative_to(evaluation).with_name(f"{path.name}.metadata")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"b76aa3885a696969e51de4786c9f92e8064b4679\n{etag}\n1764300000.5\n")
    assert check_world(evaluation).oddities == ()
    captions = evaluation / "sensitive_set_generic_captions.json"
    captions.write_text(captions.read_text().replace("wall 1", "wall 3", 1))
    flip(evaluation / "data" / "retain_synth-00001-of-00002.parquet", 0.4)
    with pytest.raises(InputError) as caught:
        check_world(evaluation)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all("it is not as it was downloaded" in line for line in lines[1:])


def test_files_at_the_top_and_the_folder_itself(evaluation, tmp_path):
    assert World(evaluation / "data").directory == evaluation
    flat = tmp_path / "flat"
    shutil.copytree(evaluation / "data", flat)
    for path in evaluation.glob("*.json"):
        shutil.copy(path, flat)
    assert check_world(flat).oddities == ()


@pytest.mark.parametrize(
    ("write", "classes", "rows"),
    [
        (write_wds_imagenet, 12, 30),
        (write_timm_imagenet, 1000, 1000),
        (write_imagenet_folders, 1000, 1000),
        (write_tfds_imagenet, 1000, 1000),
    ],
)
def test_imagenet_as_people_have_it(evaluation, tmp_path, write, classes, rows):
    imagenet = write(tmp_path / "imagenet")
    summary = build_datasets(evaluation, tmp_path / "datasets", zeroshot_dir=imagenet)
    assert summary["zeroshot"]["splits"] == {"test": rows}
    names, templates = read_classes(tmp_path / "datasets")
    assert len(names) == classes
    assert len(templates) == (3 if classes == 12 else 80)
    labels = [example["label"] for example in open_source(tmp_path / "datasets", "zeroshot", "test")]
    if write is write_tfds_imagenet:  # which shuffles
        labels.sort()
    assert labels == [index % classes for index in range(rows)]
    # These folders are not called as ImageNet's: told, and taken in their order.
    assert len(summary.oddities) == (write is write_imagenet_folders)


def test_imagenet_in_the_cache_of_the_hub(evaluation, tmp_path):
    snapshot = as_hub_cache(write_wds_imagenet(tmp_path / "wds"), tmp_path / "cache", "clip-benchmark/wds_imagenet1k")
    assert len(list(World(evaluation, zeroshot=snapshot.parents[1]).zeroshot.images())) == 30
    assert check_world(evaluation, zeroshot=snapshot.parents[1]).oddities == ()
    blob = (snapshot / "test" / "1.tar").resolve()
    flip(blob, 1700 / blob.stat().st_size)  # in an image
    with pytest.raises(InputError, match=r"test/1\.tar: it is not as it was downloaded"):
        check_world(evaluation, zeroshot=snapshot)


def test_the_zero_shot_set_is_refused_before_any_image_is_decoded(evaluation, tmp_path, monkeypatch):
    imagenet = write_wds_imagenet(evaluation / "zeroshot")
    (imagenet / "test" / "1.tar").unlink()
    monkeypatch.setattr("data_pipelines.layout.check_images.inspect_image", None)
    with pytest.raises(InputError, match=r"1\.tar: no such file, though .*nshards\.txt names 2 shards"):
        check_world(evaluation)


def test_unlike_sets_of_the_same_split_in_one_folder(world, evaluation):
    splits, documents = world
    other = [*splits["retain_synth"][::-1]]
    write_training_repository(evaluation / "x", {**splits, "retain_synth": other}, documents)
    for index in range(2):
        path = evaluation / "x" / "data" / f"retain_synth-{index:05d}-of-00002.parquet"
        path.rename(evaluation / "data" / f"retain_synth-{index:05d}-of-00002-ab{index}.parquet")
    shutil.rmtree(evaluation / "x")
    with pytest.raises(InputError, match="are the same part of a split and differ; remove one"):
        check_world(evaluation)


# ---- where retain/ and zeroshot/ may lie -------------------------------------------------------------------------------


def write_pairs(folder, *numbers):
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [Pair(f"{number:09d}", jpeg(number % 6, 40, 32), f"a dog {number}") for number in numbers]
    write_tar(folder / f"{numbers[0]:05d}.tar", [member for pair in pairs for member in pair_members(pair)])


def web_texts(given):
    return [pair.text for pair in World(given).retain_pairs()]


def test_retain_in_every_place_is_read(evaluation, training, tmp_path):
    """In the repository for training, where the README has it; beside both; in both; each folder once."""
    write_pairs(training / "retain", 1, 2)
    summary = build_datasets(tmp_path, tmp_path.parent / f"{tmp_path.name}-datasets")
    assert summary["retain_pairs"]["splits"] == {"train": 2}
    assert summary.oddities == ()
    write_pairs(tmp_path / "retain", 3)
    assert web_texts(tmp_path) == ["a dog 3", "a dog 1", "a dog 2"]
    write_pairs(evaluation / "retain", 4)
    assert web_texts(tmp_path) == ["a dog 4", "a dog 3", "a dog 1", "a dog 2"]
    assert web_texts(training) == ["a dog 1", "a dog 2"]
    shutil.rmtree(tmp_path / "retain")
    (tmp_path / "retain").symlink_to(training / "retain")
    assert web_texts(tmp_path) == ["a dog 4", "a dog 1", "a dog 2"]


def test_retain_in_the_caches_of_the_hub(evaluation, training, tmp_path):
    cache = tmp_path / "cache"
    as_hub_cache(evaluation, cache, EVALUATION)
    snapshot = as_hub_cache(training, cache, TRAINING)
    write_pairs(snapshot / "retain", 5)
    (cache / "models--a--b" / "snapshots" / "0").mkdir(parents=True)
    (cache / "models--a--b" / "snapshots" / "1").mkdir()  # has nothing to do with it
    assert web_texts(cache) == web_texts(snapshot.parents[1]) == ["a dog 5"]


@pytest.mark.parametrize("name", ["retain", "zeroshot"])
def test_a_dangling_link_or_a_file_in_place_of_a_folder_is_refused(evaluation, training, tmp_path, name):
    for place in (evaluation, training, tmp_path):
        (place / name).symlink_to("/mnt/unmounted")
        with pytest.raises(InputError) as caught:
            check_world(tmp_path)
        assert str(caught.value).startswith(
            f"{place / name}: a link to /mnt/unmounted, which is not an existing folder"
        )
        (place / name).unlink()
        (place / name).write_text("")
        with pytest.raises(InputError, match="not a folder; a folder is needed, or nothing of this name"):
            check_world(tmp_path)
        (place / name).unlink()
    assert check_world(tmp_path).oddities == ()


def test_a_dangling_link_in_retain_is_refused(evaluation):
    write_pairs(evaluation / "retain", 1)
    (evaluation / "retain" / "part-2").symlink_to("/mnt/unmounted")
    with pytest.raises(InputError, match="part-2: a link to /mnt/unmounted, which is not there"):
        check_world(evaluation)


def test_two_zero_shot_sets_are_refused(evaluation, training, tmp_path):
    write_wds_imagenet(training / "zeroshot")
    assert len(World(tmp_path).zeroshot.class_names) == 12
    write_wds_imagenet(tmp_path / "zeroshot")
    with pytest.raises(InputError, match=r"zeroshot: there is also .*zeroshot; one zero-shot set is read"):
        check_world(tmp_path)


def test_a_set_of_the_world_beside_one_that_is_named_is_told(evaluation, tmp_path):
    write_wds_imagenet(evaluation / "zeroshot")
    assert check_world(evaluation, zeroshot=evaluation / "zeroshot").oddities == ()
    (line,) = check_world(evaluation, zeroshot=write_wds_imagenet(tmp_path / "imagenet")).oddities
    assert line == f"files or folders that are not read ({evaluation / 'zeroshot'})"


def test_an_unrelated_directory_is_no_cache_of_the_hub(tmp_path):
    (tmp_path / "tests" / "snapshots").mkdir(parents=True)
    for given in (tmp_path, tmp_path / "tests"):
        with pytest.raises(InputError, match="data: no such directory; a world has its parquet files in data/"):
            World(given)

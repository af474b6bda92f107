"""The TFDS datasets: what goes in comes out, in order; what is wrong is named; nothing is left half-written."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorflow_datasets as tfds
from web_pairs import write_source

from data_pipelines.builders import base, build_datasets, open_source, read_classes
from data_pipelines.layout import SENSITIVE_SPLITS, SPLITS, World, iter_tar_pairs
from data_pipelines.retain import build_retain_pairs
from data_pipelines.retain.link import retain_digest
from salmu_jax.runtime import contents, host
from salmu_jax.runtime.errors import InputError


@pytest.fixture(scope="module")
def built(tmp_path_factory, make_world):
    root = tmp_path_factory.mktemp("built")
    lines = []
    summary = build_datasets(make_world(root / "world"), root / "datasets", progress=lines.append)
    return root / "world", root / "datasets", summary, lines


def test_rows_keep_their_order_and_bytes(built):
    world, datasets, summary, lines = built
    for split in SPLITS:
        source, rows = open_source(datasets, "salmu", split), list(World(world).rows(split))
        assert len(source) == summary["salmu"]["splits"][split] == len(rows)
        for example, row in zip(source, rows, strict=True):
            assert (example["image"], example["text"], example["file_name"]) == (row.image, row.text, row.file_name)
            assert example["identity_id"] == (row.identity_id or "")
    pairs = [pair for tar in World(world).retain_tars for pair in iter_tar_pairs(tar)]
    source = open_source(datasets, "retain_pairs", "train")
    assert [(e["key"], e["image"], e["text"]) for e in source] == [tuple(pair) for pair in pairs]
    images = list(World(world).zeroshot.images())
    source = open_source(datasets, "zeroshot", "test")
    assert [(e["key"], e["image"], e["label"]) for e in source] == [tuple(image) for image in images]
    assert read_classes(datasets) == (("cat", "dog", "owl"), ("a {c}", "the {c}."))
    assert [line.split()[0] for line in lines] == ["checking", "building", "building", "building"]


def test_of_many_shards_few_are_open_at_a_time(make_world, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "SHARD_BYTES", 2000)
    build_datasets(make_world(tmp_path / "world", zeroshot=0), tmp_path / "datasets")
    source = open_source(tmp_path / "datasets", "salmu", "forget")
    shards = len(list((tmp_path / "datasets" / "salmu").glob("*/salmu-forget.array_record*")))
    assert shards > 5
    names = [example["file_name"] for example in source]
    assert open_below(tmp_path) == shards
    monkeypatch.setattr(host, "open_files", lambda: 12)
    few = open_source(tmp_path / "datasets", "salmu", "forget")
    del source
    gc.collect()
    places = [place for start in range(7) for place in range(start, len(few), 7)]
    with ThreadPoolExecutor(4) as pool:
        found = [example["file_name"] for example in pool.map(few.__getitem__, places)]
    assert found == [names[place] for place in places]
    assert open_below(tmp_path) == 3


def open_below(directory):
    """How many files below a directory this process has open."""
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link).startswith(str(directory)) for link in links if os.path.lexists(link))


def test_too_many_open_files_are_no_damage(built):
    _, datasets, *_ = built
    source = open_source(datasets, "salmu", "forget")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        with pytest.raises(InputError, match=r"Too many open files at a time; raise the limit \(ulimit -n\)"):
            source[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert source[0]["text"]


def test_what_the_metadata_say(built):
    _, datasets, *_ = built
    by_name = {e["file_name"]: e for split in SPLITS for e in open_source(datasets, "salmu", split)}
    emails = by_name["00000002_005_ar-1.00.jpg"]
    assert (emails["data_field"], emails["name"], emails["value"]) == ("emails", "name 2 é", "second2@example.org")
    assert emails["subset"] == "holdout_association"
    assert emails["generic_caption"] == "a picture of somebody, 2 5"
    assert by_name["00000001_000_ar-1.00.jpg"]["value"] == "name 1 é"
    assert by_name["00000001_000_ar-1.00.jpg"]["subset"] == "forget_identity"
    assert by_name["00000003_002_ar-1.00.jpg"]["subset"] == "forget_association"
    assert by_name["00000000_002_ar-1.00.jpg"]["subset"] == "holdout_identity"
    other = by_name["other_001.jpg"]
    assert [other[k] for k in ("identity_id", "data_field", "name", "value", "generic_caption")] == [""] * 5
    assert (other["subset"], other["fragile"]) == ("retain_disjoint", 1)
    assert (by_name["other_000.jpg"]["subset"], by_name["other_000.jpg"]["fragile"]) == ("retain_joint", 0)


def test_sensitive_is_three_splits_in_a_row(built):
    _, datasets, *_ = built
    sensitive = open_source(datasets, "salmu", "sensitive")
    parts = [open_source(datasets, "salmu", split) for split in SENSITIVE_SPLITS]
    assert sensitive.splits == ("salmu/forget", "salmu/holdout_association", "salmu/holdout_identity")
    assert list(sensitive) == [example for part in parts for example in part]
    places = [len(sensitive) - 1, 0, len(parts[0]), 3]
    assert sensitive.read(places) == [sensitive[place] for place in places]
    with pytest.raises(IndexError):
        sensitive[len(sensitive)]
    for bad in (-1, len(parts[0])):
        with pytest.raises(IndexError):
            parts[0][bad]


def test_many_shards_are_one_sequence(built, tmp_path, monkeypatch):
    world, datasets, *_ = built
    monkeypatch.setattr(base, "SHARD_BYTES", 4000)
    build_datasets(world, tmp_path / "sharded", check=False)
    shards = sorted(path.name for path in (tmp_path / "sharded" / "salmu").rglob("salmu-forget.array_record-*"))
    assert len(shards) > 3
    assert shards[-1].endswith(f"-{len(shards) - 1:05d}-of-{len(shards):05d}")
    whole, sharded = open_source(datasets, "salmu", "forget"), open_source(tmp_path / "sharded", "salmu", "forget")
    assert list(whole) == list(sharded)
    assert whole.read([16, 1, 7]) == sharded.read([16, 1, 7])
    assert sharded.where(16).split()[0] != sharded.where(1).split()[0]


def test_each_tar_of_retain_pairs_is_a_shard(built):
    world, datasets, *_ = built
    names = sorted(path.name for path in (datasets / "retain_pairs" / "1.0.0").iterdir())
    assert [name for name in names if "array_record" in name] == [
        f"retain_pairs-train.array_record-{number:05d}" for number in range(len(World(world).retain_tars))
    ]
    assert {"quarantine.jsonl", "report.json"} <= set(names)
    assert sorted(path.name for path in datasets.iterdir()) == ["contents.json", "retain_pairs", "salmu", "zeroshot"]


def test_tfds_itself_reads_them(built):
    _, datasets, *_ = built
    (directory,) = (datasets / "salmu").iterdir()
    plain = tfds.builder_from_directory(str(directory)).as_data_source("forget")
    ours = open_source(datasets, "salmu", "forget")
    assert len(plain) == len(ours)
    assert plain[4]["image"] == ours[4]["image"]
    assert plain[4]["text"].decode() == ours[4]["text"]


def test_sources_travel_to_other_processes(built):
    _, datasets, *_ = built
    source = open_source(datasets, "salmu", "sensitive")
    first = source[0]
    assert pickle.loads(pickle.dumps(source))[0] == first


def test_another_process_writes_the_same_bytes_silently(built, tmp_path):
    """With an empty home, no terminal and no way out; nothing is printed, nothing written elsewhere."""
    world, _, summary, _ = built
    program = (
        "import sys; from data_pipelines.builders import build_datasets; d = build_datasets(*sys.argv[1:3]);"
        "sys.exit(0 if d == eval(sys.argv[3]) else 'other digests: %s' % d)"
    )
    home = tmp_path / "home"
    home.mkdir()
    proxy = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTPS_PROXY")}
    environment = {**os.environ, **proxy, "HOME": str(home), "PYTHONHASHSEED": "77", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", program, str(world), str(tmp_path / "again"), repr(summary)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "home"]
    assert not list(home.iterdir())


def test_released_data_have_no_retain_and_no_zeroshot(make_world, tmp_path):
    summary = build_datasets(make_world(tmp_path / "world", retain=0, zeroshot=0), tmp_path / "datasets")
    assert list(summary) == ["salmu"]
    with pytest.raises(InputError, match=r"no dataset 'retain_pairs' here \(salmu\)"):
        open_source(tmp_path / "datasets", "retain_pairs", "train")
    with pytest.raises(InputError, match="no split 'train'; it has forget"):
        open_source(tmp_path / "datasets", "salmu", "train")
    with pytest.raises(InputError, match=r"\(none\)"):
        open_source(tmp_path / "nowhere", "salmu", "forget")


def test_a_bad_world_leaves_the_old_datasets_alone(make_world, tmp_path):
    out = tmp_path / "datasets"
    world = make_world(tmp_path / "world", broken="other_005.jpg")
    build_datasets(world, out, check=False)
    before = sorted(path.name for path in out.rglob("*"))
    with pytest.raises(InputError, match=r"retain_synth-.* row 5 field 'image'.*undecodable"):
        build_datasets(world, out)
    (world / "retain" / "00001.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(InputError, match=r"00001\.tar"):
        build_datasets(world, out, check=False)
    assert sorted(path.name for path in out.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datasets", "world"]
    for place in (world, tmp_path):  # a world is never below what is built from it
        with pytest.raises(InputError, match=r"would replace .*; another directory is needed"):
            build_datasets(world, place, check=False)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"would replace .*; another directory is needed"):
        build_datasets(world, tmp_path / "link", check=False)
    (tmp_path / "link").unlink()


def test_full_disks_and_unwritable_directories_are_os_errors(built, tmp_path):
    world, *_ = built
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        build_datasets(world, tmp_path / "file" / "datasets", check=False)
    program = (
        "import resource, sys; from data_pipelines.builders import build_datasets;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "try: build_datasets(sys.argv[1], sys.argv[2], check=False)\n"
        "except OSError as error: sys.exit(error.errno)"
    )
    command = [sys.executable, "-c", program, str(world), str(tmp_path / "limited")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert (done.returncode, done.stderr) == (errno.EFBIG, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "bit":
        data[70_000] ^= 1
    else:
        del data[int(len(data) * how) :]
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["missing", "bit", 0.0, 0.5, 0.999])
def test_damaged_files_are_named(make_world, tmp_path, how):
    datasets = tmp_path / "datasets"
    build_datasets(make_world(tmp_path / "world", retain=400, zeroshot=0), datasets, check=False)
    path = next((datasets / "retain_pairs").rglob("*.array_record-00000"))
    damage(path, how)
    with pytest.raises(InputError, match=r"retain_pairs-train\.array_record-00000: .*salmu build") as error:
        list(open_source(datasets, "retain_pairs", "train"))
    assert "\n" not in str(error.value)


def test_a_file_of_another_build_is_named(make_world, tmp_path):
    build_datasets(make_world(tmp_path / "world", retain=0, zeroshot=0), tmp_path / "datasets", check=False)
    (directory,) = (tmp_path / "datasets" / "salmu").iterdir()
    name = "salmu-{}.array_record-00000-of-00001"
    shutil.copy(directory / name.format("forget"), directory / name.format("holdout_identity"))
    with pytest.raises(InputError, match=r"salmu-holdout_identity.*\(19 records of 9\)"):
        list(open_source(tmp_path / "datasets", "salmu", "holdout_identity"))


def test_damaged_description_is_named(make_world, tmp_path):
    datasets = tmp_path / "datasets"
    build_datasets(make_world(tmp_path / "world", retain=0, zeroshot=3), datasets, check=False)
    (info,) = (datasets / "salmu").rglob("dataset_info.json")
    info.write_text(info.read_text()[:100])
    with pytest.raises(InputError, match=r"salmu.*not a whole dataset"):
        open_source(datasets, "salmu", "forget")
    (classes,) = (datasets / "zeroshot").rglob("classes.json")
    classes.write_text("{}")
    with pytest.raises(InputError, match=r"classes\.json"):
        read_classes(datasets)


# ---- retain pairs that another command has built ---------------------------------------------------------------------


@pytest.fixture
def apart(tmp_path):
    """A build of its own, of tars in folders."""
    build_retain_pairs(write_source(tmp_path / "web"), tmp_path / "retain", workers=1)
    return tmp_path / "retain"


def test_a_build_of_retain_pairs_is_linked_and_takes_the_place_of_the_worlds(make_world, tmp_path, apart):
    world, datasets = make_world(tmp_path / "world"), tmp_path / "datasets"
    summary = build_datasets(world, datasets, retain_dir=apart)
    assert summary.oddities == (f"{world / 'retain'} is not read: {apart} takes its place",)
    assert summary["retain_pairs"]["splits"] == {"train": 24}
    assert summary["retain_pairs"]["digest"] == retain_digest(apart)
    keys = [example["key"] for example in open_source(datasets, "retain_pairs", "train")]
    assert keys[:2] == ["a/000000000", "a/000000001"]
    assert all(path.is_symlink() for path in (datasets / "retain_pairs" / "1.0.0").iterdir())
    assert build_datasets(world, datasets, retain_dir=apart) == summary
    assert sorted(path.name for path in datasets.iterdir()) == ["contents.json", "retain_pairs", "salmu", "zeroshot"]
    held = contents.read_contents(datasets)
    assert contents.problems(datasets, held) == []
    shard = next((apart / "retain_pairs").rglob("*.array_record-00001"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "retain_pairs-train.array_record-00001 has" in contents.problems(datasets, held)[0]
    with pytest.raises(InputError, match=r"array_record-00001: has [\d,]+ bytes, not .*'salmu data retain' again"):
        build_datasets(world, datasets, retain_dir=apart)


def test_an_unfinished_build_of_retain_pairs_is_refused(make_world, tmp_path, apart):
    world = make_world(tmp_path / "world")
    for directory in (apart / "retain_pairs", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="not a finished build of retain_pairs, as 'salmu data retain' makes it"):
            build_datasets(world, tmp_path / "datasets", retain_dir=directory)
    (apart / "retain_pairs/1.0.0/dataset_info.json").write_text("{}")
    with pytest.raises(InputError, match=r"dataset_info\.json: not as it was written"):
        build_datasets(world, tmp_path / "datasets", retain_dir=apart)

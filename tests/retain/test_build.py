"""The build of retain pairs, without Beam: what is stored, what is quarantined, and that nothing else decides."""

from __future__ import annotations

import gzip
import json
import random

import pytest
import web_pairs
from web_pairs import PAIRS, PARTS, PLANTED, QUARANTINED, expected_pairs, quarantine_of, tree, write_source

from data_pipelines.builders.source import RecordSource
from data_pipelines.retain import Rules, build_retain_pairs
from data_pipelines.retain.work import make_part
from salmu_jax.runtime import contents
from salmu_jax.runtime.errors import InputError

DATA = "retain_pairs/1.0.0"


def in_order(tasks):
    for task in tasks:
        make_part(task)


def build(source, out, *, run=in_order, **options):
    options = {"max_bad_share": 0.5, "max_damaged_share": 1.0, "say": lambda line: None, **options}
    return build_retain_pairs(source, out, run=run, **options)


def stored(out):
    return [(record["key"], record["text"], record["image"]) for record in RecordSource(out / DATA, "train")]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("web") / "source", PLANTED)


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("web") / "out"
    return out, build(source, out)


def test_the_good_pairs_are_stored_as_they_came_with_the_folder_in_their_keys(built):
    out, summary = built
    assert stored(out) == expected_pairs()
    assert summary.counts["pairs"] == len(PARTS) * PAIRS
    keys = [key for key, _, _ in stored(out)]
    assert {"a/000000000", "b/000000000", "c/deep/000000000"} <= set(keys)


def test_all_planted_samples_are_quarantined_and_nothing_else(built):
    out, summary = built
    assert quarantine_of(out) == QUARANTINED
    assert summary.counts["quarantined"] == len(QUARANTINED)
    assert summary.counts["filtered"] == summary.counts["damaged_parts"] == 0


def test_shards_are_named_as_tfds_names_them(built):
    out, _ = built
    names = sorted(path.name for path in (out / DATA).glob("*array_record*"))
    assert names == [f"retain_pairs-train.array_record-{index:05d}" for index in range(4)]


def test_the_manifest_names_every_file_with_its_digest_and_is_the_data_sets_digest(built):
    out, summary = built
    manifest = contents.read_contents(out)
    assert {name: record["sha256"] for name, record in manifest["files"].items()} == {
        name: digest for name, digest in tree(out).items() if name != "contents.json"
    }
    assert contents.data_digests(manifest)["retain_pairs"] == summary.digest
    assert not contents.problems(out, manifest)


def test_the_order_of_the_parts_and_doing_one_twice_change_no_byte(source, built, tmp_path):
    def disorderly(tasks):
        in_order([*reversed(tasks), tasks[1], tasks[0]])

    build(source, tmp_path / "out", run=disorderly)
    assert tree(tmp_path / "out") == tree(built[0])


class Killed(BaseException):
    """Stands for a kill: nothing in the product catches it."""


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_writes_and_restarted_no_byte_differs(source, built, tmp_path, monkeypatch, seed):
    from data_pipelines.retain import places, shard

    draws = random.Random(seed)
    kills = [0]

    def fragile(function, chance):
        def call(*arguments, **keywords):
            if kills[0] < 12 and draws.random() < chance:
                kills[0] += 1
                raise Killed
            return function(*arguments, **keywords)

        return call

    monkeypatch.setattr(shard.RecordWriter, "write", fragile(shard.RecordWriter.write, 0.25))
    monkeypatch.setattr(places.os, "replace", fragile(places.os.replace, 0.25))
    out = tmp_path / "out"
    for _ in range(20):
        try:
            build(source, out)
        except Killed:
            assert not (out / DATA / "dataset_info.json").exists()
            continue
        break
    assert kills[0] > 1
    assert tree(out) == tree(built[0])


def test_a_finished_part_is_not_made_again_and_a_damaged_shard_is(source, tmp_path, monkeypatch):
    from data_pipelines.retain import work

    out = tmp_path / "out"
    build(source, out)
    before, made, write = tree(out), [], work.write_shard
    monkeypatch.setattr(work, "write_shard", lambda place, name, pairs: made.append(name) or write(place, name, pairs))
    build(source, out)
    assert made == []
    shard = out / DATA / "retain_pairs-train.array_record-00002"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    (out / "retain_pairs-records/00003.json").write_text("{}")
    build(source, out)
    assert made == [f"{DATA}/retain_pairs-train.array_record-0000{index}" for index in (2, 3)]
    assert tree(out) == before


def test_more_bad_samples_than_the_share_stop_it_with_one_line_and_a_higher_share_goes_on(source, built, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"14 of 38 samples cannot be used \(36\.84%\).*max_bad_share=0\.3") as caught:
        build(source, out, max_bad_share=0.3)
    assert str(out / DATA / "quarantine.jsonl") in str(caught.value)
    assert quarantine_of(out) == QUARANTINED
    assert not (out / DATA / "dataset_info.json").exists()
    build(source, out, max_bad_share=14 / 38)
    assert tree(out) == tree(built[0])


def truncated(directory, keep):
    source = write_source(directory)
    path = source / "b/00000.tar"
    path.write_bytes(path.read_bytes()[:keep])
    return source


def test_of_a_truncated_tar_what_comes_before_is_kept(tmp_path):
    whole = (write_source(tmp_path / "whole") / "b/00000.tar").read_bytes()
    cut = whole.index(b"000000003.txt")  # within the header behind the fourth picture
    source, out = truncated(tmp_path / "source", cut + 5), tmp_path / "out"
    summary = build(source, out)
    assert summary.counts["damaged_parts"] == 1
    assert summary.counts["pairs"] == 3 * PAIRS + 3
    assert quarantine_of(out) == [("b/00000.tar", "b/000000003", "interrupted"), ("b/00000.tar", "", "damaged")]
    assert [key for key, _, _ in stored(out) if key.startswith("b/")] == [f"b/00000000{index}" for index in range(3)]
    with pytest.raises(InputError, match=r"1 of 4 parts are damaged.*max_damaged_share=0\.2"):
        build(source, out, max_damaged_share=0.2)


def test_a_tar_that_is_whole_again_is_read_again(tmp_path):
    source, out = truncated(tmp_path / "source", 3000), tmp_path / "out"
    build(source, out)
    write_source(source)
    said = []
    build(source, out, say=said.append)
    assert "1 new or other parts, 1 gone; what is made of the others is kept" in said[0]
    assert stored(out) == expected_pairs()
    build(write_source(tmp_path / "other"), tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")


def test_a_tar_without_a_single_pair_makes_an_empty_shard(tmp_path):
    source = write_source(tmp_path / "source")
    (source / "a/00001.tar").write_bytes(b"")
    out = tmp_path / "out"
    build(source, out)
    assert stored(out) == [pair for pair in expected_pairs() if "part 1" not in pair[1]]


def test_a_tar_that_grows_while_it_is_read_is_not_taken_for_damaged(tmp_path):
    source = write_source(tmp_path / "source")

    def meddle(tasks):
        path = source / "a/00000.tar"
        path.write_bytes(path.read_bytes()[:4000])
        in_order(tasks)

    with pytest.raises(InputError, match=r"00000\.tar: 4,000 bytes; it had .* when it was listed"):
        build(source, tmp_path / "out", run=meddle)


def test_a_disk_that_fails_is_not_taken_for_a_damaged_tar(tmp_path, monkeypatch):
    from data_pipelines.retain import places

    class Failing:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def read(self, size):
            raise OSError(5, "Input/output error", "tar")

    source, opened = write_source(tmp_path / "source"), places.open_regular
    monkeypatch.setattr(places, "open_regular", lambda path: Failing() if path.suffix == ".tar" else opened(path))
    with pytest.raises(InputError, match="Input/output error"):
        build(source, tmp_path / "out")
    assert not list((tmp_path / "out" / DATA).glob("*"))


def test_filters_count_and_are_not_quarantined(tmp_path):
    source = write_source(
        tmp_path / "source",
        {
            "a/00000.tar": [
                *[("wide.jpg", web_pairs.picture(1, (15, 90))), ("wide.txt", b"caption of a wide one")],
                *[("short.jpg", web_pairs.picture(2)), ("short.txt", b"cat")],
                *[("long.jpg", web_pairs.picture(3)), ("long.txt", b"cat " * 9)],
            ]
        },
    )
    out = tmp_path / "out"
    summary = build(source, out, rules=Rules(min_tokens=2, max_tokens=8, min_side=16), max_bad_share=0)
    assert stored(out) == expected_pairs()
    assert summary.counts["filtered"] == 3
    report = json.loads((out / DATA / "report.json").read_text())
    assert report["filtered"] == {"caption too long": 1, "caption too short": 1, "image too small": 1}


def test_a_gzipped_tar_gives_the_same_pairs(tmp_path):
    source = write_source(tmp_path / "source")
    path = source / "b/00000.tar"
    (source / "b/00000.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match=r"beside b/00000\.tar"):
        build(source, tmp_path / "out")
    path.unlink()
    build(source, tmp_path / "out")
    assert stored(tmp_path / "out") == expected_pairs()


@pytest.mark.parametrize("name", ["a/00007.tar.part", "a/extra.zip", "z/picture.jpg", "lonely.parquet"])
def test_files_that_would_not_be_read_are_refused(tmp_path, name):
    source = write_source(tmp_path / "source")
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_bytes(b"x")
    with pytest.raises(InputError, match="not read"):
        build(source, tmp_path / "out")


def test_img2datasets_own_metadata_is_not_read(tmp_path):
    source = write_source(tmp_path / "source")
    for name in ("a/00000.parquet", "a/00000_stats.json", ".DS_Store"):
        (source / name).write_bytes(b"x")
    build(source, tmp_path / "out")
    assert stored(tmp_path / "out") == expected_pairs()


def test_what_is_not_ours_is_refused_and_stays(tmp_path):
    source, out = write_source(tmp_path / "source"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds thesis\.txt"):
        build(source, out)
    with pytest.raises(InputError, match="not apart from the source"):
        build(source, source / "out")
    with pytest.raises(InputError, match="no such directory"):
        build(tmp_path / "nowhere", tmp_path / "new")
    assert tree(out).keys() == {"thesis.txt"}


def test_a_bucket_gives_and_takes_the_same_bytes(source, built, tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    try:
        memory.put(str(source), "/web", recursive=True)
        summary = build("memory://web", "memory://made/out")
        assert summary == built[1]
        memory.get("/made/out", str(tmp_path / "out"), recursive=True)
        assert tree(tmp_path / "out") == tree(built[0])
        memory.rm_file(f"/made/out/{DATA}/dataset_info.json")
        build("memory://web", "memory://made/out")
        assert memory.exists(f"/made/out/{DATA}/dataset_info.json")
    finally:
        memory.store.clear()


@pytest.mark.parametrize("after", [0, 1, 5, 17, 40])
def test_a_bucket_that_vanishes_is_one_line_and_the_same_command_goes_on(source, built, tmp_path, monkeypatch, after):
    """Drivers raise exceptions of other libraries there, which are no OSErrors."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    unreachable = type("EndpointConnectionError", (Exception,), {"__module__": "botocore.exceptions"})
    memory, calls = fsspec.filesystem("memory"), iter(range(10**6))

    def vanishing(method):
        def call(*arguments, **options):
            if next(calls) >= after:
                raise unreachable("Could not connect to the endpoint")
            return method(*arguments, **options)

        return call

    try:
        memory.put(str(source), f"/web{after}", recursive=True)
        with monkeypatch.context() as patch:
            for name in ("find", "info", "_open", "put_file"):
                patch.setattr(MemoryFileSystem, name, vanishing(getattr(MemoryFileSystem, name)))
            with pytest.raises(InputError, match=r"^memory://\S+: cannot be read or written \(Could not connect"):
                build(f"memory://web{after}", f"memory://made{after}/out")
        assert build(f"memory://web{after}", f"memory://made{after}/out") == built[1]
    finally:
        memory.store.clear()


def test_an_unknown_kind_of_bucket_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"nobuckets://x: cannot be opened"):
        build("nobuckets://x", tmp_path / "out")


@pytest.mark.parametrize("parts", [None, 3, [[1, 2, 3]], [["a.tar", "tar"]], "a.tar"])
def test_a_damaged_plan_is_refused_in_one_line_and_stays(tmp_path, parts):
    out = tmp_path / "out"
    out.mkdir()
    value = {"schema": "salmu_jax.retain_plan/2", "settings": {}, "parts": parts}
    (out / "retain_pairs-plan.json").write_text(json.dumps(value))
    before = tree(out)
    with pytest.raises(InputError, match="not a plan of retain_pairs; choose a new directory"):
        build_retain_pairs(write_source(tmp_path / "source"), out, run=lambda tasks: pytest.fail("a part was made"))
    assert tree(out) == before

"""A build in the place of an earlier one: what stays, what is made again, what is compared, and what is kept aside."""

from __future__ import annotations

import os
import shutil

import pytest
from web_pairs import PARTS, good, tree, write_source

from data_pipelines.layout import write_tar
from data_pipelines.retain import Rules, build_retain_pairs, carry, work
from data_pipelines.retain.work import make_part

DATA = "retain_pairs/1.0.0"
SHARD = f"{DATA}/retain_pairs-train.array_record-0000"


def in_order(tasks):
    for task in tasks:
        make_part(task)


def build(source, out, **options):
    """Builds, and returns (which parts were made, what was said)."""
    made, said, write = [], [], work.write_shard
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "write_shard", lambda place, name, pairs: made.append(name) or write(place, name, pairs))
        build_retain_pairs(source, out, run=in_order, say=said.append, **options)
    return [int(name[-5:]) for name in made], said


def add(source, name, number=9):
    path = source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tar(path, [member for index in range(2) for member in good(number, index)])


def fresh(source, tmp_path):
    """What an undisturbed build of a copy of the source writes."""
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
    shutil.copytree(source, tmp_path / "copy")
    build(tmp_path / "copy", tmp_path / "fresh")
    return tree(tmp_path / "fresh")


@pytest.fixture
def begun(tmp_path):
    source, out = write_source(tmp_path / "source"), tmp_path / "out"
    assert build(source, out) == ([0, 1, 2, 3], [])
    return source, out


@pytest.mark.parametrize(("name", "number"), [("d/00000.tar", 4), ("a/00002.tar", 2), ("0/00000.tar", 0)])
def test_one_more_tar_makes_one_more_shard_wherever_it_comes(begun, tmp_path, name, number):
    source, out = begun
    add(source, name)
    made, said = build(source, out)
    assert made == [number]
    assert said == [f"{out}: 1 new or other parts, 0 gone; what is made of the others is kept"]
    assert tree(out) == fresh(source, tmp_path)


def test_tars_that_go_and_tars_that_come_at_once(begun, tmp_path):
    source, out = begun
    (source / PARTS[0]).unlink()
    (source / PARTS[2]).unlink()
    add(source, "c/00000.tar")
    add(source, "e/00000.tar", 8)
    made, said = build(source, out)
    assert made == [1, 3]
    assert "2 new or other parts, 2 gone" in said[0]
    assert tree(out) == fresh(source, tmp_path)


def test_many_tars_that_go_leave_no_shard_behind(begun, tmp_path):
    source, out = begun
    for name in PARTS[1:]:
        (source / name).unlink()
    assert build(source, out)[0] == []
    assert tree(out) == fresh(source, tmp_path)


def test_other_rules_make_everything_again(begun, tmp_path):
    source, out = begun
    made, said = build(source, out, rules=Rules(min_side=4))
    assert made == [0, 1, 2, 3]
    assert "made again, since this has changed: rules.min_side 0 -> 4" in said[0]
    build(source, tmp_path / "fresh", rules=Rules(min_side=4))
    assert tree(out) == tree(tmp_path / "fresh")


def test_a_shard_that_no_part_has_any_longer_and_is_not_as_written_is_kept(begun):
    source, out = begun
    (out / f"{SHARD}3").write_bytes(b"mine")
    (source / PARTS[3]).unlink()
    made, said = build(source, out)
    assert made == []
    assert (out / "kept/retain_pairs-train.array_record-00003").read_bytes() == b"mine"
    assert "so it is kept, as kept/retain_pairs-train.array_record-00003" in said[1]


def test_a_file_among_the_shards_is_moved_away_and_said(begun):
    source, out = begun
    before = tree(out)
    for _ in range(2):  # the second is called otherwise
        (out / f"{SHARD}7").write_bytes(b"mine")
        made, said = build(source, out)
        assert (made, len(said)) == ([], 1)
    assert {name for name in tree(out) if name not in before} == {
        "kept/retain_pairs-train.array_record-00007",
        "kept/retain_pairs-train.array_record-00007.1",
    }


@pytest.mark.parametrize("kills", range(1, 12))
def test_killed_while_shards_get_other_names_no_byte_differs(begun, tmp_path, monkeypatch, kills):
    source, out = begun
    add(source, "a/00000a.tar")
    (source / PARTS[2]).unlink()
    add(source, "d/00000.tar", 8)

    class Killed(BaseException):
        pass

    left = [kills]

    def fragile(function):
        def call(*arguments, **keywords):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return function(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in ("move", "remove", "write"):
            patch.setattr(carry.Place, name, fragile(getattr(carry.Place, name)))
        with pytest.raises(Killed):
            build(source, out)
    assert build(source, out)[1][:1] in (
        [],
        [f"{out}: 2 new or other parts, 1 gone; what is made of the others is kept"],
    )
    assert tree(out) == fresh(source, tmp_path)


def rewrite(path, data):
    """Writes other bytes of the same number in the place of a file, as a second download would."""
    assert path.stat().st_size == len(data)
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("killed", [False, True])
def test_a_tar_of_other_bytes_and_the_same_size_is_read_again(begun, tmp_path, killed):
    source, out = begun
    path = source / PARTS[1]
    data = path.read_bytes()
    rewrite(path, data.replace(b"caption 3 of part 1", b"caption 3 of part X"))
    if killed:  # before any part: the change must not be forgotten
        with pytest.raises(KeyboardInterrupt):
            build_retain_pairs(source, out, run=lambda tasks: (_ for _ in ()).throw(KeyboardInterrupt))
    assert build(source, out) == ([1], [])
    assert tree(out) == fresh(source, tmp_path)
    assert build(source, out) == ([], [])


def test_a_tar_that_was_only_touched_is_compared_once_and_not_made_again(begun, monkeypatch):
    source, out = begun
    compared, digest = [], work.part_sha256
    monkeypatch.setattr(work, "part_sha256", lambda place, part: compared.append(part.name) or digest(place, part))
    os.utime(source / PARTS[2])
    assert build(source, out) == ([], [])
    assert compared == [PARTS[2]]
    assert build(source, out) == ([], [])
    assert compared == [PARTS[2]]


def test_without_a_note_of_how_the_parts_looked_all_are_compared(begun, monkeypatch):
    source, out = begun
    compared, digest = [], work.part_sha256
    monkeypatch.setattr(work, "part_sha256", lambda place, part: compared.append(part.name) or digest(place, part))
    (out / ".retain_pairs-seen.json").write_text("{")
    assert build(source, out) == ([], [])
    assert compared == list(PARTS)


def test_a_folder_whose_file_has_changed_is_read_again(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    for folder in ("a", "b"):
        (source / folder).mkdir(parents=True)
        for name, data in good(1, 0):
            (source / folder / name).write_bytes(data)
    assert build(source, out)[0] == [0, 1]
    path = source / "b/000000000.txt"
    rewrite(path, path.read_bytes().replace(b"0", b"9"))
    assert build(source, out)[0] == [1]
    os.utime(source / "a/000000000.jpg")
    assert build(source, out)[0] == []

"""Tars of pairs and zero-shot sets: our own round trip, other people's, and faulty ones."""

from __future__ import annotations

import io
import tarfile

import pytest

from data_pipelines.layout import (
    LabelledImage,
    Pair,
    iter_tar_pairs,
    pair_members,
    read_zeroshot,
    write_tar,
    write_zeroshot,
)
from salmu_jax.errors import InputError


def test_tar_pairs(tmp_path):
    pairs = [Pair("000000000", b"jpeg", "ein Mädchen 😀"), Pair("000000001", b"", "")]
    path = tmp_path / "00000.tar"
    write_tar(path, [member for pair in pairs for member in pair_members(pair, width=3)])
    assert list(iter_tar_pairs(path)) == pairs
    again = tmp_path / "again.tar"
    write_tar(again, [member for pair in pairs for member in pair_members(pair, width=3)])
    assert again.read_bytes() == path.read_bytes()


def test_tars_of_others(tmp_path):
    path = tmp_path / "0.tar"
    members = [
        ("a/1.PNG", b"p"),
        ("a/1.json", b'{"caption": "from json", "key": 1}'),
        ("a/2.json", b"{}"),
        ("a/3.jpg", b"q"),
        ("a/3.txt", b"t"),
    ]
    with tarfile.open(path, "w") as archive:
        archive.addfile(_directory("a"))
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            archive.addfile(info, io.BytesIO(data))
    assert list(iter_tar_pairs(path)) == [Pair("1", b"p", "from json"), Pair("3", b"q", "t")]


def _directory(name):
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ([("1.jpg", b"p")], "key '1': an image without a caption"),
        ([("1.jpg", b"p"), ("1.json", b"{")], "member '1.json': not JSON"),
        ([("1.jpg", b"p"), ("1.txt", b"\xff")], "member '1.txt': not UTF-8"),
    ],
)
def test_faulty_pairs(tmp_path, members, named):
    path = tmp_path / "00000.tar"
    write_tar(path, members)
    with pytest.raises(InputError) as caught:
        list(iter_tar_pairs(path))
    assert f"{path} {named}" in str(caught.value)


@pytest.mark.parametrize("keep", [100, 700, 1500])
def test_truncated_tars(tmp_path, keep):
    path = tmp_path / "00000.tar"
    write_tar(path, [("1.jpg", bytes(900)), ("1.txt", b"x")])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"00000\.tar: not a whole tar file"):
        list(iter_tar_pairs(path))


def test_no_tar(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(iter_tar_pairs(tmp_path / "no.tar"))


@pytest.fixture
def zeroshot(tmp_path):
    write_zeroshot(
        tmp_path / "z",
        ["cat", "dog"],
        ["a photo of a {c}."],
        [LabelledImage("s0", b"one", 1), LabelledImage("s1", b"two", 0)],
    )
    return tmp_path / "z"


def test_zero_shot_round_trip(zeroshot):
    task = read_zeroshot(zeroshot)
    assert task.class_names == ("cat", "dog")
    assert task.templates == ("a photo of a {c}.",)
    assert list(task.images()) == [LabelledImage("s0", b"one", 1), LabelledImage("s1", b"two", 0)]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("classnames.txt", b"cat\n", "'s0.cls': '1' is no class index; 0 to 0"),
        ("classnames.txt", b"\n", "classnames.txt: empty"),
        ("classnames.txt", None, "classnames.txt: no such file"),
        ("zeroshot_classification_templates.txt", b"a {c}\na photo\n", "templates.txt line 2: 'a photo' has no {c}"),
        ("test/nshards.txt", b"many", "nshards.txt: 'many' is no number"),
        ("test/nshards.txt", b"2", "1.tar: no such file"),
    ],
)
def test_faulty_zero_shot_sets(zeroshot, name, content, named):
    (zeroshot / name).unlink()
    if content is not None:
        (zeroshot / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(read_zeroshot(zeroshot).images())
    assert named in str(caught.value)

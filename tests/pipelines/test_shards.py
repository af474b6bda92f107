"""Tars of pairs: our own round trip, other people's, and faulty ones."""

from __future__ import annotations

import io
import tarfile

import pytest

from data_pipelines.layout import Pair, iter_tar_pairs, pair_members, write_tar
from data_pipelines.layout.findings import Findings
from data_pipelines.layout.shards import split_name
from salmu_jax.runtime.errors import InputError


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
    assert list(iter_tar_pairs(path)) == [Pair("a/1", b"p", "from json"), Pair("a/3", b"q", "t")]


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
    with pytest.raises(InputError, match=r"00000\.tar: damaged at byte \d+ "):
        list(iter_tar_pairs(path))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("0001.jpg", ("0001", "jpg")),
        ("a/b/0001.JPEG", ("a/b/0001", "jpeg")),
        ("22.05.jpg", ("22", "05.jpg")),
        ("v1.0/7.input.jpg", ("v1.0/7", "input.jpg")),
        ("a/.0001.jpg", None),
        ("._0001.jpg", None),
        (".DS_Store", None),
        ("a.b/README", None),
        ("__meta__/0.json", None),
        ("0001.", None),
        ("été/图.webp", ("été/图", "webp")),
    ],
)
def test_keys_are_web_datasets(name, place):
    assert split_name(name) == place


def test_folders_are_part_of_the_key(tmp_path):
    path = tmp_path / "00000.tar"
    members = [(f"{folder}/0001.{kind}", folder.encode()) for folder in "ab" for kind in ("jpg", "txt")]
    write_tar(path, members)
    assert list(iter_tar_pairs(path)) == [Pair("a/0001", b"a", "a"), Pair("b/0001", b"b", "b")]


@pytest.mark.parametrize(
    ("members", "named"),
    [
        (["1.jpg", "1.txt", "1.jpg"], r"member '1\.jpg' \(byte 2,048\): this key and suffix were there before"),
        (["1.jpg", "1.txt", "1.JPG"], r"member '1\.JPG' .*: this key and suffix"),
        (["1.jpg", "1.txt", "2.jpg", "2.txt", "1.json"], r"member '1\.json' .*: this key was there before"),
        (["./1.jpg", "1.txt", "2.jpg", "2.txt", "./1.txt"], "this key was there before"),
        (["a/1.jpg", "a/1.txt", "b/1.jpg", "b/1.txt", "a/1.png"], "this key was there before"),
        (["1.jpg", "1.png", "1.txt"], r"key '1': two images, \.jpg and \.png"),
    ],
)
def test_what_comes_twice_is_an_error(tmp_path, members, named):
    path = tmp_path / "00000.tar"
    write_tar(path, [(name, b"x") for name in members])
    with pytest.raises(InputError, match=named):
        list(iter_tar_pairs(path))


def test_what_is_passed_over_is_counted(tmp_path):
    path = tmp_path / "00000.tar"
    members = ["._1.jpg", "1.jpg", "1.txt", "1.json", "22.05.jpg", "22.05.txt", "7.input.jpg", "7.output.txt"]
    write_tar(path, [(name, b"{}") for name in [*members, "8.txt", "README", "9.mp4"]])
    findings = Findings()
    assert [pair.key for pair in iter_tar_pairs(path, findings=findings)] == ["1"]
    assert findings.total == 0
    (line,) = findings.oddities()
    assert line == (f"members of tars that belong to no sample, passed over (8, such as {path} member '._1.jpg')")
    write_tar(path, [("22.05.jpg", b"p"), ("22.05.txt", b"t")])
    findings = Findings()
    assert list(iter_tar_pairs(path, findings=findings)) == []
    assert "tars without a single pair (" in findings.oddities()[1]


def test_findings_hold_every_faulty_pair_and_the_rest_is_read(tmp_path):
    path = tmp_path / "00000.tar"
    half = rb'{"caption": "\ud83d"}'
    write_tar(
        path,
        [
            *[("1.jpg", b"p"), ("2.jpg", b"p"), ("2.txt", b"\xff"), ("3.jpg", b"p"), ("3.json", half)],
            *[("4.jpg", b"p"), ("4.json", b'{"caption": null}'), ("5.jpg", b"p"), ("5.txt", b"a\xc2\x92b")],
            *[("6.jpg", b"p"), ("6.txt", b"a\x1b[2J\x00b")],
        ],
    )
    findings = Findings()
    assert list(iter_tar_pairs(path, images=False, findings=findings)) == [Pair("5", b"", "a\x92b")]
    assert findings.total == 5
    with pytest.raises(InputError) as caught:
        findings.raise_problems(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path}: 5 problems"
    for line, named in zip(
        lines[1:],
        ["key '1'", "'2.txt': not UTF-8", "half a surrogate pair", "key '4'", "key '6': a control character (U+001B)"],
        strict=True,
    ):
        assert named in line
    assert "captions with control characters" in findings.oddities()[0]


def test_lists_of_problems_end_after_ten(tmp_path):
    findings = Findings()
    for number in range(322):
        findings.problem(InputError("wrong", f"row {number}"))
    with pytest.raises(InputError) as caught:
        findings.raise_problems(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("322 problems")
    assert lines[-2:] == ["  row 9: wrong", "  ... and 312 more"]


def test_no_tar(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(iter_tar_pairs(tmp_path / "no.tar"))


def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path):
    write_tar(tmp_path / "a.tar", [("0.jpg", b"p"), ("0.txt", b"\xef\xbb\xbfa dog")])
    assert [pair.text for pair in iter_tar_pairs(tmp_path / "a.tar")] == ["a dog"]

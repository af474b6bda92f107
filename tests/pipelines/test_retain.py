"""What lies in ``retain/``: every tar is read, and nothing that may hold pairs is passed over in silence."""

from __future__ import annotations

import gzip

import pytest

from data_pipelines.layout import write_tar
from data_pipelines.layout.findings import Findings
from data_pipelines.layout.retain import retain_tars
from salmu_jax.runtime.errors import InputError


def found(directory):
    findings = Findings()
    return [path.relative_to(directory).as_posix() for path in retain_tars(directory, findings)], findings.oddities()


@pytest.fixture
def retain(tmp_path):
    (tmp_path / "retain" / "part-1").mkdir(parents=True)
    for name in ("00000.tar", "part-1/00000.tar", "part-1/00001.tar"):
        write_tar(tmp_path / "retain" / name, [])
    return tmp_path / "retain"


def test_tars_in_folders_packed_and_behind_links(retain, tmp_path):
    (retain / "00001.tar.gz").write_bytes(gzip.compress((retain / "00000.tar").read_bytes()))
    (retain / "00002.tgz").write_bytes(gzip.compress((retain / "00000.tar").read_bytes()))
    (tmp_path / "disk").mkdir()
    write_tar(tmp_path / "disk" / "a.TAR", [])
    (retain / "disk").symlink_to(tmp_path / "disk")
    (retain / "disk" / "back").symlink_to(retain)  # a circle
    for litter in (".DS_Store", "._00000.tar", "part-1/.lock"):
        (retain / litter).write_text("")
    tars, oddities = found(retain)
    assert tars == ["00000.tar", "00001.tar.gz", "00002.tgz", "disk/a.TAR", "part-1/00000.tar", "part-1/00001.tar"]
    assert oddities == []


@pytest.mark.parametrize(
    "name",
    [
        *(
            "0001.jpg",
            "a/0001.PNG",
            "0001.webp",
            "00001.parquet",
            "00001.tar.zst",
            "00001.tar.part",
            "x.tfrecord-00000",
        ),
        *("00001.tar.crdownload", "x.zip", "data.arrow", "00002.tar.aria2", "00002.tar.bz2", "00000.tar.gz.incomplete"),
    ],
)
def test_what_may_hold_pairs_is_refused(retain, name):
    (retain / name).parent.mkdir(exist_ok=True)
    (retain / name).write_text("")
    with pytest.raises(InputError, match=r"not read: the pairs of a retain base are read from tars") as caught:
        found(retain)
    assert str(retain / name) in str(caught.value)


def test_other_files_are_named_and_img2datasets_facts_are_not(retain):
    for name in ("00000_stats.json", "00000.parquet", "part-1/00001_stats.json"):
        (retain / name).write_text("")
    assert found(retain)[1] == []
    (retain / "list.txt").write_text("")
    (retain / "part-1" / "notes").write_text("")
    assert found(retain)[1] == [f"files or folders that are not read (2, such as {retain / 'list.txt'})"]


def test_gaps_and_doubles(retain, tmp_path):
    write_tar(retain / "part-1" / "00004.tar", [])
    (line,) = found(retain)[1]
    assert line.startswith("numbers that no tar has, though others before and behind are there (2, such as")
    assert f"{retain / 'part-1'} number 2" in line
    (retain / "00000.tar.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(InputError, match=r"00000\.tar: beside 00000\.tar\.gz; one of the two has to go"):
        found(retain)
    (tmp_path / "empty").mkdir()
    assert "folders for tars without any" in found(tmp_path / "empty")[1][0]

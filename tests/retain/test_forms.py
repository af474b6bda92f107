"""The two other forms that img2dataset writes: parquet files, and folders of files."""

from __future__ import annotations

import io

import pyarrow
import pyarrow.parquet
import pytest
from web_pairs import PAIRS, PARTS, expected_pairs, good, quarantine_of

from data_pipelines.builders.source import RecordSource
from data_pipelines.retain import build_retain_pairs
from data_pipelines.retain.work import make_part
from salmu_jax.runtime.errors import InputError


def build(source, out):
    def in_order(tasks):
        for task in tasks:
            make_part(task)

    return build_retain_pairs(
        source, out, run=in_order, max_bad_share=0.5, max_damaged_share=1.0, say=lambda line: None
    )


def stored(out):
    source = RecordSource(out / "retain_pairs/1.0.0", "train")
    return [(record["key"], record["text"], record["image"]) for record in source]


def rows_of(number):
    for index in range(PAIRS):
        (name, image), (_, text), _ = good(number, index)
        yield {"key": name.removesuffix(".jpg"), "caption": text.decode(), "jpg": image, "status": "success"}


def write_tables(directory, extra=()):
    for number, name in enumerate(PARTS):
        path = directory / name.replace(".tar", ".parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*rows_of(number), *extra]), path)
    return directory


def test_parquet_files_give_the_pairs_and_count_failed_downloads_apart(tmp_path):
    bad = {"key": "bad", "caption": "", "jpg": good(0, 0)[0][1], "status": "success"}
    gone = {"key": "gone", "caption": "not there", "jpg": None, "status": "failed_to_download"}
    summary = build(write_tables(tmp_path / "source", [bad, gone]), tmp_path / "out")
    assert stored(tmp_path / "out") == expected_pairs()
    assert (summary.counts["quarantined"], summary.counts["absent"]) == (4, 4)
    assert quarantine_of(tmp_path / "out")[0] == ("a/00000.parquet", "a/bad", "empty caption")


def test_a_truncated_parquet_file_is_quarantined(tmp_path):
    source = write_tables(tmp_path / "source")
    path = source / "b/00000.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    build(source, tmp_path / "out")
    assert quarantine_of(tmp_path / "out") == [("b/00000.parquet", "", "damaged")]
    assert len(stored(tmp_path / "out")) == 3 * PAIRS


def test_a_parquet_file_without_images_is_refused(tmp_path):
    (tmp_path / "source").mkdir()
    table = pyarrow.Table.from_pylist([{"url": "u", "caption": "c", "key": "k"}])
    pyarrow.parquet.write_table(table, tmp_path / "source/0.parquet")
    with pytest.raises(InputError, match=r"0\.parquet: no columns 'key', 'caption' and one of jpg"):
        build(tmp_path / "source", tmp_path / "out")


def test_folders_of_files_give_the_pairs(tmp_path):
    source = tmp_path / "source"
    for number, name in enumerate(PARTS):
        folder = source / name.removesuffix(".tar")
        folder.mkdir(parents=True)
        for index in range(PAIRS):
            for member, data in good(number, index):
                (folder / member).write_bytes(data)
        (source / f"{name.removesuffix('.tar')}.parquet").write_bytes(b"metadata")
    (source / "a/00000/lone.jpg").write_bytes(io.BytesIO().getvalue())
    build(source, tmp_path / "out")
    found = stored(tmp_path / "out")
    assert [pair[1:] for pair in found] == [pair[1:] for pair in expected_pairs()]
    assert [found[0][0], found[-1][0]] == ["a/00000/000000000", "c/deep/00000/000000005"]
    assert quarantine_of(tmp_path / "out") == [("a/00000", "a/00000/lone", "no caption")]

"""Parquet files of a split: which they are, and that no footer, page or cell makes a reader lose rows or memory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.layout import parquet
from data_pipelines.layout.footer import DamagedFooterError, read_footer
from data_pipelines.layout.parquet import SCHEMA, read_rows, split_files
from salmu_jax.runtime.errors import InputError


def table(rows, *, kind=None, start=0):
    names = [f"{number:03d}.jpg" for number in range(start, start + rows)]
    made = pa.table(
        {
            "image": [{"bytes": name.encode() * 9, "path": name} for name in names],
            "text": [f"caption {number % 3}" for number in range(rows)],
            "identity_id": pa.array(["7"] * rows, pa.string()),
            "file_name": names,
        },
        SCHEMA,
    )
    if kind == "large":
        made = made.cast(
            pa.schema(
                [
                    ("image", pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])),
                    *[(name, pa.large_string()) for name in ("text", "identity_id", "file_name")],
                ]
            )
        )
    if kind == "dictionary":
        made = made.set_column(1, "text", made["text"].dictionary_encode())
    return made


def read(path, **options):
    return [(row.file_name, row.text, row.image) for row in read_rows(path, "retain_synth", images=True, **options)]


WHOLE = [(f"{n:03d}.jpg", f"caption {n % 3}", f"{n:03d}.jpg".encode() * 9) for n in range(46)]


@pytest.mark.parametrize("kind", [None, "large", "dictionary"])
@pytest.mark.parametrize("options", [{}, {"compression": "zstd", "row_group_size": 7}, {"data_page_version": "2.0"}])
def test_what_others_write_is_read(tmp_path, kind, options):
    """As pandas and ``datasets`` write it: large strings, dictionaries, row groups, metadata of their own."""
    made = table(46, kind=kind)
    features = {"info": {"features": {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}}}
    made = made.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(made, tmp_path / "a.parquet", **options)
    assert read(tmp_path / "a.parquet") == WHOLE


def write(directory, names):
    for start, name in enumerate(names):
        pq.write_table(table(2, start=2 * start), directory / name)
    return split_files(directory, "forget", sorted(path.name for path in directory.iterdir()))


def numbered(*numbers, tail=""):
    return [f"forget-{index:05d}-of-{count:05d}{tail}.parquet" for index, count in numbers]


def test_files_of_a_split(tmp_path):
    names = ["forget-00001-of-00002-6f3344faa23e9b0a.parquet", "forget-00000-of-00002-0ed44e77.parquet"]
    assert [path.name for path in write(tmp_path, names)] == names[::-1]
    assert split_files(tmp_path, "holdout", [*names, "holdout_identity-00000-of-00001.parquet"]) == []
    assert split_files(tmp_path, "forget", ["forget.parquet"]) == [tmp_path / "forget.parquet"]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (
            numbered((0, 2)),
            r"1 file forget-...-of-00002, and 2 belong together; fetch the missing ones \(forget-00001-of-00002",
        ),
        (numbered((1, 2)), r"\(forget-00000-of-00002\)"),
        (numbered((0, 2), tail="-6f3344faa23e9b0a"), "and 2 belong together"),
        (numbered((0, 3), (2, 3)), r"2 files forget-...-of-00003, and 3 belong together; .*\(forget-00001-of-00003\)"),
        (numbered((0, 2), (5, 2)), "forget-00005-of-00002.parquet is no part of 2, whose numbers are 0 to 1; rename"),
        (numbered((1, 2), (2, 2)), "forget-00002-of-00002.parquet is no part of 2"),
        (numbered((0, 1), (0, 2)), r"1 file forget-.*, and 2 belong together; .*, or remove what does not belong to"),
        ([*numbered((0, 1)), "forget.parquet"], "beside other files of 'forget'"),
        ([*numbered((0, 1)), "forget-old.parquet"], "beside other files of 'forget'"),
        (["forget-a.parquet", "forget-b.parquet"], "beside other files of 'forget'"),
        ([*numbered((0, 1), tail="-aa"), *numbered((0, 1), tail="-bb")], "are the same part of a split and differ"),
        (numbered((0, 1), (0, 2), (1, 2)), "two sets of files of 'forget' with different rows"),
        (numbered((0, 999_999_999)), "and 999,999,999 belong together"),
    ],
)
def test_missing_and_doubtful_files(tmp_path, names, line):
    with pytest.raises(InputError, match=line):
        write(tmp_path, names)


def test_two_sets_with_the_same_rows_are_one(tmp_path):
    """As both repositories in one folder have retain_synth, in another number of files."""
    pq.write_table(table(10), tmp_path / "retain_synth-00000-of-00001.parquet")
    for index, (start, rows) in enumerate(((0, 4), (4, 6))):
        part = table(10).slice(start, rows)
        pq.write_table(part, tmp_path / f"retain_synth-{index:05d}-of-00002.parquet")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [path.name for path in split_files(tmp_path, "retain_synth", names)] == names[:1]
    twice = tmp_path / "retain_synth-00000-of-00001-ab12.parquet"
    twice.write_bytes((tmp_path / names[0]).read_bytes())
    assert len(split_files(tmp_path, "retain_synth", [names[0], twice.name])) == 1


def test_footers_that_claim_other_rows(tmp_path):
    """63 rows of 46, in each of the places in which a footer says how many there are, and in all of them."""
    path = tmp_path / "retain_synth-00000-of-00001.parquet"
    pq.write_table(table(46), path, store_schema=False)
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8]
    places = [place for place, byte in enumerate(footer) if byte == 2 * 46]  # as a varint; or by chance

    def refused(changed):
        claims = bytearray(footer)
        for place in changed:
            claims[place] = 2 * 63
        path.write_bytes(data[: -8 - length] + bytes(claims) + data[-8:])
        try:
            assert read(path) == WHOLE
        except InputError as error:
            return str(error).startswith(str(path))
        return False

    assert refused(places)
    assert sum(refused([place]) for place in places) >= 7  # the file, its one part, and five columns


def flipped(data, rng):
    data = bytearray(data)
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def test_flipped_bits_are_found_where_pages_have_checksums(tmp_path):
    path = tmp_path / "retain_synth-00000-of-00001.parquet"
    pq.write_table(table(46), path, write_page_checksum=True, compression="none")
    data, rng, found = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(100):
        path.write_bytes(flipped(data, rng))
        try:
            assert read(path) == WHOLE
        except InputError as error:
            found += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert found > 50


def test_no_row_is_lost_to_a_flipped_bit(tmp_path):
    """Without checksums an image may differ, but never is a row missing."""
    path = tmp_path / "retain_synth-00000-of-00001.parquet"
    pq.write_table(table(46), path, compression="none")
    data, rng = path.read_bytes(), np.random.default_rng(1)
    for _ in range(100):
        path.write_bytes(flipped(data, rng))
        try:
            assert len(read(path)) == 46
        except InputError:
            continue


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "link to nothing", "git-lfs", "text", "empty"])
def test_what_is_no_parquet_file(tmp_path, kind):
    path = tmp_path / "retain_synth-00000-of-00001.parquet"
    lines = {
        "pipe": "it is a pipe",
        "device": "it is a device",
        "directory": "it is a directory",
        "link to nothing": r"a link to .*blobs/0, which is not there; download it again",
        "git-lfs": "a pointer of Git LFS, not the file itself",
        "text": "not a whole parquet file",
        "empty": "not a whole parquet file",
    }
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    elif kind == "link to nothing":
        path.symlink_to("../blobs/0")
    else:
        lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
        path.write_text({"git-lfs": lfs, "text": "<html>404</html>" * 9, "empty": ""}[kind])
    with pytest.raises(InputError, match=lines[kind]) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))


def test_cells_beyond_all_measure(tmp_path, monkeypatch):
    path = tmp_path / "retain_synth-00000-of-00001.parquet"
    pq.write_table(table(46), path)
    monkeypatch.setattr(parquet, "MAX_IMAGE", 60)
    with pytest.raises(InputError, match=r"row \d+ field 'image': 6[1-3] bytes; at most 60 are read"):
        read(path)
    monkeypatch.setattr(parquet, "MAX_IMAGE", 63)
    monkeypatch.setattr(parquet, "MAX_TEXT", 8)
    for kind in (None, "dictionary", "large"):
        pq.write_table(table(46, kind=kind), path)
        with pytest.raises(InputError, match=r"field 'text': 9 bytes; at most 8 are read"):
            read(path)


def test_columns_twice_and_lists(tmp_path):
    path = tmp_path / "retain_synth-00000-of-00001.parquet"
    made = table(3)
    pq.write_table(made.append_column("text", made["text"]), path)
    with pytest.raises(InputError, match="field 'text': 2 columns of this name"):
        read(path)
    pq.write_table(made.set_column(1, "text", pa.array([["a"], [], ["b"]])), path)
    with pytest.raises(InputError, match="field 'text': its type is list"):
        read(path)


def images(pixels, rows):
    """A table whose images are all the same bytes."""
    names = [f"{number}.jpg" for number in range(rows)]
    image = pa.StructArray.from_arrays(
        [pa.array([pixels]).take(pa.array([0] * rows)), pa.array(names)], ["bytes", "path"]
    )
    return pa.table({"image": image, "text": names, "identity_id": pa.nulls(rows, pa.string()), "file_name": names})


def test_an_image_packed_beyond_measure_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_READ_BYTES", 1 << 20)
    path = tmp_path / "retain_synth-00000-of-00001.parquet"
    pq.write_table(images(bytes(1 << 16), 40), path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 1 << 14
    with pytest.raises(
        InputError, match=r"'image\.bytes' would take 2,621,\d+ bytes, packed in .*; images do not pack"
    ):
        read(path)


@pytest.mark.parametrize("dictionary", [True, False])
def test_batches_are_as_small_as_the_images_are_large(tmp_path, monkeypatch, dictionary):
    """60 rows that are all the one value of a dictionary: few bytes on the disk, and gigabytes as rows."""
    monkeypatch.setattr(parquet, "_READ_BYTES", 1 << 20)
    rows, entries = [], parquet._entries
    monkeypatch.setattr(parquet, "_entries", lambda batch, *rest: rows.append(batch.num_rows) or entries(batch, *rest))
    path = tmp_path / "retain_synth-00000-of-00001.parquet"
    large = np.random.default_rng(0).bytes(300 << 10)
    options = {"dictionary_pagesize_limit": 1 << 30} if dictionary else {"use_dictionary": False}
    pq.write_table(images(large, 60), path, compression="none", **options)
    assert (path.stat().st_size < 1 << 20) == dictionary
    assert [image for _, _, image in read(path)] == [large] * 60
    assert max(rows) == (3 if dictionary else 1)


def test_damage_that_would_end_the_process(tmp_path):
    """pyarrow lets a C++ exception out where a footer's size statistics are damaged; so nobody may be asked for them."""
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from data_pipelines.layout.parquet import read_rows\n"
        "from salmu_jax.runtime.errors import InputError\n"
        "path, rng, refused = Path(sys.argv[1]), np.random.default_rng(1), 0\n"
        "whole = path.read_bytes()\n"
        "for _ in range(250):\n"
        "    data = bytearray(whole)\n"
        "    for _ in range(int(rng.integers(1, 4))):\n"
        "        data[int(rng.integers(len(data) // 2, len(data)))] = int(rng.integers(256))\n"
        "    path.write_bytes(data)\n"
        "    try:\n"
        "        assert len(list(read_rows(path, 'retain_synth', images=True))) == 46\n"
        "    except InputError:\n"
        "        refused += 1\n"
        "print(refused)\n"
    )
    path = tmp_path / "retain_synth-00000-of-00001.parquet"
    pq.write_table(table(46), path, compression="none")
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.stderr == ""
    assert int(done.stdout) > 80


@pytest.mark.parametrize("tail", [b"", b"PAR1", bytes(8), b"\xff\xff\xff\x7fPAR1", b"\x05\x00\x00\x00PAR1"])
def test_footers_that_are_none(tmp_path, tail):
    path = tmp_path / "retain_synth-00000-of-00001.parquet"
    path.write_bytes(b"PAR1" + b"\x19" * 40 + tail)
    with pytest.raises(
        InputError, match=r"not a whole parquet file \(.*footer|not a whole parquet file \(it does not end"
    ):
        read(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_footer_or_refused(data):
    file = io.BytesIO(b"PAR1" + data + len(data).to_bytes(4, "little") + b"PAR1")
    with contextlib.suppress(DamagedFooterError):
        read_footer(file)


def test_the_footer_is_as_pyarrow_reads_it(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(table(46), path, row_group_size=20, compression="snappy")
    with open(path, "rb") as file:
        footer = read_footer(file)
    theirs = pq.ParquetFile(path).metadata
    assert (footer.rows, [group.rows for group in footer.groups]) == (46, [20, 20, 6])
    for index, group in enumerate(footer.groups):
        for number, column in enumerate(group.columns):
            other = theirs.row_group(index).column(number)
            assert column.path == other.path_in_schema
            assert (column.values, column.packed) == (other.num_values, other.total_compressed_size)
            assert column.unpacked == other.total_uncompressed_size
            assert column.start == (other.dictionary_page_offset or other.data_page_offset)
            assert column.dictionary == any("DICTIONARY" in encoding for encoding in other.encodings)

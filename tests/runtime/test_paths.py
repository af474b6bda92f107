"""Every path that a person gives is a path, an address that somebody reads, or one line."""

import os
import re
from pathlib import Path

import pytest

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.paths import local_path, storage_path


@pytest.mark.parametrize(
    "text", ["run:1", "./gs:/x", "a/b://c", "2026-11-28T10:00", "-x", "~x/..", "a b", "C", "..", "/"]
)
def test_odd_names_are_names(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~x").mkdir()
    assert local_path(text, "--workdir") == Path(text)
    assert storage_path(text, "train.state_dir") == str(Path(text))


def test_names_of_other_encodings_are_kept():
    name = os.fsdecode(b"caf\xe9")
    assert os.fsencode(local_path(name, "--workdir")) == b"caf\xe9"
    assert os.fsencode(local_path("file:///caf%E9", "--workdir")) == b"/caf\xe9"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "--workdir: is empty, and a path is needed"),
        ("\t", "--workdir: is empty"),
        ("a\nb", r"control characters \('\\n'\)"),
        ("a\x7f", "control characters"),
        ("gs://b/run", "a directory or file of this machine is needed here, so copy or mount it first"),
        ("gs:/b", "is needed here, so copy"),
        ("S3://b", "is needed here, so copy"),
        ("hf://datasets/x", "is needed here, so copy"),
        ("https://x/y.pt", "is needed here, so copy"),
        ("C:/runs", "write ./C:/runs if it is one"),
        ("odd://x", "write ./odd://x if it is one"),
        ("file:x", "a directory is written /DIRECTORY or file:///DIRECTORY"),
        ("file://server/x", "a directory is written /DIRECTORY"),
        ("file:///", "a directory is written /DIRECTORY"),
        ("file:///a%00b", "control characters"),
        ("~no-such-user-here/x", "there is no such home directory"),
    ],
)
def test_what_is_no_local_path_is_one_line(text, complaint):
    with pytest.raises(InputError) as caught:
        local_path(text, "--workdir")
    assert re.search(complaint, str(caught.value)), caught.value
    assert len(str(caught.value).splitlines()) == 1


def test_buckets():
    assert storage_path("gs://b/a b", "train.state_dir") == "gs://b/a b"
    assert storage_path("GCS://b", "train.state_dir") == "gs://b"
    assert storage_path("s3a://b/x", "train.state_dir") == "s3://b/x"
    assert storage_path("file:///tmp/x", "train.state_dir") == "/tmp/x"
    for text in ("gs:/b/x", "gs:b/x", "gcs:///b/x", "gs:"):
        with pytest.raises(InputError, match=r"a bucket is written gs://(b/x|BUCKET/PATH)"):
            storage_path(text, "train.state_dir")
